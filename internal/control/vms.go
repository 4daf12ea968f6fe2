package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/pki"
	"github.com/pleiad/pleiad/internal/quota"
	"github.com/pleiad/pleiad/internal/store"
)

const (
	// vmTimeout bounds one go at making or deleting a VM, the copy of its image included.
	vmTimeout = 10 * time.Minute
	// stopGrace is how many seconds a VM has to stop by itself before it is deleted.
	// Nodes of a cluster that is deleted have nothing to save.
	stopGrace = 0
	// enrollTTL is how long a node's one-time token is good.
	enrollTTL = time.Hour
	// createDeadline is how long a VM is tried to be made: what does not heal by
	// then needs somebody, who is told why.
	createDeadline = 15 * time.Minute
	// conditionDeleted is False while a VM that is to go cannot be deleted.
	conditionDeleted = "Deleted"
)

// reconcileVM makes a VM that is to be, and removes one that is to go.
func (c *leader) reconcileVM(ctx context.Context, id string) error {
	v, err := store.VMs.Get(c.Store, id)
	if err != nil {
		return ignoreNotFound(err)
	}
	ctx, cancel := context.WithTimeout(ctx, vmTimeout)
	defer cancel()
	switch {
	case v.Deleting:
		err = c.deleteVM(ctx, v)
		if err == nil || errors.Is(ctx.Err(), context.Canceled) {
			break
		}
		cause := model.AsError(err)
		if since := triedSince(v); since > 0 && c.now()-since >= orphanAfter.Milliseconds() {
			c.log.Warn("VM cannot be deleted; it is an orphan now", "vm", v.ID, "host", v.Host, "error", err)
			return c.abandon(context.WithoutCancel(ctx), v.ID, cause)
		}
		err = errors.Join(err, c.note(ctx, v.ID, conditionDeleted, cause))
	case v.State == model.VMCreating:
		err = c.createVM(ctx, v)
	}
	if errors.Is(err, model.ErrorOf(model.CodeHostUnreachable)) {
		c.queue.add(key{nounHost, v.HostID}) // see whether it is the host, for all who want something of it
	}
	return err
}

func (c *leader) createVM(ctx context.Context, v *model.VM) error {
	err := c.makeVM(ctx, v)
	if err == nil {
		c.nodes.hear(v.ID, c.now()) // its silence counts from here
		return c.setVM(ctx, v.ID, func(v *model.VM) { v.State, v.Error, v.Conditions = model.VMStarted, nil, nil })
	}
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	cause := model.AsError(err)
	if final(cause.Code) || c.now()-v.CreatedTime > createDeadline.Milliseconds() {
		c.log.Error("VM cannot be made", "vm", v.ID, "host", v.Host, "error", err)
		return c.setVM(context.WithoutCancel(ctx), v.ID, func(v *model.VM) { v.State, v.Error = model.VMError, cause })
	}
	// It may heal by itself; until then the VM says why it is not there.
	return errors.Join(err, c.note(ctx, v.ID, "Created", cause))
}

// note has a VM say why it is not there, or not gone, while that is tried again.
func (c *leader) note(ctx context.Context, id, condition string, cause *model.Error) error {
	return c.update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		v, err := store.VMs.Get(tx, id)
		if err != nil {
			return ignoreNotFound(err)
		}
		v.Conditions = model.SetCondition(v.Conditions, model.Condition{
			Type: condition, Status: "False", Reason: string(cause.Code), Message: cause.Message, Time: c.now(),
		})
		return store.VMs.Put(tx, v)
	})
}

// triedSince is when the first attempt to delete a VM failed; 0 if none has.
func triedSince(v *model.VM) int64 {
	for _, cond := range v.Conditions {
		if cond.Type == conditionDeleted {
			return cond.Time
		}
	}
	return 0
}

// trouble is what a VM noted last, in words to follow a sentence; empty if nothing.
func trouble(v *model.VM) string {
	if len(v.Conditions) == 0 {
		return ""
	}
	return fmt.Sprintf("; VM %s on host %s: %s", v.Name, v.Host, v.Conditions[len(v.Conditions)-1].Message)
}

// final reports whether trying again cannot help.
func final(code model.Code) bool {
	return slices.Contains([]model.Code{
		model.CodeUnsupported, model.CodeNoSuchResource, model.CodeInsufficientCapacity, model.CodeNotEnoughDatastore,
	}, code)
}

// makeVM does all that is needed for the VM to run, each step safe to repeat.
func (c *leader) makeVM(ctx context.Context, v *model.VM) error {
	h, err := store.Hosts.Get(c.Store, v.HostID)
	if err != nil {
		return err
	}
	d, err := c.reach(ctx, h)
	if err != nil {
		return err
	}
	if err := c.copyImage(ctx, v.SourceImageID, h); err != nil {
		return err
	}
	data, err := c.userData(v)
	if err != nil {
		return err
	}
	if _, err := d.CreateVM(ctx, hypervisor.VMSpec{
		ID: v.ID, Name: v.Name, ImageID: v.SourceImageID, Resources: v.Reserved, Datastore: v.Datastore,
		Networks: v.Networks, UserData: data, Node: v.ClusterID != "", Owner: c.Identity.ID,
		Tags: map[string]string{"cluster": v.ClusterID, "role": v.Role, "project": v.ProjectID},
	}); err != nil {
		return err
	}
	return d.StartVM(ctx, v.ID)
}

// userData tells a node who it is and where its controllers are.
func (c *Controller) userData(v *model.VM) ([]byte, error) {
	token, err := c.Identity.Tokens.Sign(pki.Claims{
		Subject: v.ID, Audience: pki.AudienceNode, ID: newID(), Expires: c.Clock().Add(enrollTTL),
	})
	if err != nil {
		return nil, fmt.Errorf("token for node %s: %w", v.ID, err)
	}
	return bootstrap.UserData(bootstrap.Bootstrap{
		NodeID: v.ID, Hostname: v.Name, ControllerURLs: c.NodeEndpoints,
		CA: string(c.Identity.CA.Certificate()), Token: token, Network: v.Networks,
	})
}

// setVM changes a VM that is still there and not to go.
func (c *leader) setVM(ctx context.Context, id string, change func(*model.VM)) error {
	return c.update(ctx, func(tx *store.Tx) error {
		v, err := store.VMs.Get(tx, id)
		if err != nil || v.Deleting {
			return ignoreNotFound(err)
		}
		change(v)
		return store.VMs.Put(tx, v)
	})
}

// deleteVM removes a VM from its host, then from the store with all it held.
func (c *leader) deleteVM(ctx context.Context, v *model.VM) error {
	h, err := store.Hosts.Get(c.Store, v.HostID)
	switch {
	case errors.Is(err, store.ErrNotFound): // the host is gone, and what was on it is not ours to reach
	case err != nil:
		return err
	default:
		d, err := c.reach(ctx, h)
		if err != nil {
			return err
		}
		if err := removeVM(ctx, d, v.ID); err != nil {
			return err
		}
	}
	return c.updateIn(ctx, ledger, func(tx *store.Tx) error { return c.forgetVM(tx, v.ID) })
}

// removeVM removes a VM from its host.
func removeVM(ctx context.Context, d hypervisor.Driver, id string) error {
	if err := d.StopVM(ctx, id, stopGrace); err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		return err
	}
	return d.DeleteVM(ctx, id)
}

// forgetVM removes a VM and returns what it held, once: all of it in one transaction.
func (c *Controller) forgetVM(tx *store.Tx, id string) error {
	v, err := store.VMs.Get(tx, id)
	if err != nil {
		return ignoreNotFound(err)
	}
	return errors.Join(release(tx, v), c.returnNode(tx, v), c.dropVM(tx, id))
}

// returnNode gives back what a node cost its project. A cluster that is deleted
// gives back what it has left as a whole.
func (c *Controller) returnNode(tx *store.Tx, v *model.VM) error {
	cl, err := store.Clusters.Get(tx, v.ClusterID)
	if err != nil || cl.State == model.ClusterPendingDelete {
		return ignoreNotFound(err)
	}
	p, err := store.Projects.Get(tx, cl.ProjectID)
	if err != nil {
		return err
	}
	reserved, err1 := quota.Parse("reserved", cl.Reserved)
	cost, err2 := quota.Parse("cost", v.Cost)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	left, err := reserved.Sub(cost)
	if err != nil {
		return err
	}
	cl.Reserved = left.Lines()
	err = c.returnTo(p.ResourceTicket.Limits, &p.ResourceTicket.Usage, v.Cost, p.ID)
	return errors.Join(err, store.Projects.Put(tx, p), store.Clusters.Put(tx, cl))
}

// release returns a VM's addresses and its part of its host.
func release(tx *store.Tx, v *model.VM) error {
	for _, n := range v.Networks {
		l := model.Lease{SubnetID: n.SubnetID, Address: n.IPAddress}
		if err := ignoreNotFound(leases.Delete(tx, l.Key())); err != nil {
			return err
		}
	}
	return giveBack(tx, v)
}

// dropVM removes a VM and all records of it, but nothing of what it held.
func (c *Controller) dropVM(tx *store.Tx, id string) error {
	return errors.Join(
		ignoreNotFound(plans.Delete(tx, id)),
		ignoreNotFound(reports.Delete(tx, id)),
		ignoreNotFound(enrollments.Delete(tx, id)),
		store.VMs.Delete(tx, id),
	)
}
