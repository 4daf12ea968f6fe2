package lxd

import (
	"context"
	"slices"

	"github.com/lxc/incus/v6/shared/api"
)

// unpackingPools are drivers of pools that keep an unpacked copy of an image
// and clone it for each instance. The others unpack it for each one anew.
var unpackingPools = []string{"btrfs", "ceph", "lvm", "zfs"}

// unpack has the host unpack a new image into its pools. LXD does so when the
// first instance is made of it, which for a node image takes seconds: they are
// better spent while the image is replicated than while somebody waits for a
// cluster. There is no request for that alone, so an instance is made and
// deleted. It is worth no error: where it fails, the first VM waits, or says why.
func unpack(ctx context.Context, c client, imageID, fingerprint string) {
	pools, err := c.GetStoragePools()
	if err != nil {
		return
	}
	name := "pleiad-unpack-" + imageID[:min(len(imageID), 36)]
	for _, p := range pools {
		if !slices.Contains(unpackingPools, p.Driver) || ctx.Err() != nil {
			continue
		}
		deleteUnpacked(c, name) // one that was cut off left it
		post := api.InstancesPost{Name: name, Type: api.InstanceTypeContainer}
		post.Source = api.InstanceSource{Type: "image", Fingerprint: fingerprint}
		post.Profiles = []string{}
		post.Description = "unpacks an image, and goes"
		post.Devices = api.DevicesMap{"root": {"type": "disk", "path": "/", "pool": p.Name}}
		op, err := c.CreateInstance(post)
		if err == nil {
			_, _ = wait(c, op)
		}
		deleteUnpacked(c, name)
	}
}

func deleteUnpacked(c client, name string) {
	if op, err := c.DeleteInstance(name); err == nil {
		_, _ = wait(c, op)
	}
}
