package control

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/pleiad/pleiad/internal/control/simnode"
	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/plan"
	"github.com/pleiad/pleiad/internal/store"
)

func workers(n int) model.ClusterResizeOperation {
	return model.ClusterResizeOperation{NewWorkerCount: &n}
}

func resizeWithout(n int, nodes ...string) model.ClusterResizeOperation {
	return model.ClusterResizeOperation{NewWorkerCount: &n, Nodes: nodes}
}

// names are those of a cluster's VMs.
func (w *world) names(clusterID string) []string {
	w.t.Helper()
	vms, _, err := store.VMs.List(w.store, store.Query{Index: "clusterId", Value: clusterID})
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, v := range vms {
		names = append(names, v.Name)
	}
	return sorted(names)
}

// Workers that are named go, others stay as they are, what they cost is given
// back, and the next to come takes the first free name.
func TestResizeIn(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(10), "h1", "h2")
	ctx := context.Background()
	before := w.dump()
	id := w.done(s.CreateCluster(ctx, w.project, clusterSpec("demo", 4)))
	w.hooked(func(_ context.Context, call sim.Call, m sim.Moment) error {
		if call.Op != "DeleteVM" || m != sim.Before {
			return nil
		}
		// The kind is told of it until it is gone, so that the task does not end before.
		cl, err := store.Clusters.Get(w.store, id)
		if err != nil {
			return err
		}
		view, err := s.view(cl)
		if err != nil || cl.State != model.ClusterResizing || !slices.ContainsFunc(view.Nodes, func(n kind.Node) bool { return n.VM.ID == call.ID }) {
			t.Errorf("while VM %s is deleted the cluster is %s and has %d nodes, %v", call.ID, cl.State, len(view.Nodes), err)
		}
		return nil
	})
	w.done(s.ResizeCluster(ctx, id, resizeWithout(2, "demo-worker-0")))
	w.hooked(func(context.Context, sim.Call, sim.Moment) error { return nil })
	w.settled()
	if got := w.names(id); !slices.Equal(got, []string{"demo-master-0", "demo-worker-1", "demo-worker-2"}) {
		t.Errorf("nodes %v", got)
	}
	w.done(s.ResizeCluster(ctx, id, workers(3)))
	w.settled()
	if got := w.names(id); !slices.Equal(got, []string{"demo-master-0", "demo-worker-0", "demo-worker-1", "demo-worker-2"}) {
		t.Errorf("nodes %v", got)
	}
	w.done(s.ResizeCluster(ctx, id, workers(0)))
	w.settled()
	if got := w.names(id); !slices.Equal(got, []string{"demo-master-0"}) {
		t.Errorf("nodes %v", got)
	}
	w.done(s.DeleteCluster(ctx, id))
	w.settled()
	same(t, before, w.dump())
}

// A worker that cannot be drained stays, and the task says why; the same again,
// by force, takes it away, and another size lets it stay.
func TestResizeInThatFails(t *testing.T) {
	for name, next := range map[string]func(model.ClusterResizeOperation) model.ClusterResizeOperation{
		"by force":  func(op model.ClusterResizeOperation) model.ClusterResizeOperation { op.Force = true; return op },
		"called of": func(model.ClusterResizeOperation) model.ClusterResizeOperation { return workers(2) },
	} {
		t.Run(name, func(t *testing.T) {
			const budget = "Cannot evict pod web-1 as it would violate the pod's disruption budget web"
			w := newWorld(t, func(w *world) {
				w.nodes.Do = func(_ context.Context, _ bootstrap.Bootstrap, s plan.Step) error {
					if s.ID == "drain/demo-worker-1" && !slices.Contains(s.Command.Argv, "--disable-eviction") {
						return &simnode.Failure{Cause: "exit status 1", Log: budget}
					}
					return nil
				}
			})
			s := w.start()
			w.setUp(s, memory(10), "h1")
			ctx := context.Background()
			id := w.done(s.CreateCluster(ctx, w.project, clusterSpec("demo", 2)))
			op := workers(1)
			e := failedStep(t, w.finished(s.ResizeCluster(ctx, id, op)))
			if e.Code != model.CodeNodeStepFailed || e.Data["log"] != budget || e.Action == "" {
				t.Errorf("%+v", e)
			}
			w.settled()
			op = next(op)
			w.done(s.ResizeCluster(ctx, id, op))
			w.settled()
			cl, err := store.Clusters.Get(w.store, id)
			if err != nil || cl.State != model.ClusterReady || cl.WorkerCount != *op.NewWorkerCount || cl.ErrorReason != "" {
				t.Errorf("%+v, %v", cl, err)
			}
			if got := w.names(id); len(got) != 1+*op.NewWorkerCount {
				t.Errorf("nodes %v", got)
			}
		})
	}
}

// A cluster that has grown is like one that was made so large.
func TestResizeOut(t *testing.T) {
	made := newWorld(t, nil)
	s := made.start()
	made.setUp(s, memory(10), "h1", "h2")
	made.done(s.CreateCluster(context.Background(), made.project, clusterSpec("demo", 4)))

	w := newWorld(t, nil)
	s = w.start()
	w.setUp(s, memory(10), "h1", "h2")
	before := w.dump()
	id := w.done(s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 1)))
	w.done(s.ResizeCluster(context.Background(), id, workers(3)))
	w.settled()
	n := 4
	w.done(s.ResizeCluster(context.Background(), id, model.ClusterResizeOperation{NewSlaveCount: &n}))
	w.settled()
	grown := w.outcome()
	delete(grown, "task "+opResizeCluster)
	sameOutcome(t, made.outcome(), grown)

	// New nodes spread away from those that are there.
	vms, _, err := store.VMs.List(w.store, store.Query{Index: "clusterId", Value: id})
	if err != nil {
		t.Fatal(err)
	}
	on := map[string]int{}
	for _, v := range vms {
		if v.Role != "master" {
			on[v.Host]++
		}
	}
	if on["h1"] != 2 || on["h2"] != 2 {
		t.Errorf("workers on hosts: %v", on)
	}
	task := w.finished(s.ResizeCluster(context.Background(), id, workers(4)))
	if task.State != model.TaskCompleted {
		t.Errorf("to the size it has: %s", describe(task))
	}
	w.done(s.DeleteCluster(context.Background(), id))
	w.settled()
	same(t, before, w.dump())
}

func TestResizeRefusals(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(5), "h1")
	ctx := context.Background()
	id := w.done(s.CreateCluster(ctx, w.project, clusterSpec("demo", 2)))
	before, tasks := w.dump(), w.tasks()
	for name, c := range map[string]struct {
		id   string
		op   model.ClusterResizeOperation
		code model.Code
	}{
		"unknown":         {"nobody", workers(3), model.CodeClusterNotFound},
		"without a count": {id, model.ClusterResizeOperation{}, model.CodeInvalidEntity},
		"too many":        {id, workers(model.MaxWorkers + 1), model.CodeInvalidEntity},
		"below none":      {id, workers(-1), model.CodeInvalidEntity},
		"no such worker":  {id, resizeWithout(1, "demo-worker-7"), model.CodeInvalidEntity},
		"the master":      {id, resizeWithout(1, "demo-master-0"), model.CodeInvalidEntity},
		"more names":      {id, resizeWithout(2, "demo-worker-1"), model.CodeInvalidEntity},
		"over quota":      {id, workers(4), model.CodeQuotaError},
	} {
		_, err := s.ResizeCluster(ctx, c.id, c.op)
		if e := model.AsError(err); err == nil || e.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	same(t, before, w.dump())
	if n := w.tasks(); n != tasks {
		t.Errorf("%d tasks more than before", n-tasks)
	}
}

// One of two resizes at once is done; neither is done in part, and a cluster
// that is being resized can be deleted.
func TestResizeAtOnceAndDelete(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(30), "h1", "h2")
	ctx := context.Background()
	before := w.dump()
	id := w.done(s.CreateCluster(ctx, w.project, clusterSpec("demo", 1)))
	hold := make(chan struct{})
	w.hooked(func(ctx context.Context, call sim.Call, m sim.Moment) error {
		if call.Op == "CreateVM" && m == sim.Before {
			select {
			case <-hold:
			case <-ctx.Done():
			}
		}
		return nil
	})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var begun []*model.Task
	for n := range 8 {
		wg.Go(func() {
			task, err := s.ResizeCluster(ctx, id, workers(2+n))
			if err != nil {
				if code := model.AsError(err).Code; !slices.Contains([]model.Code{model.CodeStateError, model.CodeConcurrentTask}, code) {
					t.Error(err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			begun = append(begun, task)
		})
	}
	wg.Wait()
	if len(begun) != 1 {
		t.Fatalf("%d resizes were begun at once", len(begun))
	}
	w.audit()
	// What it waits for is no longer wanted.
	w.done(s.DeleteCluster(ctx, id))
	close(hold)
	if e := failedStep(t, w.finished(begun[0], nil)); e.Code != model.CodeConcurrentTask {
		t.Errorf("%+v", e)
	}
	w.settled()
	same(t, before, w.dump())
}
