package lxd

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/lxc/incus/v6/shared/api"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
)

// Keys of an instance that make it ours.
const (
	keyID      = "user.pleiad.id"
	keyName    = "user.pleiad.name"
	keyOwner   = "user.pleiad.owner"
	keyAddress = "user.pleiad.address"
	keyTag     = "user.pleiad.tag."
	// keyMade is written when the instance is whole: one without it was cut off half-way.
	keyMade = "user.pleiad.made"
)

const keyUserData = "cloud-init.user-data"

var (
	idPattern    = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{0,54}$`) // with the prefix a host name
	labelPattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)
)

func checkID(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("id %q cannot be part of a name on the host", id)
	}
	return nil
}

func instanceName(id string) string { return "pleiad-" + id }

// A cluster node runs containers itself: it is privileged, so that kubelet and
// containerd may mount, make device nodes and write its own control groups.
//
// systemd leaves the co-mounted cpu and cpuacct groups empty unless the whole tree is
// mounted writable (cgroup:rw:force), and limits of inner containers fail. The rules
// for devices are there twice, because LXC heeds those of the host's version of
// control groups and ignores the other.
var nodeLXC = []string{
	"lxc.mount.auto = cgroup:rw:force",
	"lxc.mount.auto = proc:rw sys:rw",
	"lxc.cap.drop =",
	"lxc.cgroup.devices.allow = a",
	"lxc.cgroup2.devices.allow = a",
}

// kmsg is where kubelet looks for processes that the kernel killed for want of memory.
var kmsg = map[string]string{"type": "unix-char", "source": "/dev/kmsg", "path": "/dev/kmsg"}

// instanceOf says what instance a spec is, on this host.
func instanceOf(c client, spec hypervisor.VMSpec) (api.InstancesPost, error) {
	post := api.InstancesPost{Name: instanceName(spec.ID), Type: api.InstanceTypeContainer}
	post.Source = api.InstanceSource{Type: "image", Alias: imageAlias(spec.ImageID)}
	post.Profiles = []string{} // nil would be the default profile
	post.Description = spec.Name
	post.Config = api.ConfigMap{
		keyID: spec.ID, keyName: spec.Name, keyOwner: spec.Owner,
		// After a power loss the controller decides what starts, and where.
		"boot.autostart": "false",
	}
	if len(spec.UserData) > 0 {
		post.Config[keyUserData] = string(spec.UserData)
	}
	for k, v := range spec.Tags {
		post.Config[keyTag+k] = v
	}
	limits(post.Config, spec.Resources)
	var lxc []string
	if labelPattern.MatchString(spec.Name) {
		lxc = append(lxc, "lxc.uts.name = "+spec.Name)
	}
	root, err := rootDisk(c, spec)
	if err != nil {
		return post, err
	}
	post.Devices = api.DevicesMap{"root": root}
	if spec.Node {
		post.Config["security.privileged"] = "true"
		post.Config["security.nesting"] = "true"
		lxc = append(lxc, nodeLXC...)
		post.Devices["kmsg"] = kmsg
	}
	if len(lxc) > 0 {
		post.Config["raw.lxc"] = strings.Join(lxc, "\n")
	}
	var addresses []string
	for i, n := range spec.Networks {
		device := fmt.Sprintf("eth%d", i)
		if post.Devices[device], err = nic(c, device, n); err != nil {
			return post, err
		}
		if n.IPAddress != "" {
			addresses = append(addresses, n.IPAddress)
		}
	}
	post.Config[keyAddress] = strings.Join(addresses, " ")
	return post, nil
}

// limits bounds CPU and memory. Whole CPUs are a set of that size, so that programs inside
// see as many; a fraction is a share of time on one more.
func limits(config api.ConfigMap, r model.Capacity) {
	if r.MilliCPU > 0 {
		config["limits.cpu"] = strconv.FormatInt((r.MilliCPU+999)/1000, 10)
		if r.MilliCPU%1000 != 0 {
			config["limits.cpu.allowance"] = fmt.Sprintf("%dms/100ms", max(r.MilliCPU/10, 1))
		}
	}
	if r.Memory > 0 {
		config["limits.memory"] = strconv.FormatInt(r.Memory, 10) + "B"
	}
}

func rootDisk(c client, spec hypervisor.VMSpec) (map[string]string, error) {
	pools, err := c.GetStoragePools()
	if err != nil {
		return nil, err
	}
	if len(pools) == 0 {
		return nil, errors.New("the host has no storage pool")
	}
	pool := pools[0]
	if spec.Datastore != "" {
		found := false
		for _, p := range pools {
			if p.Name == spec.Datastore {
				pool, found = p, true
			}
		}
		if !found {
			return nil, fmt.Errorf("the host has no storage pool %s", spec.Datastore)
		}
	}
	disk := map[string]string{"type": "disk", "path": "/", "pool": pool.Name}
	// A pool that is a plain directory can bound its volumes only with project quotas, which are rarely on.
	if spec.Resources.Disk > 0 && pool.Driver != "dir" {
		disk["size"] = strconv.FormatInt(spec.Resources.Disk, 10) + "B"
	}
	return disk, nil
}

// nic connects to a network that LXD manages, or to any bridge of the host.
func nic(c client, device string, n model.VMNetwork) (map[string]string, error) {
	network, _, err := c.GetNetwork(n.Network)
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", n.Network, err)
	}
	d := map[string]string{"type": "nic", "name": device}
	if n.MACAddress != "" {
		d["hwaddr"] = n.MACAddress
	}
	if !network.Managed {
		if network.Type != "bridge" {
			return nil, fmt.Errorf("network %s is neither a network of LXD nor a bridge", n.Network)
		}
		d["nictype"], d["parent"] = "bridged", n.Network
		return d, nil
	}
	d["network"] = n.Network
	// Where LXD gives out addresses, it is to give this VM its own.
	if reservable(network, n.IPAddress) {
		d["ipv4.address"] = n.IPAddress
	}
	return d, nil
}

func reservable(network *api.Network, address string) bool {
	addr, err := netip.ParseAddr(address)
	if err != nil || network.Type != "bridge" || network.Config["ipv4.dhcp"] == "false" {
		return false
	}
	subnet, err := netip.ParsePrefix(network.Config["ipv4.address"])
	return err == nil && subnet.Contains(addr)
}
