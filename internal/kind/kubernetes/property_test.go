package kubernetes

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/plan"
)

// TestConverges carries out random parts of random decisions, some of them
// stale, loses reports and nodes, and wants the cluster to get ready in the end.
// On the way, decisions must not depend on the order of nodes or on being asked
// twice, and a worker never joins while the token is not there.
func TestConverges(t *testing.T) {
	seed := rand.Uint64()
	for run := range uint64(25) {
		t.Logf("seed %d run %d", seed, run)
		r := rand.New(rand.NewPCG(seed, run))
		w := newWorld(&model.Cluster{Meta: model.Meta{Name: "demo"}, WorkerCount: r.IntN(4)})
		for range 150 {
			w.stumble(t, r)
		}
		for range 40 {
			w.advance(t)
			if w.last.Ready {
				break
			}
		}
		if d := w.last; !d.Ready || d.Failed != nil || len(d.Issue)+len(d.Create)+len(d.Apply)+len(d.Publish) > 0 {
			t.Fatalf("does not converge: %v", w.describe(d))
		}
	}
}

// stumble does one thing of many, perhaps only half of it.
func (w *world) stumble(t *testing.T, r *rand.Rand) {
	t.Helper()
	d := w.last
	switch r.IntN(8) {
	case 0, 1:
		w.decideTwice(t, r)
	case 2:
		for _, req := range d.Issue {
			if _, have := w.view.Secrets[req.Name]; !have && r.IntN(2) == 0 {
				// A certificate may be asked for together with its issuer, which comes first.
				if c := req.Certificate; c != nil {
					if _, ok := w.view.Secrets[c.Issuer]; !ok {
						continue
					}
				}
				if err := w.issue(req); err != nil {
					t.Fatal(err)
				}
			}
		}
	case 3:
		for _, spec := range d.Create {
			if w.node(spec.Name) == nil && r.IntN(2) == 0 {
				w.create(spec)
				w.node(spec.Name).VM.State = model.VMStarted
			}
		}
	case 4:
		for _, id := range slices.Sorted(maps.Keys(d.Apply)) {
			if w.byID(id) != nil && r.IntN(2) == 0 {
				if err := w.apply(id, d.Apply[id]); err != nil {
					t.Fatal(err)
				}
			}
		}
	case 5:
		w.publish(d)
	case 6:
		if len(w.view.Nodes) > 0 {
			w.goOn(t, &w.view.Nodes[r.IntN(len(w.view.Nodes))], r.IntN(4))
		}
	case 7:
		// A worker is lost now and then.
		if i := r.IntN(10); i > 0 && i < len(w.view.Nodes) && w.view.Nodes[i].VM.Role == RoleWorker {
			w.view.Nodes = slices.Delete(w.view.Nodes, i, i+1)
		}
	}
}

// advance does all of a decision, and lets each node finish what it has.
func (w *world) advance(t *testing.T) {
	t.Helper()
	w.decide()
	if err := w.carryOut(); err != nil {
		t.Fatal(err)
	}
	for i := range w.view.Nodes {
		w.view.Nodes[i].VM.State = model.VMStarted
		w.goOn(t, &w.view.Nodes[i], plan.MaxSteps)
	}
	w.decide()
}

// goOn lets a node do some more steps of its plan.
func (w *world) goOn(t *testing.T, n *kind.Node, steps int) {
	t.Helper()
	if n.Plan == nil {
		return
	}
	was, now := n.Report, &plan.Report{NodeID: n.VM.ID}
	for _, s := range n.Plan.Steps {
		if !was.Done(s) {
			if steps--; steps < 0 {
				break
			}
			if s.ID == stepJoined && !w.tokenThere() {
				return // its kubelet tries and tries
			}
		}
		now.Results = append(now.Results, plan.StepResult{ID: s.ID, Hash: s.Hash(), State: plan.StepDone, Attempts: 1})
	}
	n.Report = now
}

// tokenThere reports whether the token is in the cluster, as the leader's steps left it.
func (w *world) tokenThere() bool {
	leader := w.node("demo-master-0")
	if leader == nil || leader.Plan == nil {
		return false
	}
	there := false
	for _, s := range leader.Plan.Steps {
		if !leader.Report.Done(s) {
			break
		}
		switch s.ID {
		case stepInit:
			there = true
		case stepToken:
			there = s.Command.Stdin != nil
		}
	}
	return there
}

func (w *world) decideTwice(t *testing.T, r *rand.Rand) {
	t.Helper()
	first := w.decide()
	r.Shuffle(len(w.view.Nodes), func(i, j int) {
		w.view.Nodes[i], w.view.Nodes[j] = w.view.Nodes[j], w.view.Nodes[i]
	})
	if again := w.decide(); !reflect.DeepEqual(first, again) {
		t.Fatalf("two decisions on one view:\n%v\n%v", w.describe(first), w.describe(again))
	}
}

// TestRefusesToDecideOnNonsense: a spec that Validate refuses, or an image that
// is gone, fails; it does not panic.
func TestRefusesToDecideOnNonsense(t *testing.T) {
	w := newWorld(&model.Cluster{Meta: model.Meta{Name: "demo"}})
	w.view.Image = nil
	if d := w.decide(); d.Failed == nil || d.Failed.Code != model.CodeImageNotFound {
		t.Errorf("without an image: %v", d.Failed)
	}
	w.view.Cluster.ControlPlane.Count = 0
	if d := w.decide(); d.Failed == nil || d.Failed.Code != model.CodeInvalidEntity {
		t.Errorf("without a control plane: %v", d.Failed)
	}
}
