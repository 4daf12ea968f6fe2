package main

import (
	"strings"
	"testing"
	"time"
)

func TestParseBench(t *testing.T) {
	const text = `goos: linux
BenchmarkChoose/cluster-of-8-8  	    1000	   20 ns/op	 100.5 placements/s	 3 B/op
BenchmarkChoose/cluster-of-8-8  	    1000	   10 ns/op	 300.5 placements/s	 3 B/op
BenchmarkChoose/cluster-of-8-8  	    1000	   60 ns/op	 200.5 placements/s	 3 B/op
BenchmarkSilent
PASS
`
	r, err := parseBench(text, 8)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := r.get("BenchmarkChoose/cluster-of-8", "placements/s"); err != nil || v != 200.5 {
		t.Errorf("placements/s %v, %v", v, err)
	}
	if v, err := r.get("BenchmarkChoose/cluster-of-8", "ns/op"); err != nil || v != 20 {
		t.Errorf("ns/op %v, %v", v, err)
	}
	if _, err := r.get("BenchmarkChoose/cluster-of-8", "things/s"); err == nil {
		t.Error("a unit that was not reported was found")
	}
	// One processor is not part of the name.
	if r, err = parseBench(strings.ReplaceAll(text, "-8-8", "-8"), 1); err != nil || r["BenchmarkChoose/cluster-of-8"] == nil {
		t.Errorf("with one processor: %v, %v", r, err)
	}
}

func TestParsePhases(t *testing.T) {
	phases, err := parsePhases("launch 3.72\ntotal 31.27\n")
	if err != nil || len(phases) != 2 || phases["total"] != 31.27 {
		t.Errorf("%v, %v", phases, err)
	}
	if _, err := parsePhases("launch 3.72\nkubeadm join\n"); err == nil {
		t.Error("a line that is no phase was taken for one")
	}
}

func TestFigures(t *testing.T) {
	if m := median([]float64{9, 1, 5}); m != 5 {
		t.Errorf("median %v", m)
	}
	if m := median([]float64{9, 1, 5, 3}); m != 4 {
		t.Errorf("median of four %v", m)
	}
	var took []time.Duration
	for i := range 200 {
		took = append(took, time.Duration(200-i))
	}
	if p := percentile(took, 99); p != 198 {
		t.Errorf("p99 %v", p)
	}
	if p := percentile(took[:1], 50); p != 200 {
		t.Errorf("p50 of one %v", p)
	}
	for got, want := range map[string]string{
		rate(1234567.8): "1,234,568/s", rate(999): "999/s", ratio(29, 2): "14", ratio(1, 2): "0.50", ratio(1, 0): "",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	var out strings.Builder
	tab := table{head: "load 1"}
	tab.add(row{what: "a", figure: "1 s", ratio: "2"})
	if err := tab.print(&out); err != nil || !strings.HasSuffix(out.String(), "a     1 s     -            2      -\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
