// Package kubernetes is the cluster kind KUBERNETES: a kubeadm cluster with
// flannel, kube-proxy and CoreDNS, made from a node image that carries all of it.
//
// How a cluster comes to be, and why it is quick:
//
//   - The controller makes every key and certificate that kubeadm would make,
//     as soon as the addresses are known, so a node only writes files. The CA
//     keys of etcd and of the front proxy never leave the controller; that of
//     the cluster goes to the control plane, where the controller manager signs
//     the kubelets' certificates.
//   - The leader runs kubeadm init without its preflight: that phase is for
//     machines somebody prepared by hand, and refuses a second run, while all
//     other phases may be run again. So a node that dies in the middle goes on
//     by running the same step once more, and nothing is ever reset.
//   - Workers boot and prepare themselves beside the leader. The moment its API
//     and its bootstrap token are there, their kubelets start and join by TLS
//     bootstrap, which is what kubeadm join leads to; everything kubeadm join
//     would fetch from the API first is known here and given beforehand.
//   - The container runtime calls a node's network ready only once flannel has
//     its subnet, so no pod is started too early and then retried late.
//
// A cluster is READY when every node says that it is Ready and that the
// cluster's DNS answers there, through kube-proxy and the pod network.
//
// The package is pure: no I/O, no clock, no goroutines. All of it may be used
// by many goroutines at once. The decisions are in decide.go, what a node is
// told is in plan.go.
package kubernetes

import (
	"fmt"
	"net/netip"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
)

// Roles of nodes.
const (
	RoleMaster = "master"
	RoleWorker = "worker"
)

// Defaults of a spec. The flavors' names are Photon Controller's.
const (
	DefaultPool         = "workers"
	DefaultPodCIDR      = "10.244.0.0/16"
	DefaultServiceCIDR  = "10.96.0.0/12"
	DefaultMasterFlavor = "cluster-master-vm"
	DefaultOtherFlavor  = "cluster-other-vm"
	DefaultDiskFlavor   = "cluster-vm-disk"
)

// Keys of extended properties: the first is read from a spec that has no
// PodCIDR, the second is published. Both are Photon's.
const (
	propertyContainerNetwork = "container_network"
	propertyVersion          = "cluster_version"
)

// apiPort is where the API server listens on every control plane node.
const apiPort = 6443

// endpointAddress names the address of the API when it is not the master's own.
const endpointAddress = "endpoint"

// Operations of the task that makes a cluster. All but the network's are Photon's.
const (
	opInitiate = "CREATE_KUBERNETES_CLUSTER_INITIATE"
	opMaster   = "CREATE_KUBERNETES_CLUSTER_SETUP_MASTER"
	opWorkers  = "CREATE_KUBERNETES_CLUSTER_SETUP_WORKERS"
	opNetwork  = "CREATE_KUBERNETES_CLUSTER_SETUP_NETWORK"
	opPublish  = "CREATE_KUBERNETES_CLUSTER_UPDATE_EXTENDED_PROPERTIES"
	opRemove   = "RESIZE_KUBERNETES_CLUSTER_REMOVE_WORKERS"
)

// Kind implements kind.Kind. The zero value is ready to use.
type Kind struct{}

var _ kind.Kind = Kind{}

// Type is KUBERNETES.
func (Kind) Type() model.ClusterType { return model.Kubernetes }

// Default fills what the spec leaves open. A control plane of 0 nodes counts as
// left open: whoever must tell it from an omitted one refuses it before.
// The version is the image's, which the caller fills in.
func (Kind) Default(c *model.Cluster) {
	if c.ControlPlane.Count == 0 {
		c.ControlPlane.Count = 1
	}
	defaultFlavors(&c.ControlPlane, DefaultMasterFlavor)

	if len(c.Pools) == 0 {
		c.Pools = []model.Pool{{Name: DefaultPool, NodeGroup: model.NodeGroup{Count: c.WorkerCount}}}
	}
	workers := 0
	for i := range c.Pools {
		if c.Pools[i].Name == "" {
			c.Pools[i].Name = DefaultPool
		}
		defaultFlavors(&c.Pools[i].NodeGroup, DefaultOtherFlavor)
		workers += c.Pools[i].Count
	}
	if c.WorkerCount == 0 {
		c.WorkerCount = workers
	}

	if c.PodCIDR == "" {
		c.PodCIDR = c.ExtendedProperties[propertyContainerNetwork]
	}
	if c.PodCIDR == "" {
		c.PodCIDR = DefaultPodCIDR
	}
	if c.ServiceCIDR == "" {
		c.ServiceCIDR = DefaultServiceCIDR
	}
}

func defaultFlavors(g *model.NodeGroup, vm string) {
	if g.Flavor == "" {
		g.Flavor = vm
	}
	if g.DiskFlavor == "" {
		g.DiskFlavor = DefaultDiskFlavor
	}
}

// Addresses is empty: the API of a cluster with one master answers at that master.
func (Kind) Addresses(*model.Cluster) []string { return nil }

// Steps are the operations of the task that makes a cluster, or resizes it.
func (Kind) Steps(c *model.Cluster) []string {
	if c.State == model.ClusterResizing {
		return []string{opWorkers, opNetwork}
	}
	return []string{opInitiate, opMaster, opWorkers, opNetwork, opPublish}
}

// Removal is the draining of the nodes that are to go, until their VMs are gone.
func (Kind) Removal(*model.Cluster) []string { return []string{opRemove} }

// Access returns the administrator's kubeconfig.
func (Kind) Access(v kind.View) (map[string][]byte, error) {
	ca, haveCA := v.Secrets[secretCA]
	admin, haveAdmin := v.Secrets[secretAdmin]
	if v.Cluster.Endpoint == "" || !haveCA || !haveAdmin {
		return nil, model.Errorf(model.CodeStateError, "the API of cluster %s is not up yet", v.Cluster.Name).
			Do("wait for the cluster's task to complete")
	}
	file, err := clientConfig(v.Cluster, v.Cluster.Endpoint, ca, "kubernetes-admin", admin).yaml()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig of cluster %s: %w", v.Cluster.Name, err)
	}
	return map[string][]byte{"kubeconfig": file}, nil
}

// endpointURL is where the API answers at an address.
func endpointURL(a netip.Addr) string {
	return "https://" + netip.AddrPortFrom(a, apiPort).String()
}
