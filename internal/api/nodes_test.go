package api

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/wire"
	"github.com/pleiad/pleiad/internal/plan"
)

// as returns the fixture as seen with a client certificate.
func (f *fixture) as(certificate tls.Certificate) *fixture {
	other := *f
	transport := f.client.Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.Certificates = []tls.Certificate{certificate}
	f.t.Cleanup(transport.CloseIdleConnections)
	other.client = &http.Client{Transport: transport}
	return &other
}

func TestNodeRegisters(t *testing.T) {
	f := newFixture(t)
	got := parse[wire.Credentials](f, f.do("POST", wire.PathRegister, "", `{"token":"once","csr":"CSR","later":true}`), http.StatusOK)
	if got != (wire.Credentials{Certificate: "signed CSR", CA: "ca"}) {
		t.Errorf("answer %+v", got)
	}
	f.refused(f.do("POST", wire.PathRegister, "", `{"token":"guess","csr":"CSR"}`), http.StatusUnauthorized, model.CodeInvalidAuthToken)
	f.refused(f.do("POST", wire.PathRegister, "", `{"token":"once"}`), http.StatusBadRequest, model.CodeInvalidEntity)
	f.refused(f.do("POST", wire.PathRegister, "", `{"token":7}`), http.StatusBadRequest, model.CodeInvalidEntity)
	f.refused(f.do("POST", wire.PathRegister, "", `nonsense`), http.StatusBadRequest, model.CodeInvalidJSON)
	large := `{"token":"once","csr":"` + strings.Repeat("x", wire.MaxRequest) + `"}`
	f.refused(f.do("POST", wire.PathRegister, "", large), http.StatusRequestEntityTooLarge, model.CodeRequestTooLarge)
}

func TestNodeSpeaks(t *testing.T) {
	f := newFixture(t)
	n := f.as(f.ca.issue("node-1"))
	got := parse[wire.Credentials](n, n.do("POST", wire.PathRenew, "", `{"csr":"CSR"}`), http.StatusOK)
	if got.Certificate != "renewed 1 CSR" {
		t.Errorf("answer %+v", got)
	}
	f.node.plan = &plan.Plan{NodeID: "1", Steps: []plan.Step{{ID: "a"}}}
	p := parse[plan.Plan](n, n.do("GET", wire.PathPlan+"?wait=30s", "", nil), http.StatusOK)
	if p.Hash() != f.node.plan.Hash() {
		t.Errorf("plan %+v", p)
	}
	if r := n.do("GET", wire.PathPlan+"?wait=1ms&hash="+p.Hash(), "", nil); r.StatusCode != http.StatusNoContent || r.text != "" {
		t.Errorf("unchanged plan: %d %q", r.StatusCode, r.text)
	}
	for _, wait := range []string{"soon", "-1s", "30"} {
		n.refused(n.do("GET", wire.PathPlan+"?wait="+wait, "", nil), http.StatusBadRequest, model.CodeInvalidQueryParams)
	}
	answer := parse[wire.Answer](n, n.do("POST", wire.PathReport, "", `{"nodeId":"1","planHash":"x","newer":1}`), http.StatusOK)
	if answer.HeartbeatSeconds != 10 || len(f.node.reports) != 1 || f.node.reports[0].PlanHash != "x" {
		t.Errorf("answer %+v, reports %+v", answer, f.node.reports)
	}
	parse[wire.Answer](n, n.do("POST", wire.PathHeartbeat, "", `{"nodeId":"1"}`), http.StatusOK)

	// A node speaks for itself only.
	n.refused(n.do("POST", wire.PathReport, "", `{"nodeId":"2"}`), http.StatusForbidden, model.CodeAccessForbidden)
	n.refused(n.do("POST", wire.PathHeartbeat, "", `{}`), http.StatusForbidden, model.CodeAccessForbidden)
	// And its certificate is nothing to the users' API.
	n.refused(n.do("GET", "/v1/tenants", "", nil), http.StatusUnauthorized, model.CodeMissingAuthToken)
	// Another client's certificate of the same CA is not a node's.
	other := f.as(f.ca.issue("server"))
	other.refused(other.do("GET", wire.PathPlan, "", nil), http.StatusUnauthorized, model.CodeInvalidAuthToken)
}

// A long poll ends when the server stops.
func TestNodePlanStopping(t *testing.T) {
	f := newFixture(t)
	n := f.as(f.ca.issue("node-1"))
	answered := make(chan int)
	go func() {
		r := n.do("GET", wire.PathPlan+"?wait=1m", "", nil)
		answered <- r.StatusCode
	}()
	close(f.stop)
	if status := <-answered; status != http.StatusNoContent {
		t.Errorf("status %d", status)
	}
}
