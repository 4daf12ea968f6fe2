package control

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/placement"
	"github.com/pleiad/pleiad/internal/quota"
	"github.com/pleiad/pleiad/internal/store"
)

// ResizeCluster gives a cluster another number of workers, in its first pool.
// What more of them cost is checked and reserved, all of it, before any is made;
// fewer give back theirs one by one, as they are gone. The cluster serves meanwhile.
func (c *Controller) ResizeCluster(ctx context.Context, id string, op model.ClusterResizeOperation) (*model.Task, error) {
	cl, err := get(c.Store, store.Clusters, id, model.CodeClusterNotFound)
	if err != nil {
		return nil, err
	}
	count := op.NewWorkerCount
	if count == nil {
		count = op.NewSlaveCount
	}
	if count == nil {
		return nil, model.Errorf(model.CodeInvalidEntity, "newWorkerCount is missing")
	}
	if err := resizable(cl); err != nil {
		return nil, err
	}
	if *count < 0 || *count > model.MaxWorkers {
		return nil, model.Errorf(model.CodeInvalidEntity, "newWorkerCount must be 0 to %d (was %d)", model.MaxWorkers, *count)
	}
	if len(op.Nodes) > max(0, cl.WorkerCount-*count) {
		return nil, model.Errorf(model.CodeInvalidEntity, "nodes names %d workers, but of %d workers %d are to stay", len(op.Nodes), cl.WorkerCount, *count).
			Do("ask for a newWorkerCount of %d", max(0, cl.WorkerCount-len(op.Nodes)))
	}
	k, err := c.kindNamed(string(cl.Type))
	if err != nil {
		return nil, err
	}
	p, err := get(c.Store, store.Projects, cl.ProjectID, model.CodeProjectNotFound)
	if err != nil {
		return nil, err
	}
	r := &resize{c: c, kind: k, before: cl, after: *cl, task: c.newTask(opResizeCluster, model.Entity{ID: id, Kind: "cluster"})}
	r.after.WorkerCount, r.after.ForceDrain, r.after.State = *count, op.Force, model.ClusterResizing
	r.task.ProjectID, r.task.TenantID = p.ID, p.TenantID
	if *count < cl.WorkerCount {
		err = r.shrink(ctx, op.Nodes)
	} else {
		err = r.grow(ctx, p)
	}
	if err != nil {
		return nil, err
	}
	return r.task, nil
}

// resizable refuses to resize a cluster that something else is done to, or that
// never came up. One whose last resize failed can be given another size, or the
// same again.
func resizable(cl *model.Cluster) error {
	if cl.State == model.ClusterReady || (cl.State == model.ClusterRecoverableError && cl.Endpoint != "") {
		return nil
	}
	return model.Errorf(model.CodeStateError, "cluster %s is %s; it must have been READY to be resized", cl.Name, cl.State).
		With("id", cl.ID).With("kind", "cluster").With("operation", opResizeCluster).With("state", string(cl.State)).
		Do("wait for what is being done to it, or delete it")
}

// resize is a change of size on its way into the store.
type resize struct {
	c      *Controller
	kind   kind.Kind
	before *model.Cluster
	after  model.Cluster
	task   *model.Task
}

// steps sets the steps of the task.
func (r *resize) steps(names ...string) {
	r.task.Steps = r.c.newTask(opResizeCluster, r.task.Entity, names...).Steps
}

// commit writes the cluster as it is to be. It is part of a transaction.
func (r *resize) commit(tx *store.Tx) error {
	now, err := get(tx, store.Clusters, r.before.ID, model.CodeClusterNotFound)
	if err != nil {
		return err
	}
	if err := resizable(now); err != nil {
		return err
	}
	if now.WorkerCount != r.before.WorkerCount {
		return model.Errorf(model.CodeConcurrentTask, "cluster %s was resized meanwhile, to %d workers", now.Name, now.WorkerCount).
			Do("look at the cluster, and try again")
	}
	now.Pools, now.WorkerCount, now.ForceDrain = r.after.Pools, r.after.WorkerCount, r.after.ForceDrain
	if now.Reserved, err = sumOf(now.Reserved, r.after.Reserved); err != nil {
		return err
	}
	now.State, now.ErrorReason, now.TaskID = model.ClusterResizing, "", r.task.ID
	return errors.Join(store.Clusters.Put(tx, now), store.Tasks.Put(tx, r.task))
}

func sumOf(a, b []model.QuotaLineItem) ([]model.QuotaLineItem, error) {
	x, err1 := quota.Parse("reserved", a)
	y, err2 := quota.Parse("reserved", b)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	sum, err := x.Add(y)
	return sum.Lines(), err
}

// grow reserves the nodes that the cluster does not have yet. There may be none:
// then what is there is only looked at until it is as it should be.
func (r *resize) grow(ctx context.Context, p *model.Project) error {
	c := r.c
	d := &draft{c: c, kind: r.kind, projectID: p.ID, tenantID: p.TenantID, cluster: &r.after}
	r.after.Pools = slices.Clone(r.before.Pools)
	r.after.Pools[0] = r.after.Pools[0].With(r.after.WorkerCount - r.before.WorkerCount)
	var err error
	if d.image, err = get(c.Store, store.Images, r.before.ImageID, model.CodeImageNotFound); err != nil {
		return err
	}
	if err := r.kind.Validate(&r.after, d.image.Node); err != nil {
		return err
	}
	if d.subnet, err = get(c.Store, store.Subnets, r.before.SubnetID, model.CodeNetworkNotFound); err != nil {
		return err
	}
	here, err := c.nodesOf(r.before.ID)
	if err != nil {
		return err
	}
	for _, n := range r.kind.Nodes(&r.after) {
		if v := here[n.Name]; v == nil {
			d.nodes = append(d.nodes, n)
		} else if v.Deleting {
			return model.Errorf(model.CodeStateError, "the old worker %s is still being deleted", n.Name).Do("try again when it is gone")
		} else if n.SpreadBy != "" {
			d.peers = append(d.peers, placement.Peer{SpreadBy: d.spread(n), HostID: v.HostID})
		}
	}
	if err := d.count(); err != nil {
		return err
	}
	r.after.Reserved = d.cost.Lines() // what comes to what it has
	copied := *p
	if err := reserveProject(&copied, d.cost); err != nil {
		return err
	}
	r.steps(append([]string{stepReserve, stepCreateVMs}, r.kind.Steps(&r.after)...)...)
	setStep(r.task, stepReserve, model.TaskCompleted, d.cost.String(), nil, c.now())
	return d.explain(c.place(ctx, d.request(), func(places placed) error {
		return c.updateIn(ctx, ledger, func(tx *store.Tx) error {
			return errors.Join(d.reserve(tx, places), r.commit(tx))
		})
	}))
}

// shrink chooses the nodes that are to go, those named first.
func (r *resize) shrink(ctx context.Context, named []string) error {
	here, err := r.c.nodesOf(r.before.ID)
	if err != nil {
		return err
	}
	pool := r.before.Pools[0]
	var workers []worker
	for _, n := range pool.NodeNumbers() {
		// The kind says what the node of a number is called.
		name := r.nameOf(n)
		w := worker{number: n, vm: here[name]}
		w.named = slices.Contains(named, name) || (w.vm != nil && slices.Contains(named, w.vm.ID))
		if w.vm != nil {
			w.silent = r.c.nodes.silent(w.vm.ID, r.c.now())
		}
		workers = append(workers, w)
		named = slices.DeleteFunc(slices.Clone(named), func(s string) bool { return s == name || (w.vm != nil && s == w.vm.ID) })
	}
	if len(named) > 0 {
		return model.Errorf(model.CodeInvalidEntity, "nodes: cluster %s has no worker %q", r.before.Name, clip(named[0])).
			Do("see 'cluster list-vms' for its workers")
	}
	slices.SortFunc(workers, worker.leavesBefore)
	for _, w := range workers[:r.before.WorkerCount-r.after.WorkerCount] {
		pool = pool.Without(w.number)
	}
	r.after.Pools = slices.Clone(r.before.Pools)
	r.after.Pools[0] = pool
	r.after.Reserved = nil // it is given back as the nodes go
	r.steps(r.kind.Removal(&r.after)...)
	return r.c.update(ctx, func(tx *store.Tx) error {
		tx.Frees()
		return r.commit(tx)
	})
}

// nameOf is the name of the first pool's node of a number: what the cluster
// would not have without it.
func (r *resize) nameOf(number int) string {
	without := *r.before
	without.Pools = slices.Clone(r.before.Pools)
	without.Pools[0] = without.Pools[0].Without(number)
	rest := map[string]bool{}
	for _, n := range r.kind.Nodes(&without) {
		rest[n.Name] = true
	}
	for _, n := range r.kind.Nodes(r.before) {
		if !rest[n.Name] {
			return n.Name
		}
	}
	return ""
}

// worker is a candidate for leaving.
type worker struct {
	number int
	vm     *model.VM
	named  bool
	silent int64 // milliseconds
}

// leavesBefore orders workers by how little it hurts when they leave: those asked
// for, those that are not there, that do not run, that are silent for a minute
// or more, and then the last to come.
func (w worker) leavesBefore(o worker) int {
	hurts := func(w worker) int {
		switch {
		case w.named:
			return 0
		case w.vm == nil:
			return 1
		case w.vm.State != model.VMStarted:
			return 2
		case w.silent >= 60_000:
			return 3
		default:
			return 4
		}
	}
	return cmp.Or(cmp.Compare(hurts(w), hurts(o)), cmp.Compare(o.number, w.number))
}

// nodesOf are the VMs of a cluster, by name.
func (c *Controller) nodesOf(clusterID string) (map[string]*model.VM, error) {
	vms, _, err := store.VMs.List(c.Store, store.Query{Index: "clusterId", Value: clusterID})
	if err != nil {
		return nil, err
	}
	here := make(map[string]*model.VM, len(vms))
	for _, v := range vms {
		here[v.Name] = v
	}
	return here, nil
}

// spread is the label by which placement spreads nodes of this sort.
func (d *draft) spread(n kind.NodeSpec) string { return d.cluster.ID + "/" + n.SpreadBy }
