package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pleiad/pleiad/internal/kind/kubernetes"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

func TestClusterFromNothingAndBack(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(10), "h1", "h2")
	before := w.dump()
	ctx := context.Background()

	created := w.finished(s.CreateCluster(ctx, w.project, clusterSpec("demo", 2)))
	checkTask(t, created, append([]string{stepReserve, stepCreateVMs}, kubernetes.Kind{}.Steps(&model.Cluster{})...))
	cl := w.cluster(created.Entity.ID)
	if cl.State != model.ClusterReady || cl.TaskID != "" || cl.ErrorReason != "" || cl.Endpoint == "" ||
		cl.ExtendedProperties["cluster_version"] != version {
		t.Errorf("the cluster is %+v", cl)
	}
	for _, c := range cl.Conditions {
		if c.Status != "True" {
			t.Errorf("condition %+v", c)
		}
	}
	w.settled()
	for _, h := range []string{"h1", "h2"} {
		if n := len(w.fleet.Host(h).Specs()); n < 1 || n > 2 {
			t.Errorf("%d of 3 nodes are on host %s", n, h)
		}
	}
	workers := map[string]int{}
	for _, v := range w.vms(cl.ID) {
		if v.State != model.VMStarted {
			t.Errorf("VM %s is %s", v.Name, v.State)
		}
		if v.Role == kubernetes.RoleWorker {
			workers[v.Host]++
		}
	}
	if workers["h1"] != 1 || workers["h2"] != 1 {
		t.Errorf("workers by host: %v", workers)
	}
	if file, err := s.Access(ctx, cl.ID, "kubeconfig"); err != nil || !strings.Contains(string(file), cl.Endpoint) {
		t.Errorf("kubeconfig %q, %v", file, err)
	}
	p, err := store.Projects.Get(w.store, w.project)
	if err != nil || !equal(parse(w, p.ResourceTicket.Usage), parse(w, cl.Reserved)) || parse(w, cl.Reserved)["vm.memory"].String() != "4 GB" {
		t.Errorf("usage %v, reserved %v, %v", p.ResourceTicket.Usage, cl.Reserved, err)
	}

	deleted := w.finished(s.DeleteCluster(ctx, cl.ID))
	checkTask(t, deleted, []string{stepDeleteVMs, stepForget})
	w.settled()
	same(t, before, w.dump())
	for _, h := range []string{"h1", "h2"} {
		if used := w.fleet.Host(h).Used(); used != (model.Capacity{}) {
			t.Errorf("host %s still has %+v in use", h, used)
		}
	}
	again := w.done(s.CreateCluster(ctx, w.project, clusterSpec("demo", 0)))
	if again == cl.ID {
		t.Error("a new cluster has an old one's id")
	}
}

// checkTask checks that a task and its steps are COMPLETED, with times in order.
func checkTask(t *testing.T, task *model.Task, steps []string) {
	t.Helper()
	var got []string
	if task.State != model.TaskCompleted || task.QueuedTime == 0 || task.StartedTime < task.QueuedTime || task.EndTime < task.StartedTime {
		t.Errorf("the task is\n%s", describe(task))
	}
	for i, s := range task.Steps {
		got = append(got, s.Operation)
		if s.State != model.TaskCompleted || s.Sequence != i || s.QueuedTime == 0 || s.StartedTime < s.QueuedTime || s.EndTime < s.StartedTime || len(s.Errors) > 0 {
			t.Errorf("step %+v", s)
		}
	}
	if !slices.Equal(got, steps) {
		t.Errorf("steps %v, want %v", got, steps)
	}
}

func (w *world) cluster(id string) *model.Cluster {
	w.t.Helper()
	c, err := store.Clusters.Get(w.store, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) vms(clusterID string) []*model.VM {
	w.t.Helper()
	vms, _, err := store.VMs.List(w.store, store.Query{Index: "clusterId", Value: clusterID})
	if err != nil {
		w.t.Fatal(err)
	}
	return vms
}

// outcome is what a run comes to, without ids and times.
func (w *world) outcome() map[string]string {
	w.t.Helper()
	out := map[string]string{"unfinished tasks": w.unfinished()}
	tasks, _, err := store.Tasks.List(w.store, store.Query{Index: "projectId", Value: w.project})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, t := range tasks {
		steps := ""
		for _, s := range t.Steps {
			steps += fmt.Sprintf(" %s=%s", s.Operation, s.State)
		}
		out["task "+t.Operation] += string(t.State) + steps
	}
	clusters, _, err := store.Clusters.List(w.store, store.Query{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range clusters {
		out["cluster "+c.Name] += fmt.Sprint(c.State, " task ", c.TaskID)
		for _, cond := range c.Conditions {
			out["cluster "+c.Name] += " " + cond.Type + "=" + cond.Status
		}
		for _, v := range w.vms(c.ID) {
			out["vm "+v.Name] += string(v.State)
		}
	}
	used := model.Capacity{}
	for _, h := range w.hosts {
		u, err := hostUsages.Get(w.store, h)
		if err != nil {
			w.t.Fatal(err)
		}
		used = used.Add(u.Used)
	}
	out["hosts"] = fmt.Sprintf("%+v", used)
	for name, ids := range records(w, w.store) {
		out[name] = fmt.Sprint(len(ids))
	}
	return out
}

func sameOutcome(t *testing.T, want, got map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the outcome is not that of a run without faults (-want +got):\n%s", diff)
	}
}
