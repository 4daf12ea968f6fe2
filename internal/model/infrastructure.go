package model

// Kinds of flavor.
const (
	FlavorVM             = "vm"
	FlavorEphemeralDisk  = "ephemeral-disk"
	FlavorPersistentDisk = "persistent-disk"
)

// State of a flavor, image, availability zone, subnet or deployment.
type State string

// States shared by the operator's objects.
const (
	StateCreating      State = "CREATING"
	StateReady         State = "READY"
	StatePendingDelete State = "PENDING_DELETE"
	StateError         State = "ERROR"
	StateDeleted       State = "DELETED"
)

// Flavor is a size: what a VM or disk of it costs. FlavorKind is Photon's "kind" of a flavor
// (vm, ephemeral-disk or persistent-disk), which is why Flavor does not embed Meta's.
type Flavor struct {
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	Kind        string          `json:"kind" enum:"vm,ephemeral-disk,persistent-disk"`
	SelfLink    string          `json:"selfLink,omitempty"`
	Tags        []string        `json:"tags,omitempty"`
	CreatedTime int64           `json:"createdTime,omitempty"`
	State       State           `json:"state"`
	Cost        []QuotaLineItem `json:"cost"`
}

// Image is a disk or node image, uploaded once and replicated to hosts.
type Image struct {
	Meta
	State           State  `json:"state"`
	Size            int64  `json:"size" doc:"Bytes of the uploaded file."`
	ReplicationType string `json:"replicationType" enum:"EAGER,ON_DEMAND"`
	// ReplicationProgress is how many of the hosts have the image, in percent, e.g. "50%".
	ReplicationProgress string         `json:"replicationProgress"`
	SeedingProgress     string         `json:"seedingProgress"`
	Settings            []ImageSetting `json:"settings"`
	// SHA256 of the uploaded file, hexadecimal.
	SHA256 string `json:"sha256,omitempty"`
	// Node describes a node image; nil for any other.
	Node *NodeImage `json:"nodeImage,omitempty"`
	// Formats are the payload formats in the file, e.g. "lxd".
	Formats []string `json:"formats,omitempty"`
	// Hosts is the state of the image's copy on each host, by host id.
	Hosts map[string]ImageCopy `json:"hosts,omitempty"`
}

// ImageCopy is an image's state on one host.
type ImageCopy struct {
	State State  `json:"state"`
	Error *Error `json:"error,omitempty"`
}

// NodeImage is what the manifest of a node image says of it.
type NodeImage struct {
	ClusterType  string `json:"clusterType" example:"KUBERNETES"`
	Version      string `json:"version" example:"v1.37.1"`
	Architecture string `json:"architecture" example:"x86_64"`
	// Components are versions of the parts inside, by short name.
	Components map[string]string `json:"components,omitempty"`
	// ContainerImages are references preloaded in the container runtime, by short name.
	ContainerImages map[string]string `json:"containerImages,omitempty"`
}

// ImageSetting is a default the image carries.
type ImageSetting struct {
	Name         string `json:"name"`
	DefaultValue string `json:"defaultValue"`
}

// Zone is an availability zone: hosts that fail together.
type Zone struct {
	Meta
	State State `json:"state"`
}

// HostState is the state of a host.
type HostState string

// States of a host, as in Photon's API.
const (
	HostCreating       HostState = "CREATING"
	HostNotProvisioned HostState = "NOT_PROVISIONED"
	HostReady          HostState = "READY"
	HostMaintenance    HostState = "MAINTENANCE"
	HostSuspended      HostState = "SUSPENDED"
	HostError          HostState = "ERROR"
	HostDeleted        HostState = "DELETED"
)

// Usage tags of a host.
const (
	UsageCloud = "CLOUD"
	UsageMgmt  = "MGMT"
	UsageImage = "IMAGE"
)

// Host is a hypervisor that VMs run on. Its password or token is in a Secret.
type Host struct {
	Meta
	Address string `json:"address" doc:"Name or IP address with optional port, or unix:PATH."`
	// Driver names the hypervisor's driver: lxd, vsphere, libvirt or sim.
	Driver           string            `json:"driver" enum:"lxd,vsphere,libvirt,sim"`
	Username         string            `json:"username,omitempty"`
	AvailabilityZone string            `json:"availabilityZone,omitempty"`
	UsageTags        []string          `json:"usageTags"`
	Metadata         map[string]string `json:"metadata,omitempty"`
	// Fingerprint is the SHA-256 of the host's certificate, hexadecimal; pinned at creation.
	Fingerprint string      `json:"fingerprint,omitempty"`
	EsxVersion  string      `json:"esxVersion,omitempty" doc:"Version of the hypervisor; the name is Photon's."`
	State       HostState   `json:"state"`
	Facts       HostFacts   `json:"facts,omitzero"`
	Conditions  []Condition `json:"conditions,omitempty"`
}

// Capacity counts what hosts have and VMs take.
type Capacity struct {
	MilliCPU int64 `json:"milliCpu" doc:"Thousandths of a virtual CPU."`
	Memory   int64 `json:"memory" doc:"Bytes."`
	Disk     int64 `json:"disk" doc:"Bytes, over all datastores."`
}

// Add returns the sum of both.
func (c Capacity) Add(o Capacity) Capacity {
	return Capacity{c.MilliCPU + o.MilliCPU, c.Memory + o.Memory, c.Disk + o.Disk}
}

// Sub returns c less o.
func (c Capacity) Sub(o Capacity) Capacity {
	return Capacity{c.MilliCPU - o.MilliCPU, c.Memory - o.Memory, c.Disk - o.Disk}
}

// HostFacts is what a hypervisor says of itself.
type HostFacts struct {
	Hypervisor   string   `json:"hypervisor" example:"lxd 5.0.2"`
	Architecture string   `json:"architecture,omitempty"`
	Kernel       string   `json:"kernel,omitempty"`
	Capacity     Capacity `json:"capacity" doc:"What VMs may reserve in all."`
	// Networks are names of networks or bridges VMs can be put on.
	Networks   []string        `json:"networks,omitempty"`
	Datastores []HostDatastore `json:"datastores,omitempty"`
	// Limits are kernel limits that bound how many nodes fit, by sysctl name,
	// e.g. fs.inotify.max_user_instances.
	Limits map[string]int64 `json:"limits,omitempty"`
}

// HostDatastore is a datastore as one host sees it.
type HostDatastore struct {
	Name     string `json:"name"`
	Type     string `json:"type" example:"btrfs"`
	Capacity int64  `json:"capacity" doc:"Bytes."`
	Free     int64  `json:"free" doc:"Bytes."`
}

// Datastore is storage on one host.
type Datastore struct {
	Meta
	Type     string `json:"type"`
	HostID   string `json:"hostId,omitempty"`
	Capacity int64  `json:"capacity,omitempty" doc:"Bytes."`
}

// Subnet is a network VMs are put on: port groups (names of networks on the
// hosts), and the addresses Pleiad gives out in it.
type Subnet struct {
	Meta
	Description string   `json:"description,omitempty"`
	State       State    `json:"state"`
	PortGroups  []string `json:"portGroups"`
	IsDefault   bool     `json:"isDefault"`
	// CIDR is the subnet's range. Without it, nodes use DHCP and Pleiad gives out no address.
	CIDR    string   `json:"privateIpCidr,omitempty" example:"100.64.10.0/24"`
	Gateway string   `json:"gateway,omitempty"`
	DNS     []string `json:"dnsServerAddresses,omitempty"`
	// RangeStart and RangeEnd bound the addresses given out, both included.
	RangeStart string `json:"lowIpStatic,omitempty"`
	RangeEnd   string `json:"highIpStatic,omitempty"`
}

// Lease is an address of a subnet in use. Its key in the store is subnet and
// address, so that an address can be given out once only.
type Lease struct {
	SubnetID string `json:"subnetId"`
	Address  string `json:"address"`
	// OwnerID is the VM or cluster that has the address.
	OwnerID string `json:"ownerId"`
}

// HostUsage is the ledger of one host: what VMs placed on it have reserved. It
// is apart from the Host, so that placing a VM does not contend with the host's facts.
type HostUsage struct {
	HostID string   `json:"hostId"`
	Used   Capacity `json:"used"`
	// Datastores are bytes reserved on each, by name.
	Datastores map[string]int64 `json:"datastores,omitempty"`
	// Nodes is how many of the VMs are cluster nodes.
	Nodes int `json:"nodes"`
}

// Deployment is the system itself: one object, its settings.
type Deployment struct {
	Meta
	State                 State                  `json:"state"`
	ImageDatastores       []string               `json:"imageDatastores"`
	Auth                  AuthInfo               `json:"auth"`
	ClusterConfigurations []ClusterConfiguration `json:"clusterConfigurations"`
}

// AuthInfo says how to authenticate.
type AuthInfo struct {
	Enabled  bool   `json:"enabled"`
	Endpoint string `json:"endpoint,omitempty"`
	Port     int    `json:"port,omitempty"`
}

// ClusterConfiguration enables a cluster type with an image.
type ClusterConfiguration struct {
	Meta
	Type    ClusterType `json:"type"`
	ImageID string      `json:"imageId"`
}

// Secret holds what no other object may: passwords, tokens, private keys. It is
// kept under the id of the object it belongs to, sealed by the store, and
// served by no route.
type Secret struct {
	ID     string            `json:"id"`
	Values map[string][]byte `json:"values"`
}

// Key is the lease's id in the store.
func (l *Lease) Key() string { return l.SubnetID + "," + l.Address }
