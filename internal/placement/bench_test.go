package placement

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

// Eight threads choose among 10,000 hosts at once. Photon Controller's own figure was 1,904/s.
func BenchmarkChoose10000Hosts(b *testing.B) {
	one := Request{Nodes: []Node{{Name: "vm", Resources: model.Capacity{MilliCPU: 1000, Memory: gb, Disk: gb}, Networks: []string{"br0"}, Image: Image{ID: "k8s"}}}}
	cluster := Request{}
	for range 3 {
		n := one.Nodes[0]
		n.SpreadBy = "worker"
		cluster.Nodes = append(cluster.Nodes, n)
	}
	half := randomHosts(rand.New(rand.NewPCG(1, 2)), 10_000, 0.5)
	full := randomHosts(rand.New(rand.NewPCG(1, 2)), 10_000, 0.5)
	for i := range full {
		if i%1000 != 0 {
			full[i].Used.Memory = full[i].Capacity.Memory
		}
	}
	f, tight := fleetOf(half), fleetOf(full)
	choose := func(f *Fleet, r Request) func(rand.Source) error {
		return func(s rand.Source) error {
			_, err := f.Choose(r, s)
			return err
		}
	}
	for _, c := range []struct {
		name  string
		nodes int
		do    func(rand.Source) error
	}{
		{"one", 1, choose(f, one)},
		{"cluster-of-3", 3, choose(f, cluster)},
		{"one-of-10-with-room", 1, choose(tight, one)},
		{"place-and-release", 1, func(s rand.Source) error {
			places, err := f.Place(one, s)
			if err == nil {
				f.Release(places[0])
			}
			return err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
			b.ReportAllocs()
			var seed atomic.Uint64
			b.RunParallel(func(pb *testing.PB) {
				source := rand.NewPCG(seed.Add(1), 0)
				for pb.Next() {
					if err := c.do(source); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N*c.nodes)/b.Elapsed().Seconds(), "placements/s")
		})
	}
}
