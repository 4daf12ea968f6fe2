// Command pleiad is all of Pleiad in one program: the server, the agent inside
// nodes, the devbox, and the command line its users have. It is wiring: which
// kinds of cluster and which drivers there are is said here.
package main

import (
	"context"
	"os"

	"github.com/pleiad/pleiad/internal/cli"
)

// Set by the linker when built with make.
var version, commit string

func main() {
	env := cli.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version}
	os.Exit(cli.Run(context.Background(), env, os.Args[1:], serverCommand(), agentCommand(), devboxCommand()))
}
