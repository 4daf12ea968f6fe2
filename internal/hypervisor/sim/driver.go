package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
)

// driver is a session with one host.
type driver struct{ host *Host }

var _ hypervisor.Driver = (*driver)(nil)

// call has an effect between the two moments of the fleet's hook. effect runs with the host's lock held.
func (d *driver) call(ctx context.Context, op, id string, effect func() error) error {
	return d.around(ctx, op, id, func() error {
		d.host.mu.Lock()
		defer d.host.mu.Unlock()
		return effect()
	})
}

// around is call for effects that take the lock themselves.
func (d *driver) around(ctx context.Context, op, id string, effect func() error) error {
	c := Call{Host: d.host.Name, Op: op, ID: id}
	if err := d.ask(ctx, c, Before); err != nil {
		return err
	}
	d.host.mu.Lock()
	down := d.host.down
	d.host.mu.Unlock()
	if down {
		return unreachable(d.host.Name)
	}
	if err := effect(); err != nil {
		return err
	}
	return d.ask(ctx, c, After)
}

// ask asks the hook; a context that has ended ends the call, too.
func (d *driver) ask(ctx context.Context, c Call, m Moment) error {
	if hook := d.host.fleet.Hook; hook != nil && ctx.Err() == nil {
		if err := hook(ctx, c, m); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s on host %s: %w", c.Op, c.Host, context.Cause(ctx))
	}
	return nil
}

// refuse is an error of the host.
func (d *driver) refuse(format string, args ...any) error {
	return model.Errorf(model.CodeHypervisorError, "host %s: %s", d.host.Name, fmt.Sprintf(format, args...))
}

func (d *driver) Close() error { return nil }

func (d *driver) Facts(ctx context.Context) (model.HostFacts, error) {
	var facts model.HostFacts
	err := d.call(ctx, "Facts", "", func() error {
		facts = d.host.facts
		facts.Datastores = slices.Clone(facts.Datastores)
		// All VMs are on the first datastore as far as its free space goes: the host's disk is one.
		if len(facts.Datastores) > 0 {
			first := &facts.Datastores[0]
			first.Free = max(0, first.Capacity-d.host.used.Disk)
		}
		return nil
	})
	return facts, err
}

func (d *driver) EnsureImage(ctx context.Context, image hypervisor.Image, open func() (hypervisor.Payload, error)) error {
	return d.around(ctx, "EnsureImage", image.ID, func() error {
		h := d.host
		for {
			h.mu.Lock()
			if h.images[image.ID] {
				h.mu.Unlock()
				return nil
			}
			other := h.uploading[image.ID]
			if other == nil {
				break
			}
			h.mu.Unlock()
			select {
			case <-other:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if h.uploading == nil {
			h.uploading, h.images = map[string]chan struct{}{}, map[string]bool{}
		}
		done := make(chan struct{})
		h.uploading[image.ID] = done
		h.mu.Unlock()

		err := read(open)

		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.uploading, image.ID)
		close(done)
		if err == nil {
			h.images[image.ID] = true
		}
		return err
	})
}

// read reads a payload as a host would, and keeps nothing of it. Any known format will do.
func read(open func() (hypervisor.Payload, error)) (err error) {
	payload, err := open()
	if err != nil {
		return fmt.Errorf("open the image: %w", err)
	}
	if payload.Close != nil {
		defer func() { err = errors.Join(err, payload.Close()) }()
	}
	known := 0
	for name, part := range payload.Parts {
		if !slices.Contains([]string{"sim", "lxd-metadata", "lxd-squashfs", "qcow2", "vmdk"}, name) {
			continue
		}
		known++
		n, err := io.Copy(io.Discard, io.LimitReader(part.Reader, part.Size+1))
		if err != nil {
			return fmt.Errorf("read the image: %w", err)
		}
		if n != part.Size {
			return model.Errorf(model.CodeImageUploadError, "the image's part %s does not have its %d bytes", name, part.Size)
		}
	}
	if known == 0 {
		return model.Errorf(model.CodeUnsupported, "the image has no format this host knows")
	}
	return nil
}

func (d *driver) DeleteImage(ctx context.Context, imageID string) error {
	return d.call(ctx, "DeleteImage", imageID, func() error {
		delete(d.host.images, imageID)
		return nil
	})
}

var idPattern = regexp.MustCompile(`^[a-zA-Z0-9-]+$`)

func (d *driver) CreateVM(ctx context.Context, spec hypervisor.VMSpec) (hypervisor.VM, error) {
	var view hypervisor.VM
	err := d.call(ctx, "CreateVM", spec.ID, func() error {
		h := d.host
		if v, ok := h.vms[spec.ID]; ok {
			if v.spec.Owner != spec.Owner {
				return d.refuse("VM %s belongs to installation %q", spec.ID, v.spec.Owner)
			}
			view = v.view()
			return nil
		}
		if err := d.check(spec); err != nil {
			return err
		}
		if h.vms == nil {
			h.vms = map[string]*vm{}
		}
		v := &vm{spec: spec, power: hypervisor.Stopped}
		h.vms[spec.ID] = v
		h.used = h.used.Add(spec.Resources)
		view = v.view()
		return nil
	})
	return view, err
}

// check says why a VM cannot be on the host. It is called with the lock held.
func (d *driver) check(spec hypervisor.VMSpec) error {
	h := d.host
	if !idPattern.MatchString(spec.ID) {
		return d.refuse("%q is no id", spec.ID)
	}
	if !h.images[spec.ImageID] {
		return d.refuse("there is no image %s", spec.ImageID)
	}
	if spec.Datastore != "" && !slices.ContainsFunc(h.facts.Datastores, func(s model.HostDatastore) bool { return s.Name == spec.Datastore }) {
		return d.refuse("there is no datastore %s", spec.Datastore)
	}
	for _, n := range spec.Networks {
		if !slices.Contains(h.facts.Networks, n.Network) {
			return d.refuse("there is no network %s", n.Network)
		}
	}
	after, has := h.used.Add(spec.Resources), h.facts.Capacity
	if after.MilliCPU > has.MilliCPU || after.Memory > has.Memory || after.Disk > has.Disk {
		return model.Errorf(model.CodeInsufficientCapacity, "host %s has %+v in all, and VM %s would make it %+v", h.Name, has, spec.ID, after)
	}
	return nil
}

func (d *driver) VM(ctx context.Context, id string) (hypervisor.VM, error) {
	var view hypervisor.VM
	err := d.onVM(ctx, "VM", id, func(v *vm) { view = v.view() })
	return view, err
}

func (d *driver) VMs(ctx context.Context) ([]hypervisor.VM, error) {
	var list []hypervisor.VM
	err := d.call(ctx, "VMs", "", func() error {
		list = make([]hypervisor.VM, 0, len(d.host.vms))
		for _, v := range d.host.vms {
			list = append(list, v.view())
		}
		return nil
	})
	return list, err
}

// onVM is a call on a VM that must be there.
func (d *driver) onVM(ctx context.Context, op, id string, effect func(*vm)) error {
	return d.call(ctx, op, id, func() error {
		v, ok := d.host.vms[id]
		if !ok {
			return hypervisor.ErrNotFound
		}
		effect(v)
		return nil
	})
}

func (d *driver) StartVM(ctx context.Context, id string) error {
	return d.onVM(ctx, "StartVM", id, func(v *vm) {
		if v.power == hypervisor.Running {
			return
		}
		v.power = hypervisor.Running
		v.print(fmt.Sprintf("sim: %s boots with user data %q\n", v.spec.Name, v.spec.UserData))
		if d.host.fleet.Agent != nil {
			d.host.runAgent(v)
		}
	})
}

// runAgent runs the fleet's agent once the one of an earlier start has ended. It is called with the lock held.
func (h *Host) runAgent(v *vm) {
	ctx, cancel := context.WithCancel(context.Background())
	before, ended := v.ended, make(chan struct{})
	v.cancel, v.ended = cancel, ended
	spec := v.spec
	h.fleet.agents.Go(func() {
		defer close(ended)
		defer cancel()
		if before != nil {
			<-before
		}
		h.fleet.Agent(ctx, h.Name, spec)
	})
}

// StopVM stops at once: nothing inside a simulated VM is worth a grace.
func (d *driver) StopVM(ctx context.Context, id string, _ int) error {
	return d.onVM(ctx, "StopVM", id, func(v *vm) { v.powerOff() })
}

func (d *driver) DeleteVM(ctx context.Context, id string) error {
	return d.call(ctx, "DeleteVM", id, func() error {
		d.host.remove(id)
		return nil
	})
}

func (d *driver) ConsoleTail(ctx context.Context, id string, most int) (string, error) {
	var tail string
	err := d.onVM(ctx, "ConsoleTail", id, func(v *vm) { tail = v.console[max(0, len(v.console)-max(most, 0)):] })
	return tail, err
}
