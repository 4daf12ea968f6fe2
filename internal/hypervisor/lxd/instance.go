package lxd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	incus "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
)

// CreateVM implements hypervisor.Driver. An instance whose making was cut off by the
// host's own end is removed and made anew.
func (d *Driver) CreateVM(ctx context.Context, spec hypervisor.VMSpec) (hypervisor.VM, error) {
	if err := checkID(spec.ID); err != nil {
		return hypervisor.VM{}, err
	}
	var vm hypervisor.VM
	err := d.call(ctx, "create VM "+spec.Name, createTimeout, func(ctx context.Context, c client) error {
		unlock, err := d.creations.lock(ctx, spec.ID)
		if err != nil {
			return err
		}
		defer unlock()
		const tries = 5
		for range tries {
			inst, err := ours(c, spec.ID)
			if errors.Is(err, hypervisor.ErrNotFound) {
				if inst, err = create(c, spec); inst == nil && err == nil {
					continue // somebody else was at it
				}
			}
			if err != nil {
				return err
			}
			if owner := inst.Config[keyOwner]; owner != spec.Owner {
				return model.Errorf(model.CodeHypervisorError, "VM %s is on host %s already, and belongs to installation %q", spec.ID, d.name, owner)
			}
			if inst.Config[keyMade] != "" || inst.StatusCode != api.Stopped {
				vm = view(*inst)
				return nil
			}
			if busy, err := waitBusy(c, inst.Name); err != nil {
				return err
			} else if !busy {
				if err := d.remove(ctx, c, spec.ID); err != nil {
					return err
				}
			}
		}
		return errors.New("it appears and vanishes: somebody else works on it")
	})
	return vm, err
}

// create makes the instance and marks it as whole. It returns nil when another request for the
// same instance came first: one of ours that was cut off goes on in the daemon.
func create(c client, spec hypervisor.VMSpec) (*api.Instance, error) {
	name := instanceName(spec.ID)
	// A name alone does not make an instance ours.
	if inst, _, err := c.GetInstance(name); err == nil {
		if inst.Config[keyID] == spec.ID {
			return nil, nil
		}
		return nil, fmt.Errorf("an instance %s is there and is not ours", name)
	} else if !api.StatusErrorCheck(err, http.StatusNotFound) {
		return nil, err
	}
	post, err := instanceOf(c, spec)
	if err != nil {
		return nil, err
	}
	op, err := c.CreateInstance(post)
	if err == nil {
		_, err = wait(c, op)
	}
	if err != nil {
		busy, busyErr := waitBusy(c, name)
		if _, lookErr := ours(c, spec.ID); busyErr == nil && (busy || lookErr == nil) {
			return nil, nil
		}
		return nil, err
	}
	made := map[string]any{"config": map[string]string{keyMade: "true"}}
	if _, _, err := c.RawQuery(http.MethodPatch, "/1.0/instances/"+name, made, ""); err != nil {
		return nil, err
	}
	return ours(c, spec.ID)
}

// ours looks an instance up by our id; ErrNotFound if there is none or it is not ours.
func ours(c client, id string) (*api.Instance, error) {
	if err := checkID(id); err != nil {
		return nil, hypervisor.ErrNotFound
	}
	inst, _, err := c.GetInstance(instanceName(id))
	if api.StatusErrorCheck(err, http.StatusNotFound) {
		return nil, hypervisor.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if inst.Config[keyID] != id {
		return nil, hypervisor.ErrNotFound
	}
	return inst, nil
}

// VM implements hypervisor.Driver. Addresses are those the VM has now.
func (d *Driver) VM(ctx context.Context, id string) (hypervisor.VM, error) {
	var vm hypervisor.VM
	err := d.call(ctx, "look up VM "+id, queryTimeout, func(_ context.Context, c client) error {
		inst, err := ours(c, id)
		if err != nil {
			return err
		}
		vm = view(*inst)
		if inst.StatusCode == api.Stopped {
			return nil
		}
		state, _, err := c.GetInstanceState(inst.Name)
		if err == nil {
			vm.Addresses = addresses(*inst, state)
		}
		return err
	})
	return vm, err
}

// VMs implements hypervisor.Driver. Addresses are those the VMs were created with: asking each
// for its own would take the host a process per VM.
func (d *Driver) VMs(ctx context.Context) ([]hypervisor.VM, error) {
	var list []hypervisor.VM
	err := d.call(ctx, "list its VMs", queryTimeout, func(_ context.Context, c client) error {
		instances, err := c.GetInstances(api.InstanceTypeAny)
		for _, inst := range instances {
			if id := inst.Config[keyID]; id != "" && inst.Name == instanceName(id) {
				list = append(list, view(inst))
			}
		}
		return err
	})
	return list, err
}

func view(inst api.Instance) hypervisor.VM {
	vm := hypervisor.VM{
		ID: inst.Config[keyID], Name: inst.Config[keyName], Owner: inst.Config[keyOwner],
		Power: hypervisor.Other, Addresses: strings.Fields(inst.Config[keyAddress]),
	}
	switch inst.StatusCode {
	case api.Running:
		vm.Power = hypervisor.Running
	case api.Stopped:
		vm.Power = hypervisor.Stopped
	}
	return vm
}

// addresses leaves out interfaces the VM made itself, such as bridges of its own containers.
func addresses(inst api.Instance, state *api.InstanceState) []string {
	var list []string
	for name, network := range state.Network {
		if inst.ExpandedDevices[name]["type"] != "nic" {
			continue
		}
		for _, a := range network.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && ip.IsGlobalUnicast() {
				list = append(list, a.Address)
			}
		}
	}
	slices.Sort(list)
	return list
}

// StartVM implements hypervisor.Driver.
func (d *Driver) StartVM(ctx context.Context, id string) error {
	what := "start VM " + id
	return d.call(ctx, what, changeTimeout, func(ctx context.Context, c client) error {
		err := change(ctx, c, id, once, func(inst *api.Instance) (incus.Operation, error) {
			switch inst.StatusCode {
			case api.Running:
				return nil, nil
			case api.Frozen:
				return setState(c, inst, "unfreeze", false, -1)
			default:
				return setState(c, inst, "start", false, -1)
			}
		})
		if err == nil || !isAnswer(err) || errors.Is(err, hypervisor.ErrNotFound) {
			return err
		}
		// LXD itself says little more than that a program of its own failed.
		explained := model.AsError(d.explain(what, err))
		if log := d.startLog(ctx, instanceName(id)); log != "" {
			explained = explained.With("log", log)
		}
		return explained
	})
}

// StopVM implements hypervisor.Driver.
func (d *Driver) StopVM(ctx context.Context, id string, graceSeconds int) error {
	timeout := changeTimeout + time.Duration(max(graceSeconds, 0))*time.Second
	return d.call(ctx, "stop VM "+id, timeout, func(ctx context.Context, c client) error {
		if graceSeconds > 0 {
			inst, err := ours(c, id)
			if err != nil {
				return err
			}
			if inst.StatusCode == api.Running {
				op, err := setState(c, inst, "stop", false, graceSeconds)
				if err == nil {
					_, err = wait(c, op)
				}
				if err == nil || ctx.Err() != nil {
					return err
				}
			}
		}
		return change(ctx, c, id, stubbornly, func(inst *api.Instance) (incus.Operation, error) {
			if inst.StatusCode == api.Stopped {
				return nil, nil
			}
			return setState(c, inst, "stop", true, -1)
		})
	})
}

// DeleteVM implements hypervisor.Driver.
func (d *Driver) DeleteVM(ctx context.Context, id string) error {
	err := d.call(ctx, "delete VM "+id, changeTimeout, func(ctx context.Context, c client) error { return d.remove(ctx, c, id) })
	if err == nil {
		d.forgetConsole(id)
	}
	return err
}

// remove stops the instance by force and deletes it.
func (d *Driver) remove(ctx context.Context, c client, id string) error {
	err := change(ctx, c, id, stubbornly, func(inst *api.Instance) (incus.Operation, error) {
		if inst.StatusCode == api.Stopped {
			return c.DeleteInstance(inst.Name)
		}
		op, err := setState(c, inst, "stop", true, -1)
		if err == nil {
			_, err = wait(c, op)
		}
		if err != nil {
			return nil, err
		}
		return c.DeleteInstance(inst.Name)
	})
	if errors.Is(err, hypervisor.ErrNotFound) || api.StatusErrorCheck(err, http.StatusNotFound) {
		return nil
	}
	return err
}

func setState(c client, inst *api.Instance, action string, force bool, timeout int) (incus.Operation, error) {
	return c.UpdateInstanceState(inst.Name, api.InstanceStatePut{Action: action, Force: force, Timeout: timeout}, "")
}

// How change treats a refusal that has no reason to be seen: after a start that failed, LXD
// is busy with the instance for a while without an operation that would tell so.
const (
	once       = 0
	stubbornly = 6 // pauses, each twice the one before: 12 s in all
)

// change looks at an instance of ours, does what step says, and waits for it. step returns nil
// when nothing is to be done. The daemon refuses to work on an instance it is at work on (for a call of
// ours that was cut off, or another's): then change waits for that to end and looks again.
func change(ctx context.Context, c client, id string, pauses int, step func(*api.Instance) (incus.Operation, error)) error {
	const looks = 5
	pause := 200 * time.Millisecond
	for look := 1; ; {
		inst, err := ours(c, id)
		if err != nil {
			return err
		}
		op, err := step(inst)
		if err == nil && op == nil {
			return nil
		}
		if err == nil {
			_, err = wait(c, op)
		}
		if err == nil || !isAnswer(err) {
			return err
		}
		busy, busyErr := waitBusy(c, inst.Name)
		switch {
		case busyErr != nil:
			return err
		case (busy || !unchanged(c, inst)) && look < looks:
			look++
		case pauses > 0:
			select {
			case <-ctx.Done():
				return err
			case <-time.After(pause):
			}
			pauses--
			pause *= 2
		default:
			return err
		}
	}
}

// unchanged reports whether an instance is as it was seen; if not, what just failed may work now or need not be done.
func unchanged(c client, seen *api.Instance) bool {
	now, _, err := c.GetInstance(seen.Name)
	return err == nil && now.StatusCode == seen.StatusCode
}

// waitBusy waits for running operations on an instance, and reports whether there were any.
func waitBusy(c client, name string) (bool, error) {
	operations, err := c.GetOperations()
	if err != nil {
		return false, err
	}
	busy := false
	for _, op := range operations {
		// Sessions of people (exec, console) are operations as well, and keep nobody from working.
		if op.Class != "task" || op.StatusCode.IsFinal() || !slices.ContainsFunc(op.Resources["instances"], func(url string) bool {
			return strings.HasSuffix(url, "/"+name)
		}) {
			continue
		}
		busy = true
		// How it ends is for the next look to see; that its record is gone means that it has ended.
		if _, err := waitID(c, op.ID); err != nil && !isAnswer(err) {
			return true, err
		}
	}
	return busy, nil
}
