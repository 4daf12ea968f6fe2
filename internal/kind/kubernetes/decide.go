package kubernetes

import (
	"net/netip"
	"slices"
	"time"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/plan"
)

// Decide says what to do next. It works out what every node should be from the
// view alone, and asks for what differs.
func (k Kind) Decide(v kind.View) kind.Decision {
	if err := validateCounts(v.Cluster); err != nil {
		return kind.Decision{Failed: model.AsError(err)}
	}
	img, err := imagesOf(v)
	if err != nil {
		return kind.Decision{Failed: model.AsError(err)}
	}
	s := newSituation(k.Nodes(v.Cluster), v, img)

	var d kind.Decision
	d.Issue = s.missing
	for _, m := range s.members {
		if m.node == nil {
			d.Create = append(d.Create, m.spec)
			continue
		}
		if len(m.plan.Steps) > 0 && (m.node.Plan == nil || !m.has(*m.node.Plan)) {
			if d.Apply == nil {
				d.Apply = map[string]plan.Plan{}
			}
			d.Apply[m.node.VM.ID] = m.plan
		}
	}
	d.Remove = s.removable()
	published := v.Cluster.ExtendedProperties[propertyVersion] == v.Cluster.Version
	if s.apiUp() {
		d.Endpoint = endpointURL(s.endpoint)
		if !published {
			d.Publish = map[string]string{propertyVersion: v.Cluster.Version}
		}
	}
	failed := s.failure()
	if failed != nil {
		d.Failed = failed.err
	}
	d.Ready = failed == nil && published && s.count(member.allDone) == len(s.members) && len(s.surplus) == 0
	d.Progress = s.progress(published, failed)
	d.Conditions = s.conditions()
	return d
}

func imagesOf(v kind.View) (images, error) {
	if v.Image == nil {
		return images{}, model.Errorf(model.CodeImageNotFound, "image %s of cluster %s is gone", v.Cluster.ImageID, v.Cluster.Name)
	}
	return newImages(v.Image)
}

// situation is a view, set against what the spec wants.
type situation struct {
	view kind.View
	// members are the nodes that should be, in order of the spec; the leader is the first.
	members []member
	// surplus are the nodes that should not be, sorted by name.
	surplus []*kind.Node
	// missing are the secrets that could be issued by now and were not.
	missing []kind.Request
	// endpoint is the zero Addr while the leader has no address.
	endpoint netip.Addr
}

// member is a node that should be.
type member struct {
	spec kind.NodeSpec
	// node is nil before it was created.
	node *kind.Node
	// plan has no steps while something it needs is missing; hashes are of its steps.
	plan   plan.Plan
	hashes []string
}

func newSituation(specs []kind.NodeSpec, v kind.View, img images) *situation {
	s := &situation{view: v, surplus: surplusOf(specs, v.Nodes)}
	byName := make(map[string]*kind.Node, len(v.Nodes))
	for i := range v.Nodes {
		byName[v.Nodes[i].VM.Name] = &v.Nodes[i]
	}
	for _, spec := range specs {
		s.members = append(s.members, member{spec: spec, node: byName[spec.Name]})
	}

	requests := sharedSecrets()
	leader := &s.members[0]
	if a := leader.address(); a.IsValid() {
		s.endpoint = a
		if e, ok := v.Addresses[endpointAddress]; ok {
			s.endpoint = e
		}
		requests = append(requests, masterSecrets(v.Cluster, leader.spec.Name, a, s.endpoint)...)
	}
	s.missing = missing(requests, v.Secrets)
	if !s.endpoint.IsValid() || len(s.missing) > 0 {
		return s
	}

	workers, common := s.members[1:], newWorkerFiles(v, s.endpoint)
	for i := range workers {
		if w := &workers[i]; w.address().IsValid() {
			w.should(workerPlan(v, common, *w.node, w.toldTo(stepKubelet)))
		}
	}
	p := leaderPlan(v, img, *leader.node, s.endpoint)
	if step := s.tokenStep(); step != nil {
		p.Steps = append(p.Steps, *step)
	}
	p.Steps = append(p.Steps, s.leave()...)
	leader.should(p)
	if !s.mayJoin() {
		return s
	}
	for i := range workers {
		if w := &workers[i]; w.address().IsValid() && !w.toldTo(stepKubelet) {
			w.should(workerPlan(v, common, *w.node, true))
		}
	}
	return s
}

// tokenStep is the leader's last step, about the bootstrap token. The one that
// kubeadm init makes is removed when all workers have joined. From then on there
// always is such a step: it makes a token again when a worker is to join that
// was added or replaced, and removes it when that has joined.
func (s *situation) tokenStep() *plan.Step {
	var newest int64
	waiting := 0
	for _, m := range s.members[1:] {
		if m.address().IsValid() && !m.joined() {
			waiting++
			newest = max(newest, m.node.VM.CreatedTime)
		}
	}
	token := s.view.Secrets[secretToken].Token
	switch told := s.members[0].toldTo(stepToken); {
	case told && waiting > 0:
		return makeToken(token, time.UnixMilli(newest).Add(tokenTTL))
	case told || s.count(member.joined) == len(s.members)-1:
		return removeToken(token)
	default:
		return nil
	}
}

// mayJoin reports whether the API answers and the bootstrap token is there.
func (s *situation) mayJoin() bool {
	return s.apiUp() && (!s.members[0].planned(stepToken) || s.members[0].done(stepToken))
}

// apiUp reports whether the API answers.
func (s *situation) apiUp() bool { return s.members[0].done(stepInit) }

func (s *situation) count(is func(member) bool) int {
	n := 0
	for _, m := range s.members {
		if is(m) {
			n++
		}
	}
	return n
}

func (m member) address() netip.Addr {
	if m.node == nil || m.node.VM.Deleting {
		return netip.Addr{}
	}
	return m.node.Address()
}

// should sets the plan the node should have.
func (m *member) should(p plan.Plan) {
	m.plan, m.hashes = p, make([]string, 0, len(p.Steps))
	for _, s := range p.Steps {
		m.hashes = append(m.hashes, s.Hash())
	}
}

// has reports whether p is the plan the node should have.
func (m member) has(p plan.Plan) bool {
	return p.NodeID == m.plan.NodeID && slices.EqualFunc(p.Steps, m.hashes, func(s plan.Step, hash string) bool {
		return s.Hash() == hash
	}) && slices.EqualFunc(p.Steps, m.plan.Steps, func(a, b plan.Step) bool { return a.ID == b.ID })
}

// result is what the node said of a step of the plan it should have; nil when
// it said nothing or spoke of another content.
func (m member) result(i int) *plan.StepResult {
	r := m.node.Report.Result(m.plan.Steps[i].ID)
	if r == nil || r.Hash != m.hashes[i] {
		return nil
	}
	return r
}

func (m member) doneAt(i int) bool {
	r := m.result(i)
	return r != nil && r.State == plan.StepDone
}

// done reports whether the node has done a step of the plan it should have.
func (m member) done(id string) bool {
	i := slices.IndexFunc(m.plan.Steps, func(s plan.Step) bool { return s.ID == id })
	return i >= 0 && m.doneAt(i)
}

// undone is the first step the node has not done; -1 when all are.
func (m member) undone() int {
	for i := range m.plan.Steps {
		if !m.doneAt(i) {
			return i
		}
	}
	return -1
}

func (m member) allDone() bool { return len(m.plan.Steps) > 0 && m.undone() < 0 }

func (m member) joined() bool { return m.spec.Role == RoleWorker && m.done(stepJoined) }
func (m member) ready() bool  { return m.done(stepReady) }
func (m member) dns() bool    { return m.done(stepDNS) }

// planned reports whether a step is in the plan the node should have.
func (m member) planned(id string) bool { return hasStep(m.plan, id) }

// toldTo reports whether a step is in the plan the node has. A worker that was
// told to join is not told otherwise when its leader is lost.
func (m member) toldTo(id string) bool {
	return m.node != nil && m.node.Plan != nil && hasStep(*m.node.Plan, id)
}

func hasStep(p plan.Plan, id string) bool {
	return slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.ID == id })
}
