package control

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// Eight threads create clusters on 10,000 hosts: each node's host is chosen, and
// quota, capacity and addresses are taken and recorded, durably, before the
// answer. Photon Controller's figure, for the choice alone, was 1,904/s.
func BenchmarkPlaceCommitted(b *testing.B) {
	for _, workers := range []int{2, 9} {
		b.Run(fmt.Sprintf("cluster-of-%d", 1+workers), func(b *testing.B) {
			w := newWorld(b, func(w *world) { w.opts.UnsafeNoFsync = false })
			s := w.start()
			w.setUp(s, memory(8e6), "h1")
			w.stop() // nothing but the creates is to be measured
			w.manyHosts(10_000)
			c := w.controller("bench")
			if err := c.readFleet(); err != nil {
				b.Fatal(err)
			}
			w.update(func(tx *store.Tx) error {
				n, err := store.Subnets.Get(tx, w.subnet)
				if err != nil {
					return err
				}
				n.CIDR, n.RangeEnd = "100.64.0.0/10", "100.127.255.254"
				return store.Subnets.Put(tx, n)
			})
			var n atomic.Int64
			b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := c.CreateCluster(context.Background(), w.project, clusterSpec(fmt.Sprintf("c%d", n.Add(1)), workers)); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N*(1+workers))/b.Elapsed().Seconds(), "placements/s")
		})
	}
}

// manyHosts records copies of the first host as if they had been registered.
func (w *world) manyHosts(n int) {
	w.t.Helper()
	first, err := store.Hosts.Get(w.store, w.hosts[0])
	if err != nil {
		w.t.Fatal(err)
	}
	const batch = 500 // what a transaction can hold
	for from := 1; from < n; from += batch {
		w.update(func(tx *store.Tx) error {
			for i := from; i < min(n, from+batch); i++ {
				h := *first
				h.ID, h.Address = fmt.Sprintf("host-%d", i), fmt.Sprintf("address-%d", i)
				if err := errors.Join(store.Hosts.Put(tx, &h), hostUsages.Put(tx, &model.HostUsage{HostID: h.ID})); err != nil {
					return err
				}
			}
			return nil
		})
	}
}
