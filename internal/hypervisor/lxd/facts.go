package lxd

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/lxc/incus/v6/shared/api"

	"github.com/pleiad/pleiad/internal/model"
)

// localLimits are the kernel limits read where the daemon is on this machine; a
// remote daemon does not tell them.
var localLimits = []string{"fs.inotify.max_user_instances", "fs.inotify.max_user_watches"}

// Facts implements hypervisor.Driver. Networks are those LXD manages and other
// bridges of the host. Limits are there only for a daemon on this machine.
func (d *Driver) Facts(ctx context.Context) (model.HostFacts, error) {
	var facts model.HostFacts
	err := d.call(ctx, "tell its capacity", queryTimeout, func(_ context.Context, c client) error {
		server, _, err := c.GetServer()
		if err != nil {
			return err
		}
		env := server.Environment
		facts = model.HostFacts{
			Hypervisor:   env.Server + " " + env.ServerVersion,
			Architecture: env.KernelArchitecture,
			Kernel:       env.KernelVersion,
		}
		resources, err := c.GetServerResources()
		if err != nil {
			return err
		}
		facts.Capacity.MilliCPU = int64(resources.CPU.Total) * 1000
		facts.Capacity.Memory = int64(resources.Memory.Total)
		if facts.Datastores, err = datastores(c); err != nil {
			return err
		}
		for _, ds := range facts.Datastores {
			facts.Capacity.Disk += ds.Capacity
		}
		networks, err := c.GetNetworks()
		if err != nil {
			return err
		}
		for _, n := range networks {
			if n.Managed || n.Type == "bridge" {
				facts.Networks = append(facts.Networks, n.Name)
			}
		}
		if d.onThisMachine(env) {
			facts.Limits, err = readLimits()
		}
		return err
	})
	return facts, err
}

func datastores(c client) ([]model.HostDatastore, error) {
	pools, err := c.GetStoragePools()
	if err != nil {
		return nil, err
	}
	var list []model.HostDatastore
	for _, p := range pools {
		r, err := c.GetStoragePoolResources(p.Name)
		if err != nil {
			return nil, err
		}
		list = append(list, model.HostDatastore{
			Name: p.Name, Type: p.Driver,
			Capacity: int64(r.Space.Total), Free: int64(r.Space.Total - min(r.Space.Used, r.Space.Total)),
		})
	}
	return list, nil
}

// onThisMachine makes sure of it by the daemon's process: an address of ours may
// be forwarded elsewhere, and a socket may be mounted into the container we run in.
func (d *Driver) onThisMachine(env api.ServerEnvironment) bool {
	if !d.local {
		return false
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", env.ServerPid))
	return err == nil && strings.HasPrefix(strings.TrimSpace(string(comm)), env.Server)
}

func readLimits() (map[string]int64, error) {
	limits := map[string]int64{}
	for _, key := range localLimits {
		data, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
		if err != nil {
			return nil, err
		}
		if limits[key], err = strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return limits, nil
}
