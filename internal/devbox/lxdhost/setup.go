package lxdhost

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"

	incus "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"
)

// setUp gives a fresh daemon its pool, its network, its default profile and its
// address. Each part is looked up first, so that a set-up cut off goes on.
func setUp(ctx context.Context, c Config, progress func(string)) error {
	client, err := dial(ctx, c)
	if err != nil {
		return err
	}
	if err := setUpPool(client, c, progress); err != nil {
		return err
	}
	if err := setUpNetwork(client, c, progress); err != nil {
		return err
	}
	if err := setUpProfile(client, c); err != nil {
		return err
	}
	server, etag, err := client.GetServer()
	if err != nil {
		return fmt.Errorf("read the settings of LXD: %w", err)
	}
	want := server.Writable()
	want.Config["images.auto_update_interval"] = "0"
	if c.HTTPSAddress != "" {
		want.Config["core.https_address"] = c.HTTPSAddress
	}
	if err := client.UpdateServer(want, etag); err != nil {
		return fmt.Errorf("set the address of LXD to %q: %w", c.HTTPSAddress, err)
	}
	return nil
}

func setUpPool(client incus.InstanceServer, c Config, progress func(string)) error {
	_, _, err := client.GetStoragePool(poolName)
	if err == nil {
		return nil
	}
	if !api.StatusErrorCheck(err, http.StatusNotFound) {
		return fmt.Errorf("look for the storage pool: %w", err)
	}
	if why := lacksBtrfs(); why != "" {
		progress("no copy on write for instances: " + why)
	} else {
		pool := api.StoragePoolsPost{Name: poolName, Driver: "btrfs"}
		pool.Config = map[string]string{"size": strconv.FormatInt(c.PoolSize, 10) + "B"}
		err := client.CreateStoragePool(pool)
		if err == nil {
			return nil
		}
		progress(fmt.Sprintf("no copy on write for instances: no btrfs pool could be made: %v", err))
	}
	if err := client.CreateStoragePool(api.StoragePoolsPost{Name: poolName, Driver: "dir"}); err != nil {
		return fmt.Errorf("make the storage pool: %w", err)
	}
	return nil
}

// lacksBtrfs says why there can be no btrfs pool, or nothing. Where the kernel's
// modules can be loaded, only trying would tell; LXD tries then.
func lacksBtrfs() string {
	if _, err := exec.LookPath("mkfs.btrfs"); err != nil {
		return "mkfs.btrfs is missing (package btrfs-progs)"
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return "this machine has no loop devices"
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil || strings.Contains(string(known), "\tbtrfs\n") {
		return ""
	}
	if _, err := exec.LookPath("modprobe"); err != nil {
		return "the kernel has no btrfs"
	}
	return ""
}

func setUpNetwork(client incus.InstanceServer, c Config, progress func(string)) error {
	network, _, err := client.GetNetwork(c.Bridge)
	switch {
	case err == nil && network.Managed == c.CreateBridge:
		return nil
	case err == nil:
		return fmt.Errorf("interface %s exists, and is not a network of this daemon", c.Bridge)
	case !api.StatusErrorCheck(err, http.StatusNotFound):
		return fmt.Errorf("look for network %s: %w", c.Bridge, err)
	case !c.CreateBridge:
		return fmt.Errorf("there is no bridge %s to join", c.Bridge)
	}
	progress(fmt.Sprintf("making bridge %s with %s", c.Bridge, c.Address))
	_, _, first, last := c.Ranges()
	post := api.NetworksPost{Name: c.Bridge, Type: "bridge"}
	post.Config = map[string]string{
		"ipv4.address":     c.Address.String(),
		"ipv4.nat":         "true",
		"ipv4.dhcp.ranges": rangeOf(first, last),
		"ipv6.address":     "none",
	}
	if err := client.CreateNetwork(post); err != nil {
		return fmt.Errorf("make network %s: %w", c.Bridge, err)
	}
	return nil
}

func rangeOf(first, last netip.Addr) string { return first.String() + "-" + last.String() }

// setUpProfile gives instances made by hand (lxc launch) a root disk and a network;
// the driver's own instances use no profile.
func setUpProfile(client incus.InstanceServer, c Config) error {
	profile, etag, err := client.GetProfile("default")
	if err != nil {
		return fmt.Errorf("read the default profile: %w", err)
	}
	nic := map[string]string{"type": "nic", "name": "eth0", "network": c.Bridge}
	if !c.CreateBridge {
		nic = map[string]string{"type": "nic", "name": "eth0", "nictype": "bridged", "parent": c.Bridge}
	}
	want := profile.Writable()
	want.Devices = map[string]map[string]string{
		"eth0": nic,
		"root": {"type": "disk", "path": "/", "pool": poolName},
	}
	if err := client.UpdateProfile("default", want, etag); err != nil {
		return fmt.Errorf("write the default profile: %w", err)
	}
	return nil
}
