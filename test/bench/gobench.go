package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// photon is Photon Controller's own figure for placements among 10,000 hosts
// with 8 threads, choice only.
const photon = 1904.0

// benchmarks runs the Go benchmarks of placement and of the store.
func (b *bench) benchmarks(ctx context.Context) error {
	choice, err := b.goBench(ctx, "./internal/placement", "^BenchmarkChoose10000Hosts$/^(one|cluster-of-3)$")
	if err != nil {
		return err
	}
	for _, r := range []struct{ name, what string }{
		{"BenchmarkChoose10000Hosts/one", "placements among 10,000 hosts, 8 threads, choice only"},
		{"BenchmarkChoose10000Hosts/cluster-of-3", "  as clusters of three nodes"},
	} {
		if err := b.addPlacements(choice, r.name, "placements/s", r.what, "20,000/s"); err != nil {
			return err
		}
	}
	committed, err := b.goBench(ctx, "./internal/control", "^BenchmarkPlaceCommitted$")
	if err != nil {
		return err
	}
	if len(committed) == 0 {
		b.table.add(row{what: "  committed with quota", figure: "not measured: there is no benchmark", aim: "5,000/s"})
	}
	for _, name := range slices.Sorted(maps.Keys(committed)) {
		if err := b.addPlacements(committed, name, "placements/s", "  committed with quota"+variant(name), "5,000/s"); err != nil {
			return err
		}
	}
	return b.store(ctx)
}

func (b *bench) addPlacements(r results, name, unit, what, aim string) error {
	v, err := r.get(name, unit)
	if err == nil {
		b.table.add(row{what, rate(v), "Photon Controller, choice only: " + rate(photon), ratio(v, photon), aim})
	}
	return err
}

func (b *bench) store(ctx context.Context) error {
	r, err := b.goBench(ctx, "./internal/store", "^Benchmark(CreateSerial|Create32Writers|Ledger64Writers)$")
	if err != nil {
		return err
	}
	serial, err := r.get("BenchmarkCreateSerial", "ns/op")
	if err != nil {
		return err
	}
	rows := []struct{ what, unit, a, against, other string }{
		{"store: one account booked by 64 writers, in groups", "bookings/s",
			"BenchmarkLedger64Writers/grouped", "each optimistic ", "BenchmarkLedger64Writers/optimistic"},
		{"store: VMs created by 32 writers, in groups", "creates/s",
			"BenchmarkCreate32Writers/group=g", "each on its own ", "BenchmarkCreate32Writers/group="},
	}
	for _, w := range rows {
		a, err := r.get(w.a, w.unit)
		if err != nil {
			return err
		}
		other, err := r.get(w.other, w.unit)
		if err != nil {
			return err
		}
		b.table.add(row{w.what, rate(a), w.against + rate(other), ratio(a, other), ""})
	}
	alone, err := r.get("BenchmarkCreate32Writers/group=", "creates/s")
	if err != nil {
		return err
	}
	b.table.add(row{"store: VMs created by 32 writers, each on its own", rate(alone), "one writer " + rate(1e9/serial), ratio(alone*serial, 1e9), ""})
	return nil
}

// results are the medians of benchmarks, by name and unit.
type results map[string]map[string]float64

func (r results) get(name, unit string) (float64, error) {
	v, ok := r[name][unit]
	if !ok {
		return 0, fmt.Errorf("benchmark %s did not report %s", name, unit)
	}
	return v, nil
}

// variant is what follows a benchmark's own name.
func variant(name string) string {
	if _, sub, ok := strings.Cut(name, "/"); ok {
		return ": " + sub
	}
	return ""
}

// goBench runs benchmarks of a package three times.
func (b *bench) goBench(ctx context.Context, pkg, pattern string) (results, error) {
	cmd := b.command(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-count", "3", "-timeout", "10m", pkg)
	// The store's files must be on a disk: what an fsync costs is what is measured.
	tmp := b.path("tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, err
	}
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := b.output(cmd)
	if err != nil {
		return nil, err
	}
	return parseBench(out, runtime.GOMAXPROCS(0))
}

// parseBench reads the output of go test -bench: lines of a name, with -procs
// unless that is 1, a count, and pairs of a value and its unit.
func parseBench(text string, procs int) (results, error) {
	values := map[string]map[string][]float64{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || len(f)%2 != 0 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := f[0]
		if procs != 1 {
			name = strings.TrimSuffix(name, fmt.Sprintf("-%d", procs))
		}
		if values[name] == nil {
			values[name] = map[string][]float64{}
		}
		for i := 2; i < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("line %q: %w", line, err)
			}
			values[name][f[i+1]] = append(values[name][f[i+1]], v)
		}
	}
	r := results{}
	for name, units := range values {
		r[name] = map[string]float64{}
		for unit, v := range units {
			r[name][unit] = median(v)
		}
	}
	return r, nil
}
