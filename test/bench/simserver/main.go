// Command simserver is a Pleiad server whose hosts are simulated: what `make
// bench` measures at sizes no test machine carries. It is package server with
// the sim driver and one kind of cluster, and prints what `pleiad server` prints.
//
// The kind is Kubernetes, whose records (VMs, keys and certificates, plans) it
// makes, but no agent runs in a simulated VM: a cluster counts as ready when its
// VMs are started and told their plans. The hosts live in this process and
// forget their VMs with it; the server does not ask them for VMs it has started.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/kind/kubernetes"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/server"
)

func main() {
	dir := flag.String("data-dir", "", "`DIR` that holds everything the server keeps")
	hosts := flag.Int("hosts", 0, "how many hosts there are, called sim-0, sim-1, …")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	fleet := sim.New()
	for i := range *hosts {
		fleet.AddHost(fmt.Sprintf("sim-%d", i), sim.DefaultFacts(64, 256<<30, 8<<40))
	}
	err := server.Run(ctx, server.Options{
		DataDir: *dir, Listen: "127.0.0.1:0", Advertise: []string{"127.0.0.1"},
		Kinds: kind.NewRegistry(agentless{}), Connectors: hypervisor.Connectors{"sim": fleet},
		Version: "bench", Commit: "bench",
		Logger: slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Ready: func(address, fingerprint string) {
			fmt.Printf("serving on https://%s\nSHA-256 of its CA: %s\n", address, fingerprint)
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "simserver:", err)
		os.Exit(1)
	}
}

// agentless is Kubernetes for VMs nothing runs in.
type agentless struct{ kubernetes.Kind }

// Decide does all that Kubernetes does up to the point where nodes would report.
func (k agentless) Decide(v kind.View) kind.Decision {
	d := k.Kind.Decide(v)
	d.Ready = len(d.Issue) == 0 && len(d.Create) == 0 && d.Failed == nil
	for _, n := range v.Nodes {
		d.Ready = d.Ready && n.VM.State == model.VMStarted
	}
	return d
}
