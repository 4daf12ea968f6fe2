package control

import (
	"context"
	"errors"
	"time"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

const (
	// orphanAfter is how long the deletion of a VM is tried before whoever waits
	// for it is let go, and the VM is an orphan.
	orphanAfter = time.Minute
	// orphanGrace is how long a VM that nothing knows is left alone: somebody may
	// be restoring a backup.
	orphanGrace = 10 * time.Minute
	// sweepTimeout bounds one look at what is on a host, and what follows from it.
	sweepTimeout = 2 * time.Minute
)

// abandon makes an orphan of a VM that cannot be deleted. What asked for its
// deletion goes on; its part of the host, and its addresses, stay taken until it
// is known to be gone.
func (c *leader) abandon(ctx context.Context, id string, cause *model.Error) error {
	return c.updateIn(ctx, ledger, func(tx *store.Tx) error {
		v, err := store.VMs.Get(tx, id)
		if err != nil {
			return ignoreNotFound(err)
		}
		now := c.now()
		o := &model.Orphan{
			Meta:   model.Meta{ID: id, Kind: "orphan", Name: v.Name, CreatedTime: v.CreatedTime},
			HostID: v.HostID, Host: v.Host, Cause: model.OrphanNotDeleted, Since: now, RemoveAfter: now, Error: cause, VM: v,
		}
		return errors.Join(store.Orphans.Put(tx, o), c.returnNode(tx, v), c.dropVM(tx, id))
	})
}

// forgetOrphan gives back what an orphan had that is gone from its host.
func (c *Controller) forgetOrphan(tx *store.Tx, id string) error {
	o, err := store.Orphans.Get(tx, id)
	if err != nil {
		return ignoreNotFound(err)
	}
	if o.VM != nil {
		if err := release(tx, o.VM); err != nil {
			return err
		}
	}
	return store.Orphans.Delete(tx, id)
}

// sweep compares what is on a host with what should be: it removes orphans whose
// time has come, takes note of VMs of ours that nothing knows, and starts nodes
// that are stopped, as they are after a restart of their host. VMs that are not
// this installation's are never touched.
func (c *leader) sweep(ctx context.Context, hostID string) error {
	h, err := store.Hosts.Get(c.Store, hostID)
	if err != nil || !answers(h) {
		return ignoreNotFound(err)
	}
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	d, err := c.driver(ctx, h)
	if err != nil {
		return err
	}
	found, err := d.VMs(ctx)
	if err != nil {
		return err
	}
	var errs []error
	here := map[string]bool{}
	for _, vm := range found {
		if vm.Owner != c.Identity.ID {
			continue
		}
		here[vm.ID] = true
		v, err := store.VMs.Get(c.Store, vm.ID) // read after the host was: what is made meanwhile is known
		switch {
		case errors.Is(err, store.ErrNotFound):
			errs = append(errs, c.sweepOrphan(ctx, d, h, vm))
		case err != nil:
			errs = append(errs, err)
		case v.HostID == hostID && v.State == model.VMStarted && !v.Deleting && vm.Power == hypervisor.Stopped:
			c.log.Info("a VM that should run is stopped; it is started", "vm", v.ID, "host", h.Address)
			c.nodes.hear(v.ID, c.now()) // its silence counts from here
			errs = append(errs, d.StartVM(ctx, v.ID))
		}
	}
	orphans, _, err := store.Orphans.List(c.Store, store.Query{Index: "hostId", Value: hostID})
	errs = append(errs, err)
	for _, o := range orphans {
		if !here[o.ID] {
			errs = append(errs, c.updateIn(ctx, ledger, func(tx *store.Tx) error { return c.forgetOrphan(tx, o.ID) }))
		}
	}
	return errors.Join(errs...)
}

// sweepOrphan takes note of a VM that nothing knows, or removes it.
func (c *leader) sweepOrphan(ctx context.Context, d hypervisor.Driver, h *model.Host, vm hypervisor.VM) error {
	o, err := store.Orphans.Get(c.Store, vm.ID)
	if errors.Is(err, store.ErrNotFound) {
		return c.update(ctx, func(tx *store.Tx) error {
			if _, err := store.VMs.Get(tx, vm.ID); !errors.Is(err, store.ErrNotFound) {
				return err
			}
			c.log.Warn("a VM with our tag is not in the store; it will be removed", "vm", vm.ID, "name", vm.Name, "host", h.Address, "after", orphanGrace)
			return store.Orphans.Put(tx, &model.Orphan{
				Meta:   model.Meta{ID: vm.ID, Kind: "orphan", Name: vm.Name, CreatedTime: c.now()},
				HostID: h.ID, Host: h.Address, Cause: model.OrphanUnknown, Since: c.now(),
				RemoveAfter: c.now() + orphanGrace.Milliseconds(),
			})
		})
	}
	if err != nil || c.now() < o.RemoveAfter {
		return err
	}
	if err := removeVM(ctx, d, vm.ID); err != nil {
		cause := model.AsError(err)
		return errors.Join(err, c.update(ctx, func(tx *store.Tx) error {
			o, err := store.Orphans.Get(tx, vm.ID)
			if err != nil {
				return ignoreNotFound(err)
			}
			o.Error = cause
			return store.Orphans.Put(tx, o)
		}))
	}
	c.log.Info("an orphan was removed", "vm", vm.ID, "name", vm.Name, "host", h.Address)
	return c.updateIn(ctx, ledger, func(tx *store.Tx) error { return c.forgetOrphan(tx, vm.ID) })
}
