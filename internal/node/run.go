package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
)

// Options of an agent. The zero value is a node's own.
type Options struct {
	// Version is the program's, for the controller to see.
	Version string
	// Log gets the agent's story; nil means slog.Default.
	Log *slog.Logger
	// Root is put before every path, e.g. a temporary directory; programs are
	// not confined to it.
	Root string
	// Runner runs programs; nil means those of the machine.
	Runner Runner
	// Dial opens connections to controllers; nil means the network's.
	Dial DialFunc

	// links lists network interfaces; nil means the machine's.
	links func() ([]link, error)
}

// Run is the agent: it works until ctx ends, which the caller makes happen at
// SIGTERM. The step that runs then is stopped, with all its processes, and runs
// again at the next start. Run returns nil when ctx ended, and an error only
// when its own state or the network's files cannot be read or written, or when
// another agent works with them; everything else it tries again.
func Run(ctx context.Context, o Options) (err error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Runner == nil {
		o.Runner = processes{}
	}
	if o.links == nil {
		o.links = systemLinks
	}
	st, err := openState(filepath.Join(o.Root, stateDir))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	o.Log.Info("agent starts", "version", o.Version)
	err = run(ctx, o, st)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	o.Log.Info("agent ends")
	return err
}

func run(ctx context.Context, o Options, st *state) error {
	boot, err := findBootstrap(ctx, st, sources(o.Root), o.Log)
	if err != nil {
		return err
	}

	net := &network{root: o.Root, runner: o.Runner, links: o.links, log: o.Log}
	reload, err := net.configure(ctx, boot)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}

	client, err := NewClient(boot, o.Dial)
	if err != nil {
		return err
	}
	defer client.Close()
	id, err := openIdentity(st, boot, client, o.Log)
	if err != nil {
		return err
	}
	saved, results, err := st.loadPlan(o.Log)
	if err != nil {
		return err
	}
	registered, err := id.resume()
	if err != nil {
		return err
	}

	// Nothing fails from here on. The engine goes on with the saved plan, whether
	// a controller can be reached or not.
	rep := newReporter(o.Log)
	x := &executor{root: o.Root, runner: o.Runner}
	eng := newEngine(boot.NodeID, st, x, newApplier(saved, results), o.Log, rep.changed)
	rep.client, rep.engine = client, eng
	survey := &surveyor{root: o.Root, version: o.Version, network: boot.Network, links: o.links}
	rep.setFacts(survey.facts())

	var running sync.WaitGroup
	running.Go(func() { eng.run(ctx) })
	if reload {
		running.Go(func() { net.reload(ctx) })
	}
	if !registered {
		id.register(ctx)
	}
	if ctx.Err() == nil {
		running.Go(func() { poll(ctx, client, eng, o.Log) })
		running.Go(func() { rep.run(ctx) })
		running.Go(func() { rep.beat(ctx, survey) })
		id.keepFresh(ctx)
	}
	running.Wait()
	return nil
}
