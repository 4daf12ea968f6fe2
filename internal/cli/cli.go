package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes of Run and Main.
const (
	ExitOK             = 0
	ExitError          = 1 // the command failed
	ExitUsage          = 2 // wrong arguments or flags
	ExitUnknownCommand = 3
)

// Env is what the command line gets from the world.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Getenv reads the environment; os.Getenv when nil.
	Getenv func(string) string
	// Version is the program's; that of the build when empty.
	Version string
}

// Main runs a command line (without the program's name) in the process's
// environment and returns the exit code. extra are commands besides those of
// this package. Signals are left alone, so that an interrupt ends a question or
// a short command at once; commands that have to clean up catch them themselves.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer, extra ...*cobra.Command) int {
	return Run(context.Background(), Env{Stdin: stdin, Stdout: stdout, Stderr: stderr}, args, extra...)
}

// Run runs one command line and returns its exit code; errors are written to env.Stderr.
func Run(ctx context.Context, env Env, args []string, extra ...*cobra.Command) int {
	root, s := newRoot(env)
	defer s.close()
	root.AddCommand(extra...)
	root.SetArgs(args)
	begin := time.Now()
	cmd, err := root.ExecuteContextC(ctx)
	code := report(env.Stderr, cmd, err)
	s.logEnd(cmd, time.Since(begin), code, err)
	return code
}

// New returns the root command, e.g. to make documentation of. Whoever executes
// it gets errors back unprinted.
func New(env Env) *cobra.Command {
	root, _ := newRoot(env)
	return root
}

func newRoot(env Env) (*cobra.Command, *session) {
	if env.Getenv == nil {
		env.Getenv = os.Getenv
	}
	if env.Version == "" {
		env.Version = buildVersion()
	}
	s := newSession(env)
	root := &cobra.Command{
		Use:     "pleiad",
		Short:   "Self-service clusters on bare hypervisor hosts",
		Version: env.Version,
		Long: `Pleiad turns hypervisor hosts into Kubernetes and other clusters.

Start with "pleiad target set URL" and "pleiad target login".

Environment: PLEIAD_TARGET and PLEIAD_TOKEN override the context file, which
is where PLEIAD_CONFIG says; PLEIAD_FINGERPRINT is the SHA-256 of the CA of a
server that PLEIAD_TARGET names.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 unknown command.`,
		SilenceErrors:    true,
		SilenceUsage:     true,
		TraverseChildren: true, // flags such as -n mean one thing before the command and another after it
		Args:             cobra.ArbitraryArgs,
		RunE:             group,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return s.begin()
		},
	}
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	// Photon's flags have underscores in some versions and hyphens in others.
	root.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })

	// Local to the root, as Photon had them: subcommands use -n, -l and -d for flags of their own.
	root.Flags().BoolVarP(&s.flags.nonInteractive, "non-interactive", "n", false, "ask nothing; print bare ids and tab-separated lines")
	root.Flags().StringVarP(&s.flags.logFile, "log-file", "l", "", "append a log of commands and tasks to `FILE`")
	root.Flags().BoolVarP(&s.flags.detail, "detail", "d", false, "print target, tenant and project first")
	root.PersistentFlags().BoolVar(&s.flags.nonInteractive, "non-interactive", false, "ask nothing; print bare ids and tab-separated lines")
	root.PersistentFlags().StringVarP(&s.flags.output, "output", "o", "", "print as `FORMAT`: json, yaml or table")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml", "table"}, cobra.ShellCompDirectiveNoFileComp)))

	root.AddCommand(
		targetCommand(s), authCommand(s), systemCommand(s), deploymentCommand(s),
		zoneCommand(s), hostCommand(s), datastoreCommand(s), orphanCommand(s), subnetCommand(s),
		imageCommand(s), flavorCommand(s),
		tenantCommand(s), ticketCommand(s), projectCommand(s),
		vmCommand(s), clusterCommand(s), taskCommand(s), versionCommand(s),
	)
	return root, s
}

// groupCommand returns a command that only holds others.
func groupCommand(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: group}
	c.AddCommand(children...)
	return c
}

// group runs a command that only holds others: with nothing after it, it shows
// its help; anything after it is a command there isn't.
func group(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	c.SuggestionsMinimumDistance = 2
	return unknownCommandError{parent: c.CommandPath(), name: args[0], suggestions: c.SuggestionsFor(args[0])}
}

// usageError is a command line that cannot be run as it is.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usagef returns a usage error.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

type unknownCommandError struct {
	parent, name string
	suggestions  []string
}

func (e unknownCommandError) Error() string {
	s := fmt.Sprintf("unknown command %q for %q", e.name, e.parent)
	if len(e.suggestions) > 0 {
		s += "; did you mean " + strings.Join(e.suggestions, " or ") + "?"
	}
	return s
}

// errCancelled is the user's "no" to a question: nothing was done, and that is no failure.
var errCancelled = errors.New("cancelled")

// must is for calls whose error is a defect of the program.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// args returns a check that there are min to max arguments.
func args(min, max int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return usagef("insufficient arguments: expected %d, provided %d\nUsage: %s", min, len(args), c.UseLine())
		case len(args) > max:
			return usagef("unknown arguments: %s\nUsage: %s", strings.Join(args[max:], " "), c.UseLine())
		}
		return nil
	}
}

func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && version == "(devel)" {
			version = "devel-" + setting.Value[:min(12, len(setting.Value))]
		}
	}
	return version
}
