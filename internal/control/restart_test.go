package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/plan"
	"github.com/pleiad/pleiad/internal/store"
)

// stepwise has nodes report after each step, so that there are more revisions to die at.
func stepwise(w *world) {
	w.nodes.Do = func(context.Context, bootstrap.Bootstrap, plan.Step) error { return nil }
}

// undisturbed runs create and delete without a fault, and returns the outcome of each.
func undisturbed(t *testing.T) (created, deleted map[string]string) {
	t.Helper()
	w := newWorld(t, stepwise)
	s := w.start()
	w.setUp(s, memory(10), "h1", "h2")
	id := w.done(s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 2)))
	created = w.outcome()
	w.done(s.DeleteCluster(context.Background(), id))
	return created, w.outcome()
}

// changedOnce waits until the task or a VM changes, and reports whether the task has ended.
func (w *world) changedOnce(taskID string) (ended bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	seen := make(chan bool, 2)
	var watching sync.WaitGroup
	tasks := store.Tasks.Watch(ctx, w.store, store.WatchOptions{ID: taskID})
	vms := store.VMs.Watch(ctx, w.store, store.WatchOptions{})
	if task, err := store.Tasks.Get(w.store, taskID); err != nil || task.State.Finished() {
		return true
	}
	watching.Go(func() {
		for e := range tasks {
			seen <- e.New == nil || e.New.State.Finished()
			return
		}
	})
	watching.Go(func() {
		for range vms {
			seen <- false
			return
		}
	})
	defer watching.Wait()
	defer cancel()
	select {
	case ended = <-seen:
		return ended
	case <-ctx.Done():
		w.t.Fatal("nothing changes any more")
		return true
	}
}

// TestRestartAtEveryStep stops or kills the controller whenever the task or a VM
// has changed, and starts another on the same store and the same hosts.
func TestRestartAtEveryStep(t *testing.T) {
	created, deleted := undisturbed(t)
	for name, end := range map[string]func(*world){"stopped": (*world).stop, "killed": (*world).kill} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, stepwise)
			s := w.start()
			w.setUp(s, memory(10), "h1", "h2")
			restarts := 0
			follow := func(task *model.Task) {
				for !w.changedOnce(task.ID) {
					end(w)
					w.audit()
					restarts++
					s = w.start()
				}
			}
			task, err := s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 2))
			if err != nil {
				t.Fatal(err)
			}
			follow(task)
			w.settled()
			sameOutcome(t, created, w.outcome())
			if restarts < 2 {
				t.Errorf("the controller was %s only %d times during the creation", name, restarts)
			}
			restarts = 0
			if task, err = s.DeleteCluster(context.Background(), task.Entity.ID); err != nil {
				t.Fatal(err)
			}
			follow(task)
			w.settled()
			sameOutcome(t, deleted, w.outcome())
			if restarts < 2 {
				t.Errorf("the controller was %s only %d times during the deletion", name, restarts)
			}
		})
	}
}

// TestKilledInsideEachCall kills the controller while a host does what it was
// told: before the host has done it, and after, with the answer on its way.
func TestKilledInsideEachCall(t *testing.T) {
	created, deleted := undisturbed(t)
	for _, c := range []struct {
		op      string
		moment  sim.Moment
		deletes bool
	}{
		{"CreateVM", sim.Before, false}, {"CreateVM", sim.After, false},
		{"StartVM", sim.Before, false}, {"StartVM", sim.After, false},
		{"StopVM", sim.Before, true}, {"StopVM", sim.After, true},
		{"DeleteVM", sim.Before, true}, {"DeleteVM", sim.After, true},
	} {
		t.Run(fmt.Sprintf("%s/%s", c.op, []string{"before", "after"}[c.moment]), func(t *testing.T) {
			w := newWorld(t, stepwise)
			s := w.start()
			w.setUp(s, memory(10), "h1", "h2")
			inside := make(chan struct{})
			var once atomic.Bool
			w.hooked(func(ctx context.Context, call sim.Call, m sim.Moment) error {
				if call.Op != c.op || m != c.moment || !once.CompareAndSwap(false, true) {
					return nil
				}
				close(inside)
				<-ctx.Done() // the call does not outlive the controller
				return ctx.Err()
			})
			die := func() {
				select {
				case <-inside:
				case <-time.After(patience):
					t.Fatalf("no host was ever told to %s", c.op)
				}
				w.kill()
				s = w.start()
			}
			task, err := s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 2))
			if err == nil && !c.deletes {
				die()
			}
			id := w.done(task, err)
			w.settled()
			sameOutcome(t, created, w.outcome())
			task, err = s.DeleteCluster(context.Background(), id)
			if err == nil && c.deletes {
				die()
			}
			w.done(task, err)
			w.settled()
			sameOutcome(t, deleted, w.outcome())
		})
	}
}

// TestFaultOfEachCall fails one call of each sort, once, before it has its
// effect, and after, so that the answer is lost.
func TestFaultOfEachCall(t *testing.T) {
	created, deleted := undisturbed(t)
	for _, moment := range []sim.Moment{sim.Before, sim.After} {
		for _, op := range []string{"Connect", "EnsureImage", "CreateVM", "StartVM", "StopVM", "DeleteVM"} {
			t.Run(fmt.Sprintf("%s/%s", op, []string{"before", "after"}[moment]), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, stepwise)
				w.setUp(w.start(), memory(10), "h1", "h2")
				w.stop()                            // the next one has no session yet
				w.update(func(tx *store.Tx) error { // nor the hosts the image, as far as is known
					img, err := store.Images.Get(tx, w.image)
					if err != nil {
						return err
					}
					img.Hosts, img.ReplicationType = nil, "ON_DEMAND"
					return store.Images.Put(tx, img)
				})
				var failed atomic.Bool
				w.hooked(func(_ context.Context, call sim.Call, m sim.Moment) error {
					if call.Op == op && m == moment && failed.CompareAndSwap(false, true) {
						return errors.New("connection reset by peer")
					}
					return nil
				})
				s := w.start()
				id := w.done(s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 2)))
				w.settled()
				sameOutcome(t, created, w.outcome())
				w.done(s.DeleteCluster(context.Background(), id))
				w.settled()
				sameOutcome(t, deleted, w.outcome())
				if !failed.Load() {
					t.Errorf("%s was never called", op)
				}
			})
		}
	}
}
