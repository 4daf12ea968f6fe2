package kubernetes

import (
	"net/netip"
	"regexp"

	"github.com/pleiad/pleiad/internal/model"
)

// nodeBits is the prefix length of the range of pod addresses of one node.
const nodeBits = 24

// Bounds of the prefix lengths of the cluster's ranges. A pod range may be at
// most 16 bits larger than a node's share of it, says the controller manager.
const (
	minPodBits     = nodeBits - 16
	minServiceBits = 12
	maxServiceBits = 24
)

var poolPattern = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)

// Validate refuses a spec that cannot be built, naming field and limit. That the
// ranges stay clear of the nodes' subnet, which a kind does not choose, is checked
// by who does.
func (k Kind) Validate(c *model.Cluster, image *model.NodeImage) error {
	if err := validateCounts(c); err != nil {
		return err
	}
	if err := validatePools(c); err != nil {
		return err
	}
	if err := validateImage(c, image); err != nil {
		return err
	}
	return validateRanges(c)
}

func validateCounts(c *model.Cluster) error {
	switch n := c.ControlPlane.Count; n {
	case 1:
	case 3, 5:
		return model.Errorf(model.CodeUnsupported,
			"controlPlane.count is %d; this version makes clusters with 1 control plane node only", n).
			Do("set controlPlane.count to 1")
	default:
		return model.Errorf(model.CodeInvalidEntity,
			"controlPlane.count must be 1, 3 or 5 (was %d): an even number of etcd members bears no more failures than one less", n)
	}
	workers := 0
	for _, p := range c.Pools {
		if p.Count < 0 {
			return model.Errorf(model.CodeInvalidEntity, "count of pool %s must be 0 or more (was %d)", p.Name, p.Count)
		}
		workers += p.Count
	}
	if c.WorkerCount != workers {
		return model.Errorf(model.CodeInvalidEntity,
			"workerCount is %d, but the pools have %d workers in all", c.WorkerCount, workers)
	}
	if workers > model.MaxWorkers {
		return model.Errorf(model.CodeInvalidEntity,
			"workerCount must be 0 to %d (was %d)", model.MaxWorkers, workers)
	}
	return nil
}

func validatePools(c *model.Cluster) error {
	seen := map[string]bool{}
	for _, p := range c.Pools {
		if len(p.Name) > maxPoolName || !poolPattern.MatchString(p.Name) {
			return model.Errorf(model.CodeInvalidEntity,
				"the name of a pool must be 1 to %d lower-case letters, digits and hyphens and start with a letter (was %q)",
				maxPoolName, p.Name)
		}
		// Names of nodes are made of them.
		if p.Name == RoleMaster || p.Name == RoleWorker {
			return model.Errorf(model.CodeInvalidEntity, "a pool cannot be called %q: that word is taken by a role", p.Name)
		}
		if seen[p.Name] {
			return model.Errorf(model.CodeInvalidEntity, "two pools are called %q", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

func validateImage(c *model.Cluster, image *model.NodeImage) error {
	if image == nil || image.ClusterType != string(model.Kubernetes) {
		return model.Errorf(model.CodeInvalidImageState, "image %s is not a node image for %s", c.ImageID, model.Kubernetes).
			Do("enable the cluster type with an image built for it")
	}
	if c.Version != image.Version {
		return model.Errorf(model.CodeInvalidEntity, "version %q is not in the image, which carries %s", c.Version, image.Version).
			Do("leave the version out, or enable the cluster type with an image of that version")
	}
	if _, err := newImages(image); err != nil {
		return err
	}
	return nil
}

func validateRanges(c *model.Cluster) error {
	pod, err := parseRange("podCidr", c.PodCIDR)
	if err != nil {
		return err
	}
	service, err := parseRange("serviceCidr", c.ServiceCIDR)
	if err != nil {
		return err
	}
	if pod.Bits() < minPodBits || pod.Bits() > nodeBits {
		return model.Errorf(model.CodeInvalidNetworkConfig,
			"podCidr %s must have a prefix of /%d to /%d: each node takes a /%d of it", pod, minPodBits, nodeBits, nodeBits)
	}
	nodes := c.ControlPlane.Count + c.WorkerCount
	if room := 1 << (nodeBits - pod.Bits()); nodes > room {
		return model.Errorf(model.CodeInvalidNetworkConfig,
			"podCidr %s has room for %d nodes of a /%d each, the cluster has %d", pod, room, nodeBits, nodes)
	}
	if service.Bits() < minServiceBits || service.Bits() > maxServiceBits {
		return model.Errorf(model.CodeInvalidNetworkConfig,
			"serviceCidr %s must have a prefix of /%d to /%d", service, minServiceBits, maxServiceBits)
	}
	return overlap("podCidr", pod, "serviceCidr", service)
}

func parseRange(field, s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		return p, model.Errorf(model.CodeInvalidNetworkConfig, "%s must be a range of IPv4 addresses such as 10.0.0.0/16 (was %q)", field, s)
	}
	if p != p.Masked() {
		return p, model.Errorf(model.CodeInvalidNetworkConfig, "%s %s has bits behind its prefix; did you mean %s?", field, s, p.Masked())
	}
	return p, nil
}

// overlap refuses two ranges that have addresses in common: kube-proxy and the
// pod network would send packets for one into the other.
func overlap(nameA string, a netip.Prefix, nameB string, b netip.Prefix) error {
	if !a.Overlaps(b) {
		return nil
	}
	return model.Errorf(model.CodeInvalidNetworkConfig, "%s %s and %s %s overlap", nameA, a, nameB, b).
		Do("choose ranges that have no address in common")
}
