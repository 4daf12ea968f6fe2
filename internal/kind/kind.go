// Package kind is the contract of a cluster kind: what a cluster type
// (Kubernetes, Docker Swarm, …) means in code.
//
// A kind is a set of pure functions. It validates what was asked for, says
// which nodes there must be, and, given a View of the cluster (the spec, its
// secrets, its nodes and what they report), decides what to do next. The
// controller carries the decision out and asks again when anything changed.
// Decide is called often, with views that may be behind or have any subset of
// earlier decisions carried out; it must not remember anything.
//
// Kinds do no I/O, read no clock (the view carries the time) and start no
// goroutine; they may be called from many goroutines at once.
package kind

import (
	"fmt"
	"net/netip"
	"sort"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/plan"
)

// Kind is a cluster type.
type Kind interface {
	// Type names the kind, e.g. KUBERNETES.
	Type() model.ClusterType

	// Default fills what the spec leaves open, so that it is stored as it will be
	// built. The caller fills the version in, from the image.
	Default(c *model.Cluster)

	// Validate refuses a spec that cannot be built, naming field and limit.
	// Flavors, quota, capacity and addresses are checked by the caller.
	Validate(c *model.Cluster, image *model.NodeImage) error

	// Nodes are the nodes the spec wants, in the order in which they are to be
	// made; the names are unique within the cluster and stay the same.
	Nodes(c *model.Cluster) []NodeSpec

	// Addresses are names of addresses the cluster needs besides its nodes',
	// e.g. "endpoint" for a floating API address.
	Addresses(c *model.Cluster) []string

	// Steps are the operations, in order, of the task that makes the cluster or,
	// when its State is RESIZING, resizes it; Decision.Progress tells of each.
	Steps(c *model.Cluster) []string

	// Removal are the operations of the task that takes nodes away from the
	// cluster: it then has nodes that Nodes does not name.
	Removal(c *model.Cluster) []string

	// Decide says what to do next.
	Decide(v View) Decision

	// Access returns the files with which a user reaches the cluster, by name,
	// e.g. "kubeconfig"; an error while it cannot be reached yet.
	Access(v View) (map[string][]byte, error)
}

// NodeSpec is a node there must be.
type NodeSpec struct {
	Name   string
	Role   string
	Pool   string
	Flavor string
	// DiskFlavor is the flavor of the root disk, may be empty.
	DiskFlavor string
	// SpreadBy is a label: nodes with the same one are spread over hosts, then zones.
	SpreadBy string
}

// View is what a kind decides on.
type View struct {
	// Now is milliseconds since the Unix epoch.
	Now     int64
	Cluster *model.Cluster
	Image   *model.NodeImage
	// Addresses are those asked for by Kind.Addresses, by name.
	Addresses map[string]netip.Addr
	// Gateway, DNS and Prefix are those of the cluster's subnet.
	Subnet *model.Subnet
	// Secrets are what was issued before, by Request.Name.
	Secrets map[string]Secret
	// Nodes are all that are there, those being deleted included.
	Nodes []Node
}

// Node is a node as it is.
type Node struct {
	VM *model.VM
	// Plan is what the node was last told; nil before the first.
	Plan *plan.Plan
	// Report is what the node last said; nil before it registered.
	Report *plan.Report
	// Silent is how long nothing was heard of the node, in milliseconds; before
	// its first report, how long the VM has been started.
	Silent int64
}

// Address is the node's first address; the zero Addr while it has none.
func (n Node) Address() netip.Addr {
	if n.VM == nil {
		return netip.Addr{}
	}
	for _, w := range n.VM.Networks {
		if a, err := netip.ParseAddr(w.IPAddress); err == nil {
			return a
		}
	}
	return netip.Addr{}
}

// NodeNamed returns the node of that name, or nil.
func (v View) NodeNamed(name string) *Node {
	for i := range v.Nodes {
		if v.Nodes[i].VM.Name == name {
			return &v.Nodes[i]
		}
	}
	return nil
}

// ByRole returns the nodes of a role, sorted by name.
func (v View) ByRole(role string) []Node {
	var out []Node
	for _, n := range v.Nodes {
		if n.VM.Role == role {
			out = append(out, n)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].VM.Name < out[j].VM.Name })
	return out
}

// Decision is what to do next. The controller carries out what is set, in this
// order, and asks again: Issue; Create and Remove; Apply; Publish. When Ready
// is true and nothing else is set, what the spec asks for is there.
type Decision struct {
	// Issue asks for keys, certificates and tokens; nothing else is carried out before they are there.
	Issue []Request
	// Create names nodes of Nodes that are missing. Those of a new cluster are
	// reserved and recorded with it, so this is about nodes that were lost since;
	// the controller does not replace them yet.
	Create []NodeSpec
	// Remove names ids of nodes to delete.
	Remove []string
	// Apply gives nodes plans, by node id. Only plans that changed need be here.
	Apply map[string]plan.Plan
	// Publish sets ExtendedProperties; an empty value removes one.
	Publish map[string]string
	// Endpoint is where the cluster answers, once known.
	Endpoint string
	// Progress tells of each operation of Steps, by name.
	Progress map[string]Progress
	// Conditions are set on the cluster.
	Conditions []model.Condition
	Ready      bool
	// Failed says that the task cannot go on without help: the first cause.
	Failed *model.Error
}

// Progress of one operation.
type Progress struct {
	State model.TaskState
	// Message says what is going on inside, e.g. "2 of 3 nodes joined".
	Message string
	Error   *model.Error
}

// Request asks the controller to make a secret, once; the result stays the same
// under its name until the kind asks for it under another.
type Request struct {
	Name string
	// Exactly one of CA, Certificate, KeyPair and Token is set.
	CA          *CARequest
	Certificate *CertificateRequest
	KeyPair     bool
	// Token is a pattern of letters to fill: each 'x' becomes one of a-z0-9, every other rune stays.
	Token string
}

// CARequest asks for a certificate authority of its own.
type CARequest struct {
	CommonName string
}

// CertificateRequest asks for a certificate by a CA issued before.
type CertificateRequest struct {
	Issuer       string
	CommonName   string
	Organization []string
	DNSNames     []string
	IPs          []netip.Addr
	// Server and Client are the extended key usages.
	Server, Client bool
}

// Secret is what was issued: PEM certificate and PKCS #8 or SEC 1 PEM key, PEM public
// key for a key pair, or a token.
type Secret struct {
	Certificate []byte `json:"certificate,omitempty"`
	Key         []byte `json:"key,omitempty"`
	PublicKey   []byte `json:"publicKey,omitempty"`
	Token       string `json:"token,omitempty"`
}

// Registry is the kinds a server knows, by type.
type Registry map[model.ClusterType]Kind

// NewRegistry makes a registry; two kinds of one type are a programming error.
func NewRegistry(kinds ...Kind) Registry {
	r := Registry{}
	for _, k := range kinds {
		if r[k.Type()] != nil {
			panic(fmt.Sprintf("two kinds of type %s", k.Type()))
		}
		r[k.Type()] = k
	}
	return r
}
