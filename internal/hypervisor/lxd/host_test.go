package lxd_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lxc/incus/v6/shared/api"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/hypervisor/lxd/lxdtest"
	"github.com/pleiad/pleiad/internal/model"
)

// TestOnTheHost looks at what the driver leaves on the host with the operator's eyes: two hosts,
// the second on the bridge of the first.
func TestOnTheHost(t *testing.T) {
	image := lxdtest.BuildImage(t)
	first := lxdtest.StartHost(t, "100.64.215.1/24")
	second := lxdtest.StartSecond(t, first)
	ensured := hypervisor.Image{ID: uuid.NewString(), Name: "tiny", SHA256: image.SHA256}
	drivers := map[string]hypervisor.Driver{}
	for name, h := range map[string]lxdtest.Host{"first": first, "second": second} {
		drivers[name] = connect(t, hypervisor.Target{Address: "unix:" + h.Socket})
		if err := drivers[name].EnsureImage(t.Context(), ensured, func() (hypervisor.Payload, error) { return payload(image), nil }); err != nil {
			t.Fatal(err)
		}
	}
	create := func(t *testing.T, host string, change func(*hypervisor.VMSpec)) hypervisor.VMSpec {
		t.Helper()
		spec := hypervisor.VMSpec{
			ID: uuid.NewString(), Name: "demo-worker-1", ImageID: ensured.ID, Owner: "here",
			Networks: []model.VMNetwork{{Network: first.Config.Bridge, MACAddress: "02:00:00:00:d7:01", IPAddress: "100.64.215.30", Prefix: 24}},
		}
		change(&spec)
		t.Cleanup(func() {
			if err := drivers[host].DeleteVM(context.Background(), spec.ID); err != nil {
				t.Error(err)
			}
		})
		if _, err := drivers[host].CreateVM(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		return spec
	}
	instance := func(t *testing.T, h lxdtest.Host, id string) api.Instance {
		t.Helper()
		inst, _, err := raw(t, h).GetInstance("pleiad-" + id)
		if err != nil {
			t.Fatal(err)
		}
		return *inst
	}

	t.Run("a VM is tagged, limited, and no more than it must be", func(t *testing.T) {
		spec := create(t, "first", func(s *hypervisor.VMSpec) {
			s.Resources = model.Capacity{MilliCPU: 1500, Memory: 128 << 20, Disk: 512 << 20}
			s.Tags = map[string]string{"cluster": "demo"}
			s.UserData = []byte("#cloud-config\n")
		})
		inst := instance(t, first, spec.ID)
		got := maps.Clone(inst.Config)
		maps.DeleteFunc(got, func(k, _ string) bool { return strings.HasPrefix(k, "volatile.") || strings.HasPrefix(k, "image.") })
		want := map[string]string{
			"user.pleiad.id": spec.ID, "user.pleiad.name": "demo-worker-1", "user.pleiad.owner": "here", "user.pleiad.made": "true",
			"user.pleiad.address": "100.64.215.30", "user.pleiad.tag.cluster": "demo", "cloud-init.user-data": "#cloud-config\n",
			"limits.cpu": "2", "limits.cpu.allowance": "150ms/100ms", "limits.memory": "134217728B",
			"boot.autostart": "false", "raw.lxc": "lxc.uts.name = demo-worker-1",
		}
		if !maps.Equal(got, want) {
			t.Errorf("config %v, want %v", got, want)
		}
		if len(inst.Profiles) != 0 || len(inst.Devices) != 2 || inst.Devices["root"]["size"] != "536870912B" {
			t.Errorf("profiles %v, devices %v", inst.Profiles, inst.Devices)
		}
		eth0 := map[string]string{"type": "nic", "name": "eth0", "network": first.Config.Bridge, "hwaddr": "02:00:00:00:d7:01", "ipv4.address": "100.64.215.30"}
		if !maps.Equal(inst.Devices["eth0"], eth0) {
			t.Errorf("eth0 is %v, want %v", inst.Devices["eth0"], eth0)
		}
		if err := drivers["first"].StartVM(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		until(t, "its name inside", func() bool {
			text, err := drivers["first"].ConsoleTail(t.Context(), spec.ID, 4096)
			return err == nil && strings.Contains(text, "up as demo-worker-1")
		})
	})

	t.Run("a node may run containers", func(t *testing.T) {
		spec := create(t, "first", func(s *hypervisor.VMSpec) { s.Node = true; s.Resources.MilliCPU = 2000 })
		inst := instance(t, first, spec.ID)
		if inst.Config["security.privileged"] != "true" || inst.Config["security.nesting"] != "true" ||
			!strings.Contains(inst.Config["raw.lxc"], "cgroup:rw:force") || inst.Devices["kmsg"]["source"] != "/dev/kmsg" {
			t.Errorf("config %v, devices %v", inst.Config, inst.Devices)
		}
		if inst.Config["limits.cpu"] != "2" || inst.Config["limits.cpu.allowance"] != "" {
			t.Errorf("two whole CPUs are %v", inst.Config)
		}
	})

	t.Run("a second host on the same bridge", func(t *testing.T) {
		facts, err := drivers["second"].Facts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.Join(facts.Networks, " "), first.Config.Bridge) {
			t.Errorf("networks %v lack the bridge", facts.Networks)
		}
		spec := create(t, "second", func(*hypervisor.VMSpec) {})
		eth0 := instance(t, second, spec.ID).Devices["eth0"]
		if want := map[string]string{"type": "nic", "name": "eth0", "nictype": "bridged", "parent": first.Config.Bridge, "hwaddr": "02:00:00:00:d7:01"}; !maps.Equal(eth0, want) {
			t.Errorf("eth0 is %v, want %v", eth0, want)
		}
		if err := drivers["second"].StartVM(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		until(t, "an address from the first host's DHCP", func() bool {
			vm, err := drivers["second"].VM(t.Context(), spec.ID)
			return err == nil && len(vm.Addresses) == 1 && strings.HasPrefix(vm.Addresses[0], "100.64.215.")
		})
		if _, err := drivers["first"].VM(t.Context(), spec.ID); !errors.Is(err, hypervisor.ErrNotFound) {
			t.Errorf("the first host knows the second's VM: %v", err)
		}
	})

	t.Run("a VM that was half-made is made anew", func(t *testing.T) {
		id := uuid.NewString()
		empty(t, raw(t, first), "pleiad-"+id, map[string]string{"user.pleiad.id": id, "user.pleiad.owner": "here"})
		spec := create(t, "first", func(s *hypervisor.VMSpec) { s.ID = id })
		if inst := instance(t, first, spec.ID); inst.Config["user.pleiad.made"] != "true" || len(inst.Devices) != 2 {
			t.Errorf("it is %+v", inst)
		}
		if err := drivers["first"].StartVM(t.Context(), id); err != nil {
			t.Error(err)
		}
	})

	t.Run("an instance with our name that is not ours is left alone", func(t *testing.T) {
		id := uuid.NewString()
		c := raw(t, first)
		empty(t, c, "pleiad-"+id, nil)
		d := drivers["first"]
		if _, err := d.VM(t.Context(), id); !errors.Is(err, hypervisor.ErrNotFound) {
			t.Errorf("look up: %v", err)
		}
		if _, err := d.CreateVM(t.Context(), hypervisor.VMSpec{ID: id, ImageID: ensured.ID}); !errors.Is(err, model.ErrorOf(model.CodeHypervisorError)) {
			t.Errorf("create: %v", err)
		}
		if err := d.StartVM(t.Context(), id); !errors.Is(err, hypervisor.ErrNotFound) {
			t.Errorf("start: %v", err)
		}
		if err := d.DeleteVM(t.Context(), id); err != nil {
			t.Errorf("delete: %v", err)
		}
		if inst, _, err := c.GetInstance("pleiad-" + id); err != nil || inst.Config["user.pleiad.id"] != "" {
			t.Errorf("it is %+v, %v", inst, err)
		}
	})

	t.Run("a start that fails says why", func(t *testing.T) {
		spec := create(t, "first", func(s *hypervisor.VMSpec) { s.Name = "broken" })
		c := raw(t, first)
		inst, etag, err := c.GetInstance("pleiad-" + spec.ID)
		if err != nil {
			t.Fatal(err)
		}
		want := inst.Writable()
		want.Config["raw.lxc"] = "lxc.init.cmd = /no/such/program"
		op, err := c.UpdateInstance(inst.Name, want, etag)
		if err == nil {
			err = op.Wait()
		}
		if err != nil {
			t.Fatal(err)
		}
		err = drivers["first"].StartVM(t.Context(), spec.ID)
		var e *model.Error
		if !errors.As(err, &e) || e.Code != model.CodeHypervisorError || !strings.Contains(e.Data["log"], "/no/such/program") {
			t.Errorf("error %v, data %v", err, e)
		}
		// Right after a start that failed, LXD is busy with the instance without saying so.
		if err := drivers["first"].DeleteVM(t.Context(), spec.ID); err != nil {
			t.Errorf("delete: %v", err)
		}
	})

	t.Run("content somebody else uploaded is used and left", func(t *testing.T) {
		c := raw(t, second)
		aliases, err := c.GetImageAliases()
		if err != nil || len(aliases) != 1 {
			t.Fatalf("aliases %+v, %v", aliases, err)
		}
		// As if the operator had imported it: without our mark.
		img, etag, err := c.GetImage(aliases[0].Target)
		if err != nil {
			t.Fatal(err)
		}
		want := img.Writable()
		want.Properties = nil
		if err := c.UpdateImage(img.Fingerprint, want, etag); err != nil {
			t.Fatal(err)
		}
		if err := c.DeleteImageAlias(aliases[0].Name); err != nil {
			t.Fatal(err)
		}
		d := drivers["second"]
		if err := d.EnsureImage(t.Context(), ensured, func() (hypervisor.Payload, error) { return payload(image), nil }); err != nil {
			t.Fatal(err)
		}
		if err := d.DeleteImage(t.Context(), ensured.ID); err != nil {
			t.Fatal(err)
		}
		if left, _, err := c.GetImage(img.Fingerprint); err != nil || len(left.Aliases) != 0 {
			t.Errorf("the operator's image: %+v, %v", left, err)
		}
	})
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}
