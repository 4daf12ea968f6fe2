package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// Many ask at once for what a few can get: exactly those get it, the others are
// refused with the right words, nothing is ever over its limit, and when all is
// deleted everything is as it was.
func TestCreatesAgainstLimits(t *testing.T) {
	const asked = 100
	for name, c := range map[string]struct {
		quotaGB float64 // of memory; a cluster of 1+1 takes 3
		hostGiB int64   // of each of two hosts
		code    model.Code
		fit     int
	}{
		"full quota": {60, 64, model.CodeQuotaError, 20},
		"full hosts": {1000, 30, model.CodeNotEnoughMemory, 20},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			s := w.start()
			for _, h := range []string{"h1", "h2"} {
				w.host(h, c.hostGiB*gib, nil)
			}
			w.setUp(s, memory(c.quotaGB), "h1", "h2")
			before := w.dump()
			stop := w.watchdog()
			tasks := make([]*model.Task, asked)
			var wg sync.WaitGroup
			for i := range asked {
				wg.Go(func() {
					task, err := s.CreateCluster(context.Background(), w.project, clusterSpec(fmt.Sprintf("c%d", i), 1))
					if err != nil && !errors.Is(err, model.ErrorOf(c.code)) {
						t.Errorf("cluster %d: %v", i, err)
					}
					tasks[i] = task
				})
			}
			wg.Wait()
			w.audit()
			made := 0
			for i, task := range tasks {
				if task == nil {
					continue
				}
				made++
				wg.Go(func() { // deleted while others are still being made
					task, err := s.DeleteCluster(context.Background(), task.Entity.ID)
					if err != nil {
						t.Errorf("cluster %d: %v", i, err)
					}
					tasks[i] = task
				})
			}
			wg.Wait()
			// Masters need 2 GiB in one piece: the hosts may be left with less on each.
			if made > c.fit || made < c.fit-1 {
				t.Errorf("%d clusters were made, want %d", made, c.fit)
			}
			for _, task := range tasks {
				if task != nil {
					w.done(task, nil)
				}
			}
			w.settled()
			stop()
			same(t, before, w.dump())
		})
	}
}

// When the replica that leads stops or loses its lead, another goes on where it was.
func TestLeadIsHandedOver(t *testing.T) {
	w := newWorld(t, nil)
	a := w.start()
	w.setUp(a, memory(10), "h1", "h2")
	b := w.run("b") // waits for its turn
	defer func() {
		if err := b.halt(); err != nil {
			t.Error(err)
		}
	}()
	reached, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.hooked(func(ctx context.Context, call sim.Call, m sim.Moment) error {
		if call.Op != "CreateVM" || m != sim.After {
			return nil
		}
		once.Do(func() { close(reached) })
		select {
		case <-released:
		case <-ctx.Done():
		}
		return nil
	})
	task, err := b.CreateCluster(context.Background(), w.project, clusterSpec("demo", 2)) // any replica serves
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	w.stop()
	close(released)
	w.serve(b)
	w.done(task, nil)
	w.serve(nil) // b is stopped by hand
	w.audit()
}

// A cluster may have as many workers as the API allows; one that is too large
// for the store's etcd is refused with what to do, and leaves nothing.
func TestLargestCluster(t *testing.T) {
	for name, c := range map[string]struct {
		maxOps int
		fits   bool
	}{"embedded": {0, true}, "etcd as it is by default": {128, false}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(w *world) { w.opts.MaxTxnOps = c.maxOps })
			s := w.start()
			var hosts []string
			for i := range 17 {
				hosts = append(hosts, fmt.Sprintf("h%d", i))
			}
			w.setUp(s, memory(2000), hosts...)
			w.stop() // a thousand nodes need not boot
			before := w.dump()
			spec := clusterSpec("demo", model.MaxWorkers)
			spec.PodCIDR = "10.16.0.0/14" // a /24 for each node
			task, err := w.controller("b").CreateCluster(context.Background(), w.project, spec)
			if c.fits {
				if err != nil {
					t.Fatal(err)
				}
				w.audit()
				if n, err := store.VMs.Count(w.store, store.Query{Index: "clusterId", Value: task.Entity.ID}); err != nil || n != 1+model.MaxWorkers {
					t.Errorf("%d nodes, %v", n, err)
				}
				return
			}
			if e := refused(t, err, model.CodeInsufficientCapacity); e.Data["nodes"] != "1001" || e.Action == "" {
				t.Errorf("%+v", e)
			}
			same(t, before, w.dump())
		})
	}
}
