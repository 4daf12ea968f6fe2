package control

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/pki"
	"github.com/pleiad/pleiad/internal/plan"
	"github.com/pleiad/pleiad/internal/store"
)

// lookAgain is how often a cluster in the making is looked at when nothing
// changes: only its deadlines hang on it, everything else is an event.
const lookAgain = 5 * time.Second

// reconcileCluster carries out what the cluster's kind decides.
func (c *leader) reconcileCluster(ctx context.Context, id string) (time.Duration, error) {
	cl, err := store.Clusters.Get(c.Store, id)
	if err != nil {
		return 0, ignoreNotFound(err)
	}
	switch cl.State {
	case model.ClusterPendingDelete:
		return 0, c.deleteCluster(ctx, cl)
	case model.ClusterCreating, model.ClusterResizing:
	default:
		return 0, nil
	}
	k := c.Kinds[cl.Type]
	view, err := c.view(cl)
	if err != nil {
		return 0, err
	}
	d := k.Decide(view)
	if len(d.Issue) > 0 {
		// The answer changes what the kind decides, so it is asked again.
		return 0, c.issue(ctx, cl.ID, d.Issue)
	}
	c.addConsole(ctx, view, d.Failed)
	if err := c.apply(ctx, cl.ID, d); err != nil {
		return 0, err
	}
	if d.Ready || d.Failed != nil {
		return 0, nil
	}
	return lookAgain, nil
}

// issue makes what a kind asked for: each secret once, whoever asks again.
func (c *leader) issue(ctx context.Context, clusterID string, requests []kind.Request) error {
	err := c.update(ctx, func(tx *store.Tx) error {
		s, err := clusterSecrets.Get(tx, clusterID)
		if errors.Is(err, store.ErrNotFound) {
			s = &clusterSecret{ClusterID: clusterID}
		} else if err != nil {
			return err
		}
		if s.Secrets == nil {
			s.Secrets = map[string]kind.Secret{}
		}
		for _, r := range requests {
			if _, ok := s.Secrets[r.Name]; ok {
				continue
			}
			made, err := pki.Issue(r, s.Secrets, c.Clock(), rand.Reader)
			if err != nil {
				return fmt.Errorf("issue %s: %w", r.Name, err)
			}
			s.Secrets[r.Name] = made
		}
		return clusterSecrets.Put(tx, s)
	})
	if err == nil {
		c.queue.add(key{nounCluster, clusterID})
	}
	return err
}

// consoleTail is how much of a silent node's console its error shows, in bytes.
const consoleTail = 4 << 10

// addConsole adds the console's tail to the error of a node that was not heard
// of: it is the one witness of what goes on inside. An error is no worse
// without, so that a console that cannot be read is only logged.
func (c *leader) addConsole(ctx context.Context, view kind.View, cause *model.Error) {
	if cause == nil || cause.Code != model.CodeNodeNotReporting {
		return
	}
	node := view.NodeNamed(cause.Data["node"])
	if node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hostTimeout)
	defer cancel()
	tail, err := c.readConsole(ctx, node.VM)
	if err != nil {
		c.log.Warn("the console of a silent node could not be read", "vm", node.VM.ID, "host", node.VM.Host, "error", err)
		return
	}
	cause.With("log", strings.ToValidUTF8(tail, ""))
}

func (c *leader) readConsole(ctx context.Context, v *model.VM) (string, error) {
	h, err := store.Hosts.Get(c.Store, v.HostID)
	if err != nil {
		return "", err
	}
	d, err := c.driver(ctx, h)
	if err != nil {
		return "", err
	}
	return d.ConsoleTail(ctx, v.ID, consoleTail)
}

// apply records a decision: plans for the nodes, progress of the task, and the cluster's state.
func (c *leader) apply(ctx context.Context, id string, d kind.Decision) error {
	for nodeID, p := range d.Apply {
		p.NodeID = nodeID
		if err := p.Validate(); err != nil {
			return fmt.Errorf("plan for node %s: %w", nodeID, err)
		}
		err := c.update(ctx, func(tx *store.Tx) error {
			if v, err := store.VMs.Get(tx, nodeID); err != nil || v.Deleting {
				return ignoreNotFound(err)
			}
			return plans.Put(tx, &p)
		})
		if err != nil {
			return err
		}
	}
	for _, nodeID := range d.Remove {
		if err := c.markDeleting(ctx, nodeID); err != nil {
			return err
		}
	}
	return c.update(ctx, func(tx *store.Tx) error {
		cl, err := store.Clusters.Get(tx, id)
		if err != nil {
			return ignoreNotFound(err)
		}
		if cl.State != model.ClusterCreating && cl.State != model.ClusterResizing {
			return nil // it was deleted meanwhile
		}
		return c.record(tx, cl, d)
	})
}

// record writes a decision's progress and outcome into the cluster and its task.
func (c *leader) record(tx *store.Tx, cl *model.Cluster, d kind.Decision) error {
	task, err := store.Tasks.Get(tx, cl.TaskID)
	if err != nil {
		return err
	}
	now := c.now()
	failed, failedStep := d.Failed, ""
	up, total, why, broken, err := c.countVMs(cl.ID)
	if err != nil {
		return err
	}
	switch {
	case broken != nil:
		failed, failedStep = broken, stepCreateVMs
	case up == total:
		setStep(task, stepCreateVMs, model.TaskCompleted, fmt.Sprintf("%d VMs", total), nil, now)
	default:
		setStep(task, stepCreateVMs, model.TaskStarted, fmt.Sprintf("%d of %d VMs started%s", up, total, why), nil, now)
	}
	for op, p := range d.Progress {
		setStep(task, op, p.State, p.Message, p.Error, now)
		if p.Error != nil && p.State == model.TaskError && failedStep == "" {
			failedStep = op
		}
	}
	for _, cond := range d.Conditions {
		cond.Time = now
		cl.Conditions = model.SetCondition(cl.Conditions, cond)
	}
	maps.Copy(cl.ExtendedProperties, d.Publish)
	for k, v := range d.Publish {
		if v == "" {
			delete(cl.ExtendedProperties, k)
		}
	}
	if d.Endpoint != "" {
		cl.Endpoint = d.Endpoint
	}
	switch {
	case failed != nil:
		if failedStep == "" {
			failedStep = currentStep(task)
		}
		fail(task, failedStep, failed, now)
		cl.State, cl.ErrorReason = model.ClusterRecoverableError, failed.Error()
	case d.Ready && up == total: // a node may be done before its host's answer that it was started
		for _, s := range task.Steps {
			setStep(task, s.Operation, model.TaskCompleted, s.Progress, nil, now)
		}
		finish(task, now)
		cl.State, cl.ErrorReason, cl.TaskID = model.ClusterReady, "", ""
	}
	return errors.Join(store.Tasks.Put(tx, task), store.Clusters.Put(tx, cl))
}

// countVMs says how many of a cluster's VMs run, what keeps the first of the
// others from it for now, and the error of the first that cannot.
func (c *Controller) countVMs(clusterID string) (up, total int, why string, broken *model.Error, err error) {
	vms, _, err := store.VMs.List(c.Store, store.Query{Index: "clusterId", Value: clusterID})
	if err != nil {
		return 0, 0, "", nil, err
	}
	for _, v := range vms {
		if v.Deleting {
			continue
		}
		total++
		switch {
		case v.State == model.VMStarted:
			up++
		case v.State == model.VMError && v.Error != nil && broken == nil:
			e := *v.Error
			e.Message = fmt.Sprintf("VM %s on host %s: %s", v.Name, v.Host, e.Message)
			broken = &e
		case why == "":
			why = trouble(v)
		}
	}
	return up, total, why, broken, nil
}

func (c *leader) markDeleting(ctx context.Context, vmID string) error {
	return c.setVM(ctx, vmID, func(v *model.VM) { v.Deleting, v.Conditions = true, nil })
}

// deleteCluster has the VMs removed, then forgets the cluster and returns its quota.
func (c *leader) deleteCluster(ctx context.Context, cl *model.Cluster) error {
	vms, _, err := store.VMs.List(c.Store, store.Query{Index: "clusterId", Value: cl.ID})
	if err != nil {
		return err
	}
	why := ""
	for _, v := range vms {
		if v.Deleting {
			why = cmp.Or(why, trouble(v))
		} else if err := c.markDeleting(ctx, v.ID); err != nil {
			return err
		}
	}
	if len(vms) > 0 {
		return c.update(ctx, func(tx *store.Tx) error {
			return c.stepOf(tx, cl.ID, opDeleteCluster, func(t *model.Task) {
				setStep(t, stepDeleteVMs, model.TaskStarted, fmt.Sprintf("%d VMs left%s", len(vms), why), nil, c.now())
			})
		})
	}
	return c.updateIn(ctx, ledger, func(tx *store.Tx) error { return c.forgetCluster(tx, cl.ID) })
}

// forgetCluster removes the cluster's records and returns its quota, once: in
// one transaction, and only when none of its VMs is left.
func (c *leader) forgetCluster(tx *store.Tx, id string) error {
	cl, err := store.Clusters.Get(tx, id)
	if err != nil {
		return ignoreNotFound(err)
	}
	if n, err := store.VMs.Count(tx, store.Query{Index: "clusterId", Value: id}); err != nil || n > 0 {
		return err
	}
	p, err := store.Projects.Get(tx, cl.ProjectID)
	if err != nil {
		return err
	}
	if err := c.returnTo(p.ResourceTicket.Limits, &p.ResourceTicket.Usage, cl.Reserved, p.ID); err != nil {
		return err
	}
	for _, name := range c.Kinds[cl.Type].Addresses(cl) {
		l := model.Lease{SubnetID: cl.SubnetID, Address: cl.ExtendedProperties[addressProperty(name)]}
		if err := ignoreNotFound(leases.Delete(tx, l.Key())); err != nil {
			return err
		}
	}
	err = c.stepOf(tx, id, opDeleteCluster, func(t *model.Task) {
		setStep(t, stepDeleteVMs, model.TaskCompleted, "", nil, c.now())
		setStep(t, stepForget, model.TaskCompleted, "", nil, c.now())
		finish(t, c.now())
	})
	return errors.Join(err,
		store.Projects.Put(tx, p),
		ignoreNotFound(clusterSecrets.Delete(tx, id)),
		store.Clusters.Delete(tx, id))
}

// planFor returns a node's plan; nil if it has none yet.
func (c *Controller) planFor(nodeID string) (*plan.Plan, error) {
	p, err := plans.Get(c.Store, nodeID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return p, err
}
