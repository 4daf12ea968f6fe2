package kubernetes

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
)

// Limits that keep a node's name, CLUSTER-POOL-NUMBER, within the 63
// characters of a host name: 36 + 1 + 20 + 1 + 4 (MaxWorkers has 4 digits).
const (
	maxClusterPart = 36
	maxPoolName    = 20
)

// Nodes are the master and then the workers, pool by pool. A node's name is its
// host name and its name in Kubernetes; it is lower case, as both demand, and
// starts with the cluster's, so that people can tell the VMs of clusters apart.
func (Kind) Nodes(c *model.Cluster) []kind.NodeSpec {
	prefix := clusterPart(c.Name)
	var nodes []kind.NodeSpec
	for i := range c.ControlPlane.Count {
		nodes = append(nodes, kind.NodeSpec{
			Name:       fmt.Sprintf("%s-%s-%d", prefix, RoleMaster, i),
			Role:       RoleMaster,
			Flavor:     c.ControlPlane.Flavor,
			DiskFlavor: c.ControlPlane.DiskFlavor,
			SpreadBy:   RoleMaster,
		})
	}
	for _, p := range c.Pools {
		label := poolPart(p.Name)
		for _, i := range p.NodeNumbers() {
			nodes = append(nodes, kind.NodeSpec{
				Name:       fmt.Sprintf("%s-%s-%d", prefix, label, i),
				Role:       RoleWorker,
				Pool:       p.Name,
				Flavor:     p.Flavor,
				DiskFlavor: p.DiskFlavor,
				SpreadBy:   RoleWorker + "/" + p.Name,
			})
		}
	}
	return nodes
}

// clusterPart is the cluster's name as it begins its nodes' names. A long one is
// cut, and told apart from others that begin alike by a hash.
func clusterPart(name string) string {
	name = strings.ToLower(name)
	if len(name) <= maxClusterPart {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:maxClusterPart-7] + "-" + hex.EncodeToString(sum[:3])
}

// poolPart is how a pool shows in its nodes' names: the default pool's are
// called worker, as Photon called them.
func poolPart(pool string) string {
	if pool == DefaultPool {
		return RoleWorker
	}
	return pool
}
