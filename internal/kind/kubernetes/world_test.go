package kubernetes

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/plan"
)

// world carries decisions out as the controller would, in memory. Its secrets
// are readable words, so that tests can look for them.
type world struct {
	view kind.View
	// last is the decision made last.
	last kind.Decision
}

func newWorld(c *model.Cluster) *world {
	k := Kind{}
	c.Type = model.Kubernetes
	c.ID = "cluster-id"
	c.Version = testImage().Version
	k.Default(c)
	return &world{view: kind.View{
		Now:     1_000_000,
		Cluster: c,
		Image:   testImage(),
		Subnet:  &model.Subnet{CIDR: "100.64.10.0/24", DNS: []string{"100.64.10.1"}},
		Secrets: map[string]kind.Secret{},
	}}
}

func testImage() *model.NodeImage {
	return &model.NodeImage{
		ClusterType: "KUBERNETES",
		Version:     "v9.8.7",
		ContainerImages: map[string]string{
			"kube-apiserver":          "pleiad.local/kube-apiserver:v9.8.7",
			"kube-controller-manager": "pleiad.local/kube-controller-manager:v9.8.7",
			"kube-scheduler":          "pleiad.local/kube-scheduler:v9.8.7",
			"kube-proxy":              "pleiad.local/kube-proxy:v9.8.7",
			"etcd":                    "pleiad.local/etcd:v3.0.1",
			"coredns":                 "pleiad.local/coredns:v1.0.2",
			"pause":                   "pleiad.local/pause:3.0.3",
			"flannel":                 "pleiad.local/flannel:v0.0.4",
		},
	}
}

func (w *world) decide() kind.Decision {
	w.last = Kind{}.Decide(w.view)
	return w.last
}

// issue makes a secret, and fails on one whose issuer is not there.
func (w *world) issue(r kind.Request) error {
	switch {
	case r.KeyPair:
		w.view.Secrets[r.Name] = kind.Secret{Key: word("key", r.Name), PublicKey: word("public", r.Name)}
	case r.Token != "":
		w.view.Secrets[r.Name] = kind.Secret{Token: "abcdef.0123456789abcdef"}
	case r.CA != nil:
		w.view.Secrets[r.Name] = kind.Secret{Certificate: word("cert", r.Name), Key: word("key", r.Name)}
	case r.Certificate != nil:
		if _, ok := w.view.Secrets[r.Certificate.Issuer]; !ok {
			return fmt.Errorf("%s was asked for before its issuer %s", r.Name, r.Certificate.Issuer)
		}
		w.view.Secrets[r.Name] = kind.Secret{Certificate: word("cert", r.Name), Key: word("key", r.Name)}
	default:
		return fmt.Errorf("request %s asks for nothing", r.Name)
	}
	return nil
}

func word(what, name string) []byte { return []byte("<" + what + " " + name + ">\n") }

// create makes a VM with the address that goes with the node's place in the spec.
func (w *world) create(spec kind.NodeSpec) {
	at := slices.IndexFunc(Kind{}.Nodes(w.view.Cluster), func(s kind.NodeSpec) bool { return s.Name == spec.Name })
	address := netip.AddrFrom4([4]byte{100, 64, 10, byte(20 + at)})
	w.view.Nodes = append(w.view.Nodes, kind.Node{VM: &model.VM{
		Meta: model.Meta{ID: "vm-" + spec.Name, Name: spec.Name}, State: model.VMCreating,
		Role: spec.Role, Pool: spec.Pool, Host: "host-1",
		Networks: []model.VMNetwork{{IPAddress: address.String()}},
	}})
}

func (w *world) node(name string) *kind.Node { return w.view.NodeNamed(name) }

func (w *world) byID(id string) *kind.Node {
	for i := range w.view.Nodes {
		if w.view.Nodes[i].VM.ID == id {
			return &w.view.Nodes[i]
		}
	}
	return nil
}

func (w *world) apply(id string, p plan.Plan) error {
	if err := p.Validate(); err != nil {
		return err
	}
	n := w.byID(id)
	if n == nil || p.NodeID != id {
		return fmt.Errorf("plan of %s for %s", p.NodeID, id)
	}
	n.Plan = &p
	return nil
}

func (w *world) publish(d kind.Decision) {
	if w.view.Cluster.ExtendedProperties == nil {
		w.view.Cluster.ExtendedProperties = map[string]string{}
	}
	maps.Copy(w.view.Cluster.ExtendedProperties, d.Publish)
	if d.Endpoint != "" {
		w.view.Cluster.Endpoint = d.Endpoint
	}
}

// carryOut does what the last decision says, in the order of the contract.
func (w *world) carryOut() error {
	d := w.last
	for _, r := range d.Issue {
		if err := w.issue(r); err != nil {
			return err
		}
	}
	if len(d.Issue) > 0 {
		return nil
	}
	for _, spec := range d.Create {
		w.create(spec)
	}
	for id, p := range d.Apply {
		if err := w.apply(id, p); err != nil {
			return err
		}
	}
	w.publish(d)
	return nil
}

// run makes a node do the steps of its plan up to one, or all of them.
func (w *world) run(name, until string) error {
	n := w.node(name)
	if n == nil || n.Plan == nil {
		return fmt.Errorf("%s has no plan", name)
	}
	r := &plan.Report{NodeID: n.VM.ID}
	for _, s := range n.Plan.Steps {
		r.Results = append(r.Results, plan.StepResult{ID: s.ID, Hash: s.Hash(), State: plan.StepDone, Attempts: 1})
		if s.ID == until {
			n.Report = r
			return nil
		}
	}
	if until != "all" {
		return fmt.Errorf("%s has no step %s", name, until)
	}
	n.Report = r
	return nil
}
