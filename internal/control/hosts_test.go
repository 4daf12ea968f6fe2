package control

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// A host that cannot be registered leaves nothing, and its address is free again.
func TestHostRegistrationFails(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	ctx := context.Background()
	before := w.dump()
	for name, c := range map[string]struct {
		change func(*model.HostCreateSpec)
		hook   error
		code   model.Code
	}{
		"nobody there":      {func(h *model.HostCreateSpec) { h.Address = "nowhere" }, nil, model.CodeHostUnreachable},
		"down":              {func(*model.HostCreateSpec) { w.fleet.Host("h1").SetDown(true) }, nil, model.CodeHostUnreachable},
		"other certificate": {func(h *model.HostCreateSpec) { h.Fingerprint = strings.Repeat("ab", 32) }, nil, model.CodeHostCertificate},
		"wrong password":    {func(*model.HostCreateSpec) { w.fleet.Host("h1").SetPassword("secret") }, nil, model.CodeHostUnauthorized},
		"another driver's":  {func(*model.HostCreateSpec) {}, model.Errorf(model.CodeHostDriver, "this is a web server"), model.CodeHostDriver},
		"unknown trouble":   {func(*model.HostCreateSpec) {}, errors.New("secret words of the driver"), model.CodeInternalError},
	} {
		t.Run(name, func(t *testing.T) {
			w.host("h1", 64*gib, nil)
			spec := hostSpec("h1")
			c.change(&spec)
			w.hooked(func(_ context.Context, call sim.Call, _ sim.Moment) error { return c.hook })
			task := w.finished(s.CreateHost(ctx, spec))
			if e := failedStep(t, task); e.Code != c.code || strings.Contains(e.Message, "secret") {
				t.Errorf("%+v", e)
			}
			same(t, before, w.dump())
			w.hooked(func(context.Context, sim.Call, sim.Moment) error { return nil })
			w.host("h1", 64*gib, nil)
			w.done(s.DeleteHost(ctx, w.done(s.CreateHost(ctx, hostSpec("h1")))))
			same(t, before, w.dump())
		})
	}
}

func TestHostRefusals(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	ctx := context.Background()
	w.host("h1", 64*gib, nil)
	w.done(s.CreateHost(ctx, hostSpec("h1")))
	before, tasks := w.dump(), w.tasks()
	for name, c := range map[string]struct {
		change func(*model.HostCreateSpec)
		code   model.Code
	}{
		"same address":      {func(*model.HostCreateSpec) {}, model.CodeDuplicateHost},
		"unknown driver":    {func(h *model.HostCreateSpec) { h.Driver = "esx" }, model.CodeHostDriver},
		"unknown zone":      {func(h *model.HostCreateSpec) { h.Address, h.AvailabilityZone = "h2", "x" }, model.CodeAvailabilityZoneNotFound},
		"unknown tag":       {func(h *model.HostCreateSpec) { h.UsageTags = []string{"STEAM"} }, model.CodeInvalidEntity},
		"no address":        {func(h *model.HostCreateSpec) { h.Address = "" }, model.CodeInvalidEntity},
		"a URL":             {func(h *model.HostCreateSpec) { h.Address = "https://h1" }, model.CodeInvalidEntity},
		"a relative socket": {func(h *model.HostCreateSpec) { h.Address = "unix:lxd.socket" }, model.CodeInvalidEntity},
	} {
		spec := hostSpec("h1")
		c.change(&spec)
		_, err := s.CreateHost(ctx, spec)
		if e := model.AsError(err); err == nil || e.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
		same(t, before, w.dump())
	}
	if n := w.tasks(); n != tasks {
		t.Errorf("%d tasks more than before", n-tasks)
	}
}

// A host deleted while it is being registered ends that task, too, and does
// not wait for the host to answer.
func TestHostDeletedWhileRegistered(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.host("h1", 64*gib, nil)
	inside := make(chan struct{})
	w.hooked(func(ctx context.Context, call sim.Call, m sim.Moment) error {
		if call.Op == "Facts" && m == sim.After {
			close(inside)
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	before := w.dump()
	task, err := s.CreateHost(context.Background(), hostSpec("h1"))
	if err != nil {
		t.Fatal(err)
	}
	<-inside
	w.done(s.DeleteHost(context.Background(), task.Entity.ID))
	if e := failedStep(t, w.finished(task, nil)); e.Code != model.CodeConcurrentTask {
		t.Errorf("%+v", e)
	}
	w.stop() // what was under way is over
	same(t, before, w.dump())
}

// hand is a leader whose reconcilers the test runs by hand.
func (w *world) hand() *leader {
	w.t.Helper()
	lead, err := w.store.Campaign(context.Background(), "control", "by hand", leaseTTL)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := lead.Resign(context.Background()); err != nil {
			w.t.Error(err)
		}
	})
	l := &leader{Controller: w.controller("by hand"), fenced: w.store.Fenced(lead)}
	l.queue = newQueue(l.reconcile, nouns...)
	w.t.Cleanup(l.hosts.close)
	return l
}

// A host that does not answer says so, keeps its facts, and recovers.
func TestHostThatStopsAnswering(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.host("h1", 64*gib, nil)
	id := w.done(s.CreateHost(context.Background(), hostSpec("h1")))
	w.stop()
	l := w.hand()
	look := func() *model.Host {
		t.Helper()
		if _, err := l.reconcileHost(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		h, err := store.Hosts.Get(w.store, id)
		if err != nil || len(h.Conditions) != 1 || h.State != model.HostReady || h.Facts.Capacity.Memory != 64*gib {
			t.Fatalf("the host is %+v, %v", h, err)
		}
		return h
	}
	up := look()
	if c := up.Conditions[0]; c.Type != "Reachable" || c.Status != "True" {
		t.Errorf("%+v", c)
	}
	w.fleet.Host("h1").SetDown(true)
	w.clock.advance(factsInterval)
	down := look()
	if c := down.Conditions[0]; c.Status != "False" || c.Reason != string(model.CodeHostUnreachable) || c.Message == "" || c.Time <= up.Conditions[0].Time {
		t.Errorf("%+v", c)
	}
	if st, err := l.Status(context.Background()); err != nil || st.Status != "PARTIAL_ERROR" {
		t.Errorf("status %+v, %v", st, err)
	}
	w.clock.advance(factsInterval)
	if c := look().Conditions[0]; c.Time != down.Conditions[0].Time {
		t.Error("the condition forgets since when it holds")
	}
	w.fleet.Host("h1").SetDown(false)
	if c := look().Conditions[0]; c.Status != "True" || c.Message != "" {
		t.Errorf("%+v", c)
	}
	if st, err := l.Status(context.Background()); err != nil || st.Status != "READY" {
		t.Errorf("status %+v, %v", st, err)
	}
}

// An eager image is copied to every host, also to one that fails at first, and
// to those that come later; a deleted host leaves no trace in it.
func TestEagerImageFollowsHosts(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	ctx := context.Background()
	w.setUp(s, memory(10), "h1", "h2")
	failures := make(chan struct{}, 1)
	w.hooked(func(_ context.Context, call sim.Call, m sim.Moment) error {
		if call.Op == "EnsureImage" && call.Host == "h2" && m == sim.Before {
			select {
			case failures <- struct{}{}:
				return errors.New("connection reset by peer")
			default:
			}
		}
		return nil
	})
	id := w.done(s.CreateImage(ctx, "second", "EAGER", bytes.NewReader(nodeImage(t))))
	if len(failures) != 1 {
		t.Error("nothing failed")
	}
	has := func(hosts int) bool { return w.imageOn(id, hosts, "100%") }
	await(w, store.Images, func() bool { return has(2) })
	w.host("h3", 64*gib, nil)
	h3 := w.done(s.CreateHost(ctx, hostSpec("h3")))
	await(w, store.Images, func() bool { return has(3) })
	w.done(s.DeleteHost(ctx, h3))
	if !has(2) {
		t.Error("the image still has a copy on a host that is gone")
	}
	if err := w.files.Delete(id); err != nil { // behind the controller's back
		t.Fatal(err)
	}
	w.done(s.DeleteImage(ctx, id))
	for _, h := range []string{"h1", "h2"} {
		for _, left := range w.fleet.Host(h).Images() {
			if left == id {
				t.Errorf("host %s still has the image", h)
			}
		}
	}
}
