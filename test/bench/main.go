// Command bench measures Pleiad and prints one table of figures beside what
// they compare to, as ratios, all taken in one run on one machine: `make bench`.
// Nothing in it passes or fails by a figure.
//
//   - A cluster of one master and two workers, against hack/by-hand, in turns,
//     on one LXD daemon of the bench's own.
//   - Placement and the store, by the Go benchmarks of their packages.
//   - The server with 10,000 VMs on simulated hosts: memory, latencies, start-up.
//
// It needs root and what `make bench` installs and builds. Everything it starts
// and makes is below one directory in /var/tmp and gone when it ends, also when
// it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	pleiad, simserver, byHand, image string
	pairs, vms                       int
	dir                              string
	// raw gets everything, out is what the user sees; out writes to raw as well.
	raw, out io.Writer
	table    table
}

func main() {
	b := &bench{}
	raw := flag.String("raw", "", "`FILE` for everything the parts print")
	parts := flag.String("parts", "cluster,go,scale", "which parts to measure")
	flag.StringVar(&b.pleiad, "pleiad", "", "the pleiad `PROGRAM`")
	flag.StringVar(&b.simserver, "simserver", "", "the simserver `PROGRAM`")
	flag.StringVar(&b.byHand, "by-hand", "", "the `SCRIPT` that makes a cluster by hand")
	flag.StringVar(&b.image, "image", "", "`FILE` of the node image")
	flag.IntVar(&b.pairs, "pairs", 3, "how many clusters to make each way")
	flag.IntVar(&b.vms, "vms", 10_000, "how many simulated VMs to make, in thousands, at least 2000")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx, *raw, strings.Split(*parts, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context, raw string, parts []string) (err error) {
	if b.pairs < 1 || b.vms <= pageSize*clusterSize || b.vms%(pageSize*clusterSize) != 0 {
		return fmt.Errorf("-pairs must be at least 1, and -vms a multiple of %d and more", pageSize*clusterSize)
	}
	f, err := os.Create(raw)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b.raw, b.out = f, io.MultiWriter(os.Stdout, f)
	// Short, because LXD's sockets are below it, and on a disk, which /tmp need not be.
	if b.dir, err = os.MkdirTemp("/var/tmp", "plbench"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := os.Chmod(b.dir, 0o711); err != nil { // the roots of containers are below it
		return err
	}
	b.table.head = fmt.Sprintf("%s on %d CPUs; load at the start: %s", time.Now().Format(time.DateTime), runtime.NumCPU(), load())
	var errs []error
	for _, name := range parts {
		part := map[string]func(context.Context) error{"cluster": b.cluster, "go": b.benchmarks, "scale": b.scale}[name]
		if part == nil {
			return fmt.Errorf("there is no part %q", name)
		}
		fmt.Fprintf(b.out, "== %s (load %s)\n", name, load())
		began := time.Now()
		if err := part(ctx); err != nil {
			err = fmt.Errorf("part %s: %w", name, err)
			fmt.Fprintln(b.out, err)
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
		fmt.Fprintf(b.out, "   %.0f s\n", time.Since(began).Seconds())
	}
	b.table.head += "; at the end: " + load()
	fmt.Fprintln(b.out)
	return errors.Join(append(errs, b.table.print(b.out))...)
}

// load is the machine's load averages of 1, 5 and 15 minutes.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}

// path is a path below the run's directory.
func (b *bench) path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}
