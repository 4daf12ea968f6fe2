package model

// The specs are the bodies of requests that create things: Photon's fields, and
// typed additions. The API checks shapes by the tags; what a field means is
// checked where the operation is carried out.

// TenantCreateSpec creates a tenant.
type TenantCreateSpec struct {
	Name           string   `json:"name"`
	SecurityGroups []string `json:"securityGroups,omitempty"`
}

// ResourceTicketCreateSpec creates a resource ticket.
type ResourceTicketCreateSpec struct {
	Name   string          `json:"name"`
	Limits []QuotaLineItem `json:"limits" minItems:"1" maxItems:"100"`
}

// ProjectCreateSpec creates a project out of a resource ticket.
type ProjectCreateSpec struct {
	Name           string                    `json:"name"`
	ResourceTicket ResourceTicketReservation `json:"resourceTicket"`
	SecurityGroups []string                  `json:"securityGroups,omitempty"`
}

// ResourceTicketReservation takes limits, or one line subdivide.percent, out of the ticket of that name.
type ResourceTicketReservation struct {
	Name   string          `json:"name"`
	Limits []QuotaLineItem `json:"limits" minItems:"1" maxItems:"100"`
}

// FlavorCreateSpec creates a flavor.
type FlavorCreateSpec struct {
	Name string          `json:"name"`
	Kind string          `json:"kind" enum:"vm,ephemeral-disk,persistent-disk"`
	Cost []QuotaLineItem `json:"cost" minItems:"1" maxItems:"100"`
}

// ZoneCreateSpec creates an availability zone.
type ZoneCreateSpec struct {
	Name string `json:"name"`
}

// HostCreateSpec registers a host.
type HostCreateSpec struct {
	Address          string            `json:"address" minLength:"1" maxLength:"255" doc:"Name or IP address with optional port, or unix:PATH."`
	Username         string            `json:"username,omitempty" maxLength:"255"`
	Password         string            `json:"password,omitempty" maxLength:"4096" doc:"Password, or a trust token the host gave out. Never returned."`
	AvailabilityZone string            `json:"availabilityZone,omitempty"`
	UsageTags        []string          `json:"usageTags" minItems:"1" enum:"MGMT,CLOUD,IMAGE"`
	Metadata         map[string]string `json:"metadata,omitempty"`
	Driver           string            `json:"driver,omitempty" enum:"lxd,vsphere,libvirt,sim" doc:"Sort of hypervisor; lxd when left out."`
	Fingerprint      string            `json:"fingerprint,omitempty" doc:"SHA-256 of the host's certificate to insist on."`
}

// SubnetCreateSpec creates a subnet.
type SubnetCreateSpec struct {
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty" maxLength:"1024"`
	PortGroups  []string `json:"portGroups" minItems:"1" maxItems:"100" doc:"Names of networks on the hosts."`
	CIDR        string   `json:"privateIpCidr,omitempty" example:"100.64.10.0/24"`
	Gateway     string   `json:"gateway,omitempty"`
	DNS         []string `json:"dnsServerAddresses,omitempty" maxItems:"8"`
	RangeStart  string   `json:"lowIpStatic,omitempty"`
	RangeEnd    string   `json:"highIpStatic,omitempty"`
}

// ClusterConfigurationSpec enables or disables a cluster type.
type ClusterConfigurationSpec struct {
	Type    string `json:"type" example:"KUBERNETES"`
	ImageID string `json:"imageId,omitempty"`
}

// ClusterCreateSpec creates a cluster.
type ClusterCreateSpec struct {
	Name        string `json:"name"`
	Type        string `json:"type" example:"KUBERNETES"`
	VMFlavor    string `json:"vmFlavor,omitempty" doc:"Flavor of all nodes, unless given for a role."`
	DiskFlavor  string `json:"diskFlavor,omitempty"`
	SubnetID    string `json:"vmNetworkId,omitempty" doc:"Subnet of the nodes; the default one when left out."`
	WorkerCount *int   `json:"workerCount,omitempty" doc:"Workers, 0 to 1000; 1 when left out."`
	// SlaveCount is what Photon 0.9 calls WorkerCount.
	SlaveCount               *int              `json:"slaveCount,omitempty" deprecated:"true"`
	WorkerBatchExpansionSize int               `json:"workerBatchExpansionSize,omitempty"`
	SlaveBatchExpansionSize  int               `json:"slaveBatchExpansionSize,omitempty" deprecated:"true"`
	ExtendedProperties       map[string]string `json:"extendedProperties,omitempty"`

	Version            string `json:"version,omitempty" doc:"Version of the cluster's software; that of the image when left out."`
	ImageID            string `json:"imageId,omitempty" doc:"Node image; the one the type is enabled with when left out."`
	ControlPlaneCount  *int   `json:"controlPlaneCount,omitempty" doc:"Nodes of the control plane; 1 when left out."`
	ControlPlaneFlavor string `json:"masterVmFlavor,omitempty"`
	WorkerFlavor       string `json:"workerVmFlavor,omitempty"`
	PodCIDR            string `json:"podCidr,omitempty" example:"10.244.0.0/16"`
	ServiceCIDR        string `json:"serviceCidr,omitempty" example:"10.96.0.0/12"`
}

// ClusterResizeOperation asks for another number of workers.
type ClusterResizeOperation struct {
	NewWorkerCount *int `json:"newWorkerCount,omitempty" doc:"Workers there are to be, at most 1000."`
	// NewSlaveCount is what Photon 0.9 calls NewWorkerCount.
	NewSlaveCount *int `json:"newSlaveCount,omitempty" deprecated:"true"`
	// Nodes are those to take away first.
	Nodes []string `json:"nodes,omitempty" maxItems:"1000" doc:"Names or ids of workers to take away, when there are to be fewer; others are chosen."`
	Force bool     `json:"force,omitempty" doc:"Take nodes away without regard for disruption budgets, and with pods that nothing will make again."`
}

// TokenCreateSpec asks for an access token.
type TokenCreateSpec struct {
	Subject    string `json:"subject,omitempty" doc:"Who the token is for; the caller when left out."`
	TTLSeconds int64  `json:"ttlSeconds,omitempty" minimum:"1" maximum:"31622400" doc:"How long it is valid; a day when left out."`
}

// Token is an access token, shown once.
type Token struct {
	AccessToken string `json:"accessToken"`
	Subject     string `json:"subject"`
	ExpiresTime int64  `json:"expiresTime" doc:"Milliseconds since the Unix epoch."`
}

// ResourceList is a page of a list.
type ResourceList[T any] struct {
	Items            []T    `json:"items"`
	NextPageLink     string `json:"nextPageLink,omitempty"`
	PreviousPageLink string `json:"previousPageLink,omitempty"`
}

// Info describes the running server.
type Info struct {
	BaseVersion   string `json:"baseVersion"`
	FullVersion   string `json:"fullVersion"`
	GitCommitHash string `json:"gitCommitHash"`
	NetworkType   string `json:"networkType" enum:"PHYSICAL,SOFTWARE_DEFINED,NOT_AVAILABLE"`
}

// SystemStatus tells how the system's parts are.
type SystemStatus struct {
	Status     string            `json:"status" enum:"READY,INITIALIZING,PARTIAL_ERROR,ERROR,UNREACHABLE"`
	Components []ComponentStatus `json:"components"`
}

// ComponentStatus tells how one part is.
type ComponentStatus struct {
	Component string            `json:"component" example:"photon-controller"`
	Status    string            `json:"status"`
	Message   string            `json:"message,omitempty"`
	Stats     map[string]string `json:"stats,omitempty"`
	BuildInfo string            `json:"buildInfo,omitempty"`
}

// DeploymentSize counts what there is.
type DeploymentSize struct {
	NumberHosts      int `json:"numberHosts"`
	NumberVMs        int `json:"numberVMs"`
	NumberTenants    int `json:"numberTenants"`
	NumberProjects   int `json:"numberProjects"`
	NumberDatastores int `json:"numberDatastores"`
	NumberClusters   int `json:"numberClusters"`
}
