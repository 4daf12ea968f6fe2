package control

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// Tasks finished long ago are deleted, however many there are and however little
// a transaction carries; recent and unfinished ones stay.
func TestOldTasksArePruned(t *testing.T) {
	w := newWorld(t, func(w *world) { w.opts.MaxTxnOps = 128 })
	s := w.start()
	ctx := context.Background()
	const many = 3*pruneBatch + 1
	for i := range many {
		tenant := w.done(s.CreateTenant(ctx, model.TenantCreateSpec{Name: fmt.Sprintf("t%d", i)}))
		w.done(s.CreateResourceTicket(ctx, tenant, model.ResourceTicketCreateSpec{Name: "gold", Limits: memory(1)}))
		w.done(s.CreateProject(ctx, tenant, model.ProjectCreateSpec{Name: "web",
			ResourceTicket: model.ResourceTicketReservation{Name: "gold", Limits: memory(1)}}))
	}
	_, err := s.CreateTenant(ctx, model.TenantCreateSpec{Name: "t0"})
	refused(t, err, model.CodeNameTaken)
	open := s.newTask("CREATE_CLUSTER", model.Entity{ID: newID(), Kind: "cluster"}, "WAIT")
	failed := s.newTask("CREATE_HOST", model.Entity{ID: newID(), Kind: "host"}, stepProvision)
	fail(failed, stepProvision, model.Errorf(model.CodeHostUnreachable, "nobody there"), s.now())
	w.update(func(tx *store.Tx) error {
		if err := store.Tasks.Put(tx, failed); err != nil {
			return err
		}
		return store.Tasks.Put(tx, open)
	})
	w.stop()

	l := w.hand()
	prune := func() int {
		t.Helper()
		again, err := l.reconcile(ctx, key{noun: nounTasks})
		if err != nil || again <= 0 {
			t.Fatalf("again after %v, %v", again, err)
		}
		return w.tasks()
	}
	w.clock.advance(taskRetention - time.Hour)
	if n := prune(); n != 3*many+2 {
		t.Fatalf("%d tasks before their time, want %d", n, 3*many+2)
	}
	w.clock.advance(time.Hour)
	fresh := w.done(l.CreateTenant(ctx, model.TenantCreateSpec{Name: "fresh"}))
	before := w.dump()
	if n := prune(); n != 2 {
		t.Errorf("%d tasks are left, want 2", n)
	}
	same(t, before, w.dump())
	if _, err := store.Tasks.Get(w.store, open.ID); err != nil {
		t.Errorf("the unfinished task: %v", err)
	}
	if tasks, _, err := store.Tasks.List(w.store, store.Query{Index: "entityId", Value: fresh}); err != nil || len(tasks) != 1 {
		t.Errorf("the recent task: %d, %v", len(tasks), err)
	}
}

// A server that leads prunes without being asked.
func TestLeaderPrunes(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.done(s.CreateTenant(context.Background(), model.TenantCreateSpec{Name: "acme"}))
	w.stop()
	w.clock.advance(taskRetention + time.Minute)
	w.start()
	await(w, store.Tasks, func() bool { return w.tasks() == 0 })
}
