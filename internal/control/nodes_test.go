package control

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/pki"
	"github.com/pleiad/pleiad/internal/plan"
	"github.com/pleiad/pleiad/internal/store"
)

// quietNode makes a cluster of one node that does not speak, and returns what it was told.
func quietNode(t *testing.T) (*world, *server, bootstrap.Bootstrap) {
	t.Helper()
	told := make(chan bootstrap.Bootstrap, 1)
	w := newWorld(t, func(w *world) {
		w.nodes.Boot = func(ctx context.Context, b bootstrap.Bootstrap) {
			told <- b
			<-ctx.Done()
		}
	})
	s := w.start()
	w.setUp(s, memory(10), "h1")
	if _, err := s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 0)); err != nil {
		t.Fatal(err)
	}
	return w, s, <-told
}

func request(t *testing.T) []byte {
	t.Helper()
	csr, _, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func TestRegister(t *testing.T) {
	w, s, boot := quietNode(t)
	ctx := context.Background()
	csr := request(t)

	user, err := w.id.Tokens.Sign(pki.Claims{Subject: boot.NodeID, Audience: pki.AudienceUser, ID: "1", Expires: w.clock.now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := w.id.Tokens.Sign(pki.Claims{Subject: "nobody", Audience: pki.AudienceNode, ID: "1", Expires: w.clock.now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token string
		csr   []byte
		code  model.Code
	}{
		"garbage request": {boot.Token, []byte("hello"), model.CodeInvalidEntity},
		"no request":      {boot.Token, nil, model.CodeInvalidEntity},
		"garbage token":   {"hello", csr, model.CodeInvalidAuthToken},
		"a user's token":  {user, csr, model.CodeInvalidAuthToken},
		"no such VM":      {stranger, csr, model.CodeVMNotFound},
	} {
		_, _, err := s.Register(ctx, c.token, c.csr)
		if e := model.AsError(err); err == nil || e.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := enrollments.Get(w.store, boot.NodeID); err == nil {
		t.Fatal("a refused registration was recorded")
	}

	cert, ca, err := s.Register(ctx, boot.Token, csr)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := pki.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Subject.CommonName != boot.NodeID || leaf.Subject.Organization[0] != NodeOrganization || !bytes.Equal(ca, w.id.CA.Certificate()) {
		t.Errorf("certificate for %v", leaf.Subject)
	}
	again, _, err := s.Register(ctx, boot.Token, csr)
	if err != nil || !bytes.Equal(again, cert) {
		t.Errorf("a repeat got another certificate, %v", err)
	}
	_, _, err = s.Register(ctx, boot.Token, request(t))
	refused(t, err, model.CodeInvalidRegistered)

	renewed, _, err := s.Renew(ctx, boot.NodeID, request(t))
	if err != nil || bytes.Equal(renewed, cert) {
		t.Errorf("renewal: %v", err)
	}
	_, _, err = s.Renew(ctx, "nobody", csr)
	refused(t, err, model.CodeVMNotFound)

	w.clock.advance(enrollTTL + time.Minute)
	_, _, err = s.Register(ctx, boot.Token, csr)
	refused(t, err, model.CodeExpiredAuthToken)
}

func TestNodeOfVMThatIsToGo(t *testing.T) {
	w, s, boot := quietNode(t)
	ctx := context.Background()
	csr := request(t)
	if _, _, err := s.Register(ctx, boot.Token, csr); err != nil {
		t.Fatal(err)
	}
	w.fleet.Host("h1").SetDown(true) // the VM cannot go yet
	v, err := store.VMs.Get(w.store, boot.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	task, err := s.DeleteCluster(ctx, v.ClusterID)
	if err != nil {
		t.Fatal(err)
	}
	await(w, store.VMs, func() bool {
		v, err := store.VMs.Get(w.store, boot.NodeID)
		return err == nil && v.Deleting
	})
	_, _, err = s.Register(ctx, boot.Token, csr)
	refused(t, err, model.CodeInvalidVMState)
	if err := s.Report(ctx, boot.NodeID, plan.Report{}); err != nil {
		t.Errorf("a report of a VM that is to go: %v", err)
	}
	if _, err := reports.Get(w.store, boot.NodeID); err == nil {
		t.Error("it was recorded")
	}
	w.fleet.Host("h1").SetDown(false)
	w.done(task, nil)
	_, _, err = s.Register(ctx, boot.Token, csr)
	refused(t, err, model.CodeVMNotFound)
	_, err = s.Plan(ctx, boot.NodeID, "", time.Minute)
	refused(t, err, model.CodeVMNotFound)
	refused(t, s.Report(ctx, boot.NodeID, plan.Report{}), model.CodeVMNotFound)
	refused(t, s.Heartbeat(ctx, boot.NodeID), model.CodeVMNotFound)
	w.settled()
}

// A node that waits for its plan gets it when there is one; one that has it waits.
func TestPlanIsPolled(t *testing.T) {
	w, s, boot := quietNode(t)
	ctx := context.Background()
	p, err := s.Plan(ctx, boot.NodeID, "", patience)
	if err != nil || p == nil || p.NodeID != boot.NodeID {
		t.Fatalf("plan %v, %v", p, err)
	}
	if same, err := s.Plan(ctx, boot.NodeID, p.Hash(), time.Millisecond); err != nil || same != nil {
		t.Errorf("the same plan again: %v, %v", same, err)
	}
	type answer struct {
		plan *plan.Plan
		err  error
	}
	answers := make(chan answer)
	go func() {
		next, err := s.Plan(ctx, boot.NodeID, p.Hash(), patience)
		answers <- answer{next, err}
	}()
	// What the node reports has the kind add to its plan.
	r := plan.Report{PlanHash: p.Hash()}
	for _, step := range p.Steps {
		r.Results = append(r.Results, plan.StepResult{ID: step.ID, Hash: step.Hash(), State: plan.StepDone, Attempts: 1})
	}
	if err := s.Report(ctx, boot.NodeID, r); err != nil {
		t.Fatal(err)
	}
	v, err := store.VMs.Get(w.store, boot.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	task, err := s.DeleteCluster(ctx, v.ClusterID)
	if a := <-answers; a.plan == nil && a.err == nil || a.plan != nil && a.plan.Hash() == p.Hash() {
		t.Errorf("the waiting node was answered %+v", a)
	}
	w.done(task, err)
}

func TestSilence(t *testing.T) {
	n := newNodeTracker(1000)
	if got := n.silent("a", 900); got != 0 {
		t.Errorf("before the start, by a clock that was set back: %d", got)
	}
	if got := n.silent("a", 1500); got != 500 {
		t.Errorf("never heard of: %d since the start", got)
	}
	n.hear("a", 1400)
	if got := n.silent("a", 1500); got != 100 {
		t.Errorf("heard of: %d", got)
	}
	n.forget("a")
	if got := n.silent("a", 1500); got != 500 {
		t.Errorf("forgotten: %d", got)
	}
}
