package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// leads has a leader made by hand work like that of a server, until the test ends.
func (l *leader) leads(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	l.follow(ctx, &wg)
	wg.Go(func() { l.queue.serve(ctx, 4) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// silence takes a host down, and has the leader notice.
func (w *world) silence(l *leader, name, id string) {
	w.t.Helper()
	w.fleet.Host(name).SetDown(true)
	w.look(l, id)
	if h, err := store.Hosts.Get(w.store, id); err != nil || answers(h) {
		w.t.Fatalf("the host is %+v, %v", h, err)
	}
}

// look has the leader ask a host for its facts, and tell the fleet.
func (w *world) look(l *leader, id string) {
	w.t.Helper()
	if _, err := l.reconcileHost(context.Background(), id); err != nil {
		w.t.Fatal(err)
	}
	if err := l.readFleet(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) imageOn(id string, hosts int, progress string) bool {
	img, err := store.Images.Get(w.store, id)
	return err == nil && len(img.Hosts) == hosts && img.ReplicationProgress == progress && img.State == model.StateReady
}

// The task of an eager image does not wait for a host that does not answer; the
// host gets the image once it is back.
func TestEagerImageDoesNotWaitForSilentHost(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(10), "h1", "h2")
	w.stop()
	l := w.hand()
	w.silence(l, "h2", w.hosts[1])
	l.leads(t)
	var mu sync.Mutex
	tried := 0
	w.hooked(func(_ context.Context, call sim.Call, m sim.Moment) error {
		if call.Op == "EnsureImage" && call.Host == "h2" && m == sim.Before {
			mu.Lock()
			defer mu.Unlock()
			tried++
		}
		return nil
	})
	task := w.finished(l.CreateImage(context.Background(), "second", "EAGER", bytes.NewReader(nodeImage(t))))
	if step := task.Steps[1]; task.State != model.TaskCompleted || step.Progress != "on 1 of 2 hosts" {
		t.Errorf("%s", describe(task))
	}
	if id := task.Entity.ID; !w.imageOn(id, 1, "50%") {
		t.Error("the image is not on one of two hosts")
	}
	mu.Lock()
	if tried != 0 {
		t.Errorf("the host that does not answer was tried %d times", tried)
	}
	mu.Unlock()
	w.fleet.Host("h2").SetDown(false)
	l.queue.add(key{nounHost, w.hosts[1]})
	await(w, store.Images, func() bool { return w.imageOn(task.Entity.ID, 2, "100%") })
}

// The task does not wait for a host either that answers, and fails; it says why.
func TestEagerImageTellsOfFailures(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(10), "h1", "h2")
	w.hooked(func(_ context.Context, call sim.Call, m sim.Moment) error {
		if call.Op == "EnsureImage" && call.Host == "h2" && m == sim.Before {
			return model.Errorf(model.CodeHypervisorError, "the pool is full")
		}
		return nil
	})
	task := w.finished(s.CreateImage(context.Background(), "second", "EAGER", bytes.NewReader(nodeImage(t))))
	if step := task.Steps[1]; task.State != model.TaskCompleted || step.Progress != "on 1 of 2 hosts: the pool is full" {
		t.Errorf("%s", describe(task))
	}
	w.hooked(func(context.Context, sim.Call, sim.Moment) error { return nil })
	await(w, store.Images, func() bool { return w.imageOn(task.Entity.ID, 2, "100%") })
}

// Hosts get an image several at once, but not all.
func TestImageIsCopiedToSeveralHostsAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	var names []string
	for i := range 2*copiesAtOnce + 1 {
		names = append(names, fmt.Sprintf("h%d", i))
	}
	var mu sync.Mutex
	var inside []string
	most := 0
	var once sync.Once
	full := make(chan struct{})
	w.hooked(func(ctx context.Context, call sim.Call, m sim.Moment) error {
		if call.Op != "EnsureImage" {
			return nil
		}
		mu.Lock()
		if m == sim.After {
			inside = slices.DeleteFunc(inside, func(h string) bool { return h == call.Host })
			mu.Unlock()
			return nil
		}
		inside = append(inside, call.Host)
		most = max(most, len(inside))
		fills := len(inside) == copiesAtOnce
		mu.Unlock()
		if fills {
			once.Do(func() {
				for range 10 { // trips to the store, in which more copies would begin
					if _, err := w.store.Update(ctx, "", func(tx *store.Tx) error {
						_, err := store.Zones.Count(tx, store.Query{})
						return err
					}); err != nil {
						t.Error(err)
					}
				}
				close(full)
			})
		}
		select {
		case <-full:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	w.setUp(s, memory(10), names...)
	if !w.imageOn(w.image, len(names), "100%") || most != copiesAtOnce {
		t.Errorf("%d hosts at once got the image", most)
	}
}

// A host that is deleted keeps no images of ours, if it answers; if not, its
// deletion does not wait for it.
func TestDeletedHostLosesImages(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	ctx := context.Background()
	w.setUp(s, memory(10), "h1", "h2", "h3")
	second := w.done(s.CreateImage(ctx, "second", "EAGER", bytes.NewReader(nodeImage(t))))
	w.done(s.DeleteHost(ctx, w.hosts[0]))
	if left := w.fleet.Host("h1").Images(); len(left) > 0 {
		t.Errorf("the host still has images %v", left)
	}
	if left := w.fleet.Host("h2").Images(); !slices.Contains(left, second) || len(left) != 2 {
		t.Errorf("another host has only images %v", left)
	}

	// A host that fails: each call has a deadline, and the host goes.
	w.hooked(func(ctx context.Context, call sim.Call, _ sim.Moment) error {
		if call.Host != "h2" || call.Op == "Facts" {
			return nil
		}
		if at, ok := ctx.Deadline(); !ok || at.After(w.clock.now().Add(cleanTimeout)) {
			t.Errorf("%s may take until %v", call.Op, at)
		}
		if call.Op == "DeleteImage" {
			return errors.New("connection reset by peer")
		}
		return nil
	})
	w.done(s.DeleteHost(ctx, w.hosts[1]))

	// A host that does not answer is not even tried.
	w.stop()
	l := w.hand()
	w.silence(l, "h3", w.hosts[2])
	w.hooked(func(_ context.Context, call sim.Call, _ sim.Moment) error {
		t.Errorf("%s of a host that does not answer", call.Op)
		return nil
	})
	w.done(l.DeleteHost(ctx, w.hosts[2]))
	for key := range w.dump() {
		if strings.HasPrefix(key, "hosts/") || strings.HasPrefix(key, "secrets/") || strings.HasPrefix(key, "host-usages/") {
			t.Errorf("%s is left", key)
		}
	}
	if img, err := store.Images.Get(w.store, second); err != nil || len(img.Hosts) != 0 {
		t.Errorf("the image is %+v, %v", img, err)
	}
}
