package control

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

func (w *world) orphans() []*model.Orphan {
	w.t.Helper()
	list, _, err := store.Orphans.List(w.store, store.Query{})
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// look has a leader look at a host once.
func (l *leader) look(t *testing.T, hostID string) {
	t.Helper()
	if _, err := l.reconcile(context.Background(), key{nounHost, hostID}); err != nil {
		t.Fatal(err)
	}
}

// A cluster whose host is gone is deleted all the same: the name and the quota
// are free, and what could not be removed is an orphan until its host is back.
func TestDeleteEndsWithHostGone(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(4), "h1", "h2")
	ctx := context.Background()
	before := w.dump()
	id := w.done(s.CreateCluster(ctx, w.project, clusterSpec("demo", 2)))
	w.fleet.Host("h1").SetDown(true)
	task, err := s.DeleteCluster(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	await(w, store.Tasks, func() bool {
		now, err := store.Tasks.Get(w.store, task.ID)
		return err == nil && strings.Contains(now.Steps[0].Progress, "host h1 does not answer")
	})
	w.clock.advance(orphanAfter)
	w.done(task, nil)
	w.audit()
	left := w.orphans()
	if len(left) == 0 || len(left) == 3 {
		t.Fatalf("%d of 3 nodes are orphans, want those on one of two hosts", len(left))
	}
	taken := map[string]bool{}
	for _, o := range left {
		if o.Host != "h1" || o.Cause != model.OrphanNotDeleted || o.Error == nil || o.Error.Code != model.CodeHostUnreachable {
			t.Errorf("%+v", o)
		}
		taken[o.VM.Networks[0].IPAddress] = true
	}
	// The name and the quota are free; the orphans' addresses are not.
	again := w.done(s.CreateCluster(ctx, w.project, clusterSpec("demo", 2)))
	vms, _, err := store.VMs.List(w.store, store.Query{Index: "clusterId", Value: again})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vms {
		if v.Host != "h2" || taken[v.Networks[0].IPAddress] {
			t.Errorf("node %s is on %s with address %s", v.Name, v.Host, v.Networks[0].IPAddress)
		}
	}
	w.done(s.DeleteCluster(ctx, again))
	w.stop()
	l := w.hand()
	l.look(t, w.hosts[0]) // it is still away
	if len(w.orphans()) != len(left) {
		t.Error("orphans are forgotten while their host is away")
	}
	w.fleet.Host("h1").SetDown(false)
	l.look(t, w.hosts[0])
	w.settled()
	same(t, before, w.dump())
}

// A VM with our tag that nothing knows is told of, and removed when it has been
// left alone for a while; VMs of others are never touched.
func TestSweepOfUnknownVMs(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(10), "h1")
	cluster := w.done(s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 1)))
	w.stop()
	before := w.dump()
	l := w.hand()
	h, err := store.Hosts.Get(w.store, w.hosts[0])
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.driver(context.Background(), h)
	if err != nil {
		t.Fatal(err)
	}
	make := func(id, owner string) {
		t.Helper()
		if _, err := d.CreateVM(context.Background(), hypervisor.VMSpec{ID: id, Name: id, ImageID: w.image, Owner: owner,
			Resources: model.Capacity{MilliCPU: 1, Memory: 1, Disk: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	make("lost", w.id.ID)
	make("others", "another installation")
	w.fleet.Host("h1").AddForeign("somebody's")
	has := func(id string) bool {
		return slices.ContainsFunc(w.fleet.Host("h1").Specs(), func(s hypervisor.VMSpec) bool { return s.ID == id })
	}

	l.look(t, h.ID)
	if o := w.orphans(); len(o) != 1 || o[0].ID != "lost" || o[0].Cause != model.OrphanUnknown || o[0].RemoveAfter <= o[0].Since {
		t.Fatalf("orphans %+v", o)
	}
	if !has("lost") {
		t.Error("what nothing knows was removed on one look")
	}
	w.clock.advance(orphanGrace)
	l.look(t, h.ID)
	if has("lost") {
		t.Error("what nothing knows is still there")
	}
	if !has("others") || !slices.Contains(w.fleet.Host("h1").Foreign(), "somebody's") {
		t.Error("what is not ours was touched")
	}
	same(t, before, w.dump())

	// An orphan that somebody removed by hand is forgotten.
	make("lost", w.id.ID)
	l.look(t, h.ID)
	w.fleet.Host("h1").Remove("lost")
	l.look(t, h.ID)
	same(t, before, w.dump())
	if _, err := store.Clusters.Get(w.store, cluster); err != nil {
		t.Error(err)
	}
}

// Nodes that are stopped when they should run, as after a restart of their host,
// are started.
func TestSweepStartsStoppedVMs(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(10), "h1")
	w.done(s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 1)))
	w.stop()
	l := w.hand()
	w.fleet.Host("h1").Crash()
	l.look(t, w.hosts[0])
	w.fleet.Host("h1").SetDown(false)
	l.look(t, w.hosts[0])
	h, err := store.Hosts.Get(w.store, w.hosts[0])
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.driver(context.Background(), h)
	if err != nil {
		t.Fatal(err)
	}
	vms, err := d.VMs(context.Background())
	if err != nil || len(vms) != 2 {
		t.Fatal(vms, err)
	}
	for _, vm := range vms {
		if vm.Power != hypervisor.Running {
			t.Errorf("VM %s is %s", vm.Name, vm.Power)
		}
	}
}
