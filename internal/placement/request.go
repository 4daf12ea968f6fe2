package placement

import "github.com/pleiad/pleiad/internal/model"

// Request asks for places for nodes that are made together, e.g. those of a
// cluster. All get one or none does.
type Request struct {
	Nodes []Node
	// Peers are nodes that are placed already and count for spreading.
	Peers []Peer
}

// Node is a VM that needs a place. Empty wishes mean any.
type Node struct {
	// Name is for messages and for telling placements apart.
	Name      string
	Resources model.Capacity
	// Networks are names of networks on the hosts, one of which the host must have.
	Networks []string
	Image    Image
	// Zones are those allowed, NotZones those forbidden.
	Zones, NotZones []string
	// Hosts are ids of those allowed, NotHosts of those forbidden.
	Hosts, NotHosts []string
	// Tags must all be on the host.
	Tags []string
	// Datastore is the one that the disks must go to.
	Datastore string
	// SpreadBy is a label: nodes with the same one are spread over hosts, then zones.
	SpreadBy string
	// Apart forbids a second node of the label on a host; without it, spreading is a wish.
	Apart bool
}

// Image is what matters of the image a node starts from.
type Image struct {
	ID string
	// Architecture is the host's, e.g. x86_64.
	Architecture string
	// Formats are those of the payloads in the image, one of which the host must take.
	Formats []string
}

// Peer is a node placed before.
type Peer struct {
	SpreadBy string
	HostID   string
}

// Placement is the place of one node.
type Placement struct {
	Node   string
	HostID string
	// Datastore is empty only if the host has none and the node needs no storage.
	Datastore string
	Resources model.Capacity
	// CopyImage says that the host does not have the image yet.
	CopyImage bool
}

// Host is what matters of a host.
type Host struct {
	ID    string
	Zone  string
	Tags  []string
	State model.HostState
	// Silent says that the host did not answer when it was last asked: what is put there would wait for it.
	Silent bool
	// Architecture and Formats (of images) are what the host runs; empty matches any.
	Architecture string
	Formats      []string
	Networks     []string
	// Images are ids of those the host has a copy of.
	Images []string
	// Capacity is what the host has, before overcommitment; Used is what is reserved of it. Storage
	// is counted by datastore: Capacity.Disk is not looked at.
	Capacity, Used model.Capacity
	Datastores     []Datastore
	// MaxVMs is how many VMs the host's kernel limits carry, 0 for any number; Limit
	// names the limit for messages, e.g. "fs.inotify.max_user_instances 128".
	MaxVMs int
	Limit  string
	// VMs are on the host now.
	VMs int
}

// Datastore is storage of a host, in bytes.
type Datastore struct {
	Name string
	// Capacity is what VMs may reserve in all, Used what is reserved.
	Capacity, Used int64
}

// Policy is how an operator wants hosts to be used.
type Policy struct {
	// CPUOvercommit is how many virtual CPUs may be reserved for each the host has, at least 1.
	CPUOvercommit float64
	// ImagePrice is how much larger a share of a host without the image must be free before it is
	// preferred to one that has it, 0 to 1.
	ImagePrice float64
}

// DefaultPolicy overcommits CPU fourfold: nodes of clusters idle most of the time,
// and a CPU, unlike memory, can be shared without anything failing. An image's copy is worth a tenth of a host.
var DefaultPolicy = Policy{CPUOvercommit: 4, ImagePrice: 0.1}
