package model

import "slices"

// VMState is the state of a VM.
type VMState string

// States of a VM, as in Photon's API.
const (
	VMCreating  VMState = "CREATING"
	VMStarted   VMState = "STARTED"
	VMSuspended VMState = "SUSPENDED"
	VMStopped   VMState = "STOPPED"
	VMError     VMState = "ERROR"
	VMDeleted   VMState = "DELETED"
)

// VM is a virtual machine or a system container. A VM with a ClusterID is a node of that cluster.
type VM struct {
	Meta
	State         VMState           `json:"state"`
	Flavor        string            `json:"flavor"`
	Cost          []QuotaLineItem   `json:"cost"`
	ProjectID     string            `json:"projectId"`
	SourceImageID string            `json:"sourceImageId"`
	Host          string            `json:"host,omitempty" doc:"Address of the host."`
	HostID        string            `json:"hostId,omitempty"`
	Datastore     string            `json:"datastore,omitempty"`
	AttachedDisks []AttachedDisk    `json:"attachedDisks"`
	Metadata      map[string]string `json:"metadata,omitempty"`
	Networks      []VMNetwork       `json:"networks,omitempty"`
	// Reserved is what the VM takes of its host.
	Reserved  Capacity `json:"reserved"`
	ClusterID string   `json:"clusterId,omitempty"`
	Role      string   `json:"role,omitempty" doc:"Role of a node in its cluster."`
	Pool      string   `json:"pool,omitempty" doc:"Pool of a worker node."`
	// Deleting is set once the VM is to go; it goes whatever its state.
	Deleting   bool        `json:"deleting,omitempty"`
	Error      *Error      `json:"error,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
}

// VMNetwork is a VM's connection to a subnet.
type VMNetwork struct {
	SubnetID   string   `json:"subnetId,omitempty"`
	Network    string   `json:"network" doc:"Name of the network on the host."`
	MACAddress string   `json:"macAddress"`
	IPAddress  string   `json:"ipAddress,omitempty"`
	Prefix     int      `json:"prefix,omitempty" doc:"Length of the network prefix."`
	Gateway    string   `json:"gateway,omitempty"`
	DNS        []string `json:"dns,omitempty"`
}

// AttachedDisk is a disk of a VM.
type AttachedDisk struct {
	ID         string `json:"id,omitempty"`
	Name       string `json:"name"`
	Kind       string `json:"kind"`
	Flavor     string `json:"flavor"`
	State      string `json:"state,omitempty"`
	CapacityGB int    `json:"capacityGb"`
	BootDisk   bool   `json:"bootDisk"`
}

// ClusterType names a kind of cluster.
type ClusterType string

// Cluster types.
const (
	Kubernetes ClusterType = "KUBERNETES"
	Swarm      ClusterType = "SWARM"
	Mesos      ClusterType = "MESOS"
	Nomad      ClusterType = "NOMAD"
)

// ClusterState is the state of a cluster.
type ClusterState string

// States of a cluster, as in Photon's v1.1 API.
const (
	ClusterCreating         ClusterState = "CREATING"
	ClusterResizing         ClusterState = "RESIZING"
	ClusterReady            ClusterState = "READY"
	ClusterPendingDelete    ClusterState = "PENDING_DELETE"
	ClusterRecoverableError ClusterState = "RECOVERABLE_ERROR"
	ClusterFatalError       ClusterState = "FATAL_ERROR"
)

// Limits of a cluster, in nodes.
const MaxWorkers = 1000

// Cluster is a cluster of VMs. Spec fields are what was asked for; State, Endpoint,
// Conditions and ExtendedProperties are what is.
type Cluster struct {
	Meta
	Type      ClusterType  `json:"type"`
	State     ClusterState `json:"state"`
	ProjectID string       `json:"projectId"`
	ImageID   string       `json:"imageId"`
	Version   string       `json:"version" example:"v1.37.1"`

	ControlPlane NodeGroup `json:"controlPlane"`
	// Pools are the workers; WorkerCount is their sum, Photon's field.
	Pools       []Pool `json:"pools"`
	WorkerCount int    `json:"workerCount"`

	SubnetID           string            `json:"subnetId,omitempty"`
	PodCIDR            string            `json:"podCidr,omitempty"`
	ServiceCIDR        string            `json:"serviceCidr,omitempty"`
	ExtendedProperties map[string]string `json:"extendedProperties"`
	// Endpoint is where the cluster's API answers, e.g. https://100.64.10.20:6443.
	Endpoint    string      `json:"endpoint,omitempty"`
	ErrorReason string      `json:"errorReason,omitempty"`
	Conditions  []Condition `json:"conditions,omitempty"`
	// Reserved is what the cluster has taken out of its project's quota, returned when it is gone.
	Reserved []QuotaLineItem `json:"reserved,omitempty"`
	// ForceDrain has nodes removed without regard for disruption budgets, and for
	// pods that nothing will make again.
	ForceDrain bool `json:"forceDrain,omitempty"`
	// TaskID is the task that is being worked on; empty when none is.
	TaskID string `json:"taskId,omitempty"`
}

// NodeGroup is a number of nodes of one flavor.
type NodeGroup struct {
	Count      int    `json:"count"`
	Flavor     string `json:"flavor"`
	DiskFlavor string `json:"diskFlavor,omitempty"`
}

// Pool is a named group of workers.
type Pool struct {
	Name string `json:"name"`
	NodeGroup
	// Numbers are those of its nodes, ascending, where they are not 0 to Count-1:
	// a node keeps its name when others go.
	Numbers []int `json:"numbers,omitempty"`
}

// NodeNumbers returns the numbers of the pool's nodes, ascending.
func (p Pool) NodeNumbers() []int {
	if len(p.Numbers) > 0 {
		return p.Numbers
	}
	numbers := make([]int, p.Count)
	for i := range numbers {
		numbers[i] = i
	}
	return numbers
}

// With returns the pool with more nodes, of the lowest numbers that are free.
func (p Pool) With(more int) Pool {
	numbers := slices.Clone(p.NodeNumbers())
	for n := 0; more > 0; n++ {
		if at, taken := slices.BinarySearch(numbers, n); !taken {
			numbers = slices.Insert(numbers, at, n)
			more--
		}
	}
	return p.numbered(numbers)
}

// Without returns the pool without the node of a number.
func (p Pool) Without(number int) Pool {
	numbers := slices.Clone(p.NodeNumbers())
	if at, ok := slices.BinarySearch(numbers, number); ok {
		numbers = slices.Delete(numbers, at, at+1)
	}
	return p.numbered(numbers)
}

func (p Pool) numbered(numbers []int) Pool {
	p.Count, p.Numbers = len(numbers), numbers
	if len(numbers) == 0 || numbers[len(numbers)-1] == len(numbers)-1 {
		p.Numbers = nil
	}
	return p
}
