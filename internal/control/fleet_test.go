package control

import (
	"context"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// A host that does not answer gets no nodes, however much room it has.
func TestSilentHostGetsNoNodes(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.host("h2", 512*gib, nil)
	w.setUp(s, memory(100), "h1", "h2")
	w.stop()
	l := w.hand()
	w.silence(l, "h2", w.hosts[1])
	if _, err := l.CreateCluster(context.Background(), w.project, clusterSpec("demo", 2)); err != nil {
		t.Fatal(err)
	}
	vms, _, err := store.VMs.List(w.store, store.Query{})
	if err != nil || len(vms) != 3 {
		t.Fatalf("%d VMs, %v", len(vms), err)
	}
	for _, v := range vms {
		if v.HostID != w.hosts[0] {
			t.Errorf("VM %s is on %s", v.Name, v.Host)
		}
	}

	w.silence(l, "h1", w.hosts[0])
	_, err = l.CreateCluster(context.Background(), w.project, clusterSpec("more", 0))
	if e := refused(t, err, model.CodeInsufficientCapacity); !strings.Contains(e.Message, "2 do not answer") || e.Action == "" {
		t.Errorf("%v", e)
	}
	w.fleet.Host("h2").SetDown(false)
	w.look(l, w.hosts[1])
	if _, err := l.CreateCluster(context.Background(), w.project, clusterSpec("more", 0)); err != nil {
		t.Error(err)
	}
	w.audit()
}

// What others have filled of a datastore is not given to nodes.
func TestFullDatastore(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	free := func(bytes int64) {
		facts := sim.DefaultFacts(64, 64*gib, gib) // too small a datastore for a node, and another
		facts.Datastores = append(facts.Datastores, model.HostDatastore{Name: "pool", Type: "sim", Capacity: 100 * gib, Free: bytes})
		w.fleet.AddHost("h1", facts)
	}
	free(gib + gib/2)
	w.setUp(s, memory(100), "h1")
	w.stop()
	l := w.hand()
	w.look(l, w.hosts[0])
	_, err := l.CreateCluster(context.Background(), w.project, clusterSpec("demo", 0))
	if e := refused(t, err, model.CodeNotEnoughDatastore); !strings.Contains(e.Message, "largest free 1 GB in one datastore") {
		t.Errorf("%v", e)
	}
	free(rootDiskGB * gib)
	l.hosts.drop(w.hosts[0]) // it is another host behind the address
	w.look(l, w.hosts[0])
	_, err = l.CreateCluster(context.Background(), w.project, clusterSpec("demo", 1))
	if e := refused(t, err, model.CodeNotEnoughDatastore); !strings.Contains(e.Message, "besides the 1 placed before it") {
		t.Errorf("%v", e)
	}
	if _, err = l.CreateCluster(context.Background(), w.project, clusterSpec("demo", 0)); err != nil {
		t.Fatal(err)
	}
	w.audit()

	// Reservations bind where more is free: nothing of them is written yet.
	free(100 * gib)
	l.hosts.drop(w.hosts[0])
	w.look(l, w.hosts[0])
	_, err = l.CreateCluster(context.Background(), w.project, clusterSpec("more", 11)) // 12 nodes of 8 GB beside one
	refused(t, err, model.CodeNotEnoughDatastore)
	if _, err = l.CreateCluster(context.Background(), w.project, clusterSpec("more", 10)); err != nil {
		t.Error(err)
	}
	w.audit()
}
