package control

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/control/simnode"
	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/plan"
	"github.com/pleiad/pleiad/internal/store"
)

// failedStep returns the error of the step at which a task failed.
func failedStep(t *testing.T, task *model.Task) model.Error {
	t.Helper()
	if task.State != model.TaskError || task.EndTime == 0 {
		t.Fatalf("the task did not fail:\n%s", describe(task))
	}
	for _, s := range task.Steps {
		if s.State == model.TaskError && len(s.Errors) == 1 {
			return s.Errors[0]
		}
	}
	t.Fatalf("no step tells why:\n%s", describe(task))
	return model.Error{}
}

// failed checks that a cluster says why it failed, and that it can still be deleted, with all it took.
func (w *world) failed(s *server, before map[string]string, clusterID string, reason string) {
	w.t.Helper()
	cl := w.cluster(clusterID)
	if cl.State != model.ClusterRecoverableError || !strings.Contains(cl.ErrorReason, reason) {
		w.t.Errorf("the cluster is %s: %q", cl.State, cl.ErrorReason)
	}
	w.audit()
	w.done(s.DeleteCluster(context.Background(), clusterID))
	w.settled()
	same(w.t, before, w.dump())
	if open := w.unfinished(); open != "" {
		w.t.Errorf("tasks that never ended: %s", open)
	}
}

func TestNodeThatNeverReports(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.nodes.Boot = func(ctx context.Context, b bootstrap.Bootstrap) {
			if b.Hostname == "demo-worker-1" {
				<-ctx.Done()
			}
		}
	})
	s := w.start()
	w.setUp(s, memory(10), "h1", "h2")
	before := w.dump()
	task, err := s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 2))
	if err != nil {
		t.Fatal(err)
	}
	var silent *model.VM
	await(w, reports, func() bool { // the others are done
		done := 0
		for _, v := range w.vms(task.Entity.ID) {
			if v.Name == "demo-worker-1" {
				silent = v
			}
			p, err1 := plans.Get(w.store, v.ID)
			r, err2 := reports.Get(w.store, v.ID)
			if err1 == nil && err2 == nil && len(p.Steps) > 3 && r.AllDone(*p) {
				done++
			}
		}
		return done == 2 && silent.State == model.VMStarted
	})
	w.fleet.Host(silent.Host).WriteConsole(silent.ID, strings.Repeat("boot\n", 2000)+"Kernel panic - not syncing: \xff no init found\n")
	w.clock.advance(4 * time.Minute)
	w.touch(task.Entity.ID)
	if now, err := store.Tasks.Get(w.store, task.ID); err != nil || now.State.Finished() {
		t.Fatalf("the node was given up before its time: %v", err)
	}
	w.clock.advance(2 * time.Minute)
	w.touch(task.Entity.ID)

	e := failedStep(t, w.finished(task, nil))
	if e.Code != model.CodeNodeNotReporting || !strings.Contains(e.Message, "demo-worker-1") || e.Data["node"] != "demo-worker-1" || e.Action == "" {
		t.Errorf("%+v", e)
	}
	if log := e.Data["log"]; !strings.HasSuffix(log, "Kernel panic - not syncing:  no init found\n") || len(log) > consoleTail || len(log) < consoleTail-10 {
		t.Errorf("the log has %d bytes: …%q", len(log), log[max(0, len(log)-60):])
	}
	w.failed(s, before, task.Entity.ID, "demo-worker-1")
}

// touch changes a cluster, which has it looked at.
func (w *world) touch(clusterID string) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		c, err := store.Clusters.Get(tx, clusterID)
		if err != nil {
			return err
		}
		c.Tags = append(c.Tags, "touched")
		return store.Clusters.Put(tx, c)
	})
}

// A host that cannot show the console must not keep the failure from being told.
func TestSilentNodeOnSilentHost(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.nodes.Boot = func(ctx context.Context, _ bootstrap.Bootstrap) { <-ctx.Done() }
	})
	s := w.start()
	w.setUp(s, memory(10), "h1")
	task, err := s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 0))
	if err != nil {
		t.Fatal(err)
	}
	await(w, store.VMs, func() bool { return w.vms(task.Entity.ID)[0].State == model.VMStarted })
	w.fleet.Host("h1").SetDown(true)
	w.clock.advance(6 * time.Minute)
	w.touch(task.Entity.ID)
	e := failedStep(t, w.finished(task, nil))
	if _, ok := e.Data["log"]; e.Code != model.CodeNodeNotReporting || ok {
		t.Errorf("%+v", e)
	}
}

func TestStepThatFails(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.nodes.Do = func(_ context.Context, b bootstrap.Bootstrap, s plan.Step) error {
			if b.Hostname == "demo-master-0" && s.ID == "init" {
				return &simnode.Failure{Cause: "exit status 1", Log: "etcd: no space left on device"}
			}
			return nil
		}
	})
	s := w.start()
	w.setUp(s, memory(10), "h1", "h2")
	before := w.dump()
	task := w.finished(s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 2)))
	e := failedStep(t, task)
	if e.Code != model.CodeNodeStepFailed || e.Data["log"] != "etcd: no space left on device" || e.Data["node"] != "demo-master-0" ||
		!strings.Contains(e.Message, "exit status 1") || e.Action == "" {
		t.Errorf("%+v", e)
	}
	w.failed(s, before, task.Entity.ID, "exit status 1")
}

// A step that fails and then succeeds is no failure.
func TestStepThatHeals(t *testing.T) {
	w := newWorld(t, func(w *world) {
		failures := make(chan struct{}, 3)
		w.nodes.Do = func(_ context.Context, _ bootstrap.Bootstrap, s plan.Step) error {
			select {
			case failures <- struct{}{}:
				return &simnode.Failure{Cause: "not yet"}
			default:
				return nil
			}
		}
	})
	s := w.start()
	w.setUp(s, memory(10), "h1")
	w.done(s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 1)))
	w.settled()
}

// A VM that its host will never have ends the task, with the host's words.
func TestVMThatCannotBeMade(t *testing.T) {
	for name, c := range map[string]struct {
		cause   error
		advance time.Duration
		code    model.Code
	}{
		"refused for good":        {model.Errorf(model.CodeUnsupported, "this host has no such thing"), 0, model.CodeUnsupported},
		"refused for too long":    {model.Errorf(model.CodeHypervisorError, "this host is not well"), createDeadline + time.Minute, model.CodeHypervisorError},
		"failing in unknown ways": {errors.New("secret words of the driver"), createDeadline + time.Minute, model.CodeInternalError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			s := w.start()
			w.setUp(s, memory(10), "h1", "h2")
			before := w.dump()
			w.hooked(func(_ context.Context, call sim.Call, m sim.Moment) error {
				if call.Op == "CreateVM" && m == sim.Before {
					return c.cause
				}
				return nil
			})
			task, err := s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 1))
			if err != nil {
				t.Fatal(err)
			}
			if c.advance > 0 {
				await(w, store.Tasks, func() bool { // meanwhile the task says what is wrong
					now, err := store.Tasks.Get(w.store, task.ID)
					return err == nil && strings.Contains(now.Steps[1].Progress, model.AsError(c.cause).Message)
				})
			}
			w.clock.advance(c.advance)
			ended := w.finished(task, nil)
			e := failedStep(t, ended)
			if e.Code != c.code || !strings.Contains(e.Message, "on host h") || strings.Contains(e.Message, "secret") {
				t.Errorf("%+v", e)
			}
			if ended.Steps[1].State != model.TaskError {
				t.Errorf("the failure is not shown where it is:\n%s", describe(ended))
			}
			w.hooked(func(context.Context, sim.Call, sim.Moment) error { return nil })
			w.failed(s, before, task.Entity.ID, model.AsError(c.cause).Message)
		})
	}
}

// A cluster that is deleted while it is made goes, and the task that made it ends.
func TestDeleteWhileCreating(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.nodes.Boot = func(ctx context.Context, _ bootstrap.Bootstrap) { <-ctx.Done() }
	})
	s := w.start()
	w.setUp(s, memory(10), "h1", "h2")
	before := w.dump()
	task, err := s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 2))
	if err != nil {
		t.Fatal(err)
	}
	w.done(s.DeleteCluster(context.Background(), task.Entity.ID))
	w.settled()
	same(t, before, w.dump())
	if e := failedStep(t, w.finished(task, nil)); e.Code != model.CodeConcurrentTask {
		t.Errorf("%+v", e)
	}
}

// Deletion waits for a host that is away, says so, and ends when it is back.
func TestDeleteWithHostAway(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(10), "h1")
	before := w.dump()
	id := w.done(s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 1)))
	w.fleet.Host("h1").SetDown(true)
	task, err := s.DeleteCluster(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	await(w, store.Tasks, func() bool {
		now, err := store.Tasks.Get(w.store, task.ID)
		return err == nil && strings.Contains(now.Steps[0].Progress, "host h1 does not answer")
	})
	if _, err = s.DeleteCluster(context.Background(), id); !errors.Is(err, model.ErrorOf(model.CodeStateError)) {
		t.Errorf("deleted twice: %v", err)
	}
	w.fleet.Host("h1").SetDown(false)
	w.done(task, nil)
	w.settled()
	same(t, before, w.dump())
}
