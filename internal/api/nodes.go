package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/wire"
	"github.com/pleiad/pleiad/internal/plan"
)

// maxWait is how long a node's long poll is held at most.
const maxWait = time.Minute

type nodeKey struct{}

// nodeRoutes serve the agents. Unlike users' fields, those that are not known
// are ignored: a node's image may be newer than its controller.
func (s *server) nodeRoutes() {
	s.handle("POST "+wire.PathRegister, route{access: Public, maxBody: wire.MaxRequest}, s.nodeRegister)
	s.handle("POST "+wire.PathRenew, route{access: byNode, maxBody: wire.MaxRequest}, s.nodeRenew)
	s.handle("GET "+wire.PathPlan, route{access: byNode, stream: true, quiet: true}, s.nodePlan)
	s.handle("POST "+wire.PathReport, route{access: byNode, maxBody: wire.MaxReport, quiet: true}, s.nodeReport)
	s.handle("POST "+wire.PathHeartbeat, route{access: byNode, maxBody: wire.MaxRequest, quiet: true}, s.nodeHeartbeat)
}

// nodeOf returns the node whose client certificate the connection has shown.
func (s *server) nodeOf(r *http.Request) (string, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", model.Errorf(model.CodeMissingAuthToken, "the connection has no client certificate of a node").
			Do("register first")
	}
	id, err := s.NodeFromCertificate(r.TLS.VerifiedChains[0][0])
	if err != nil {
		return "", model.Errorf(model.CodeInvalidAuthToken, "the client certificate is not a node's")
	}
	return id, nil
}

func nodeID(r *http.Request) string { return r.Context().Value(nodeKey{}).(string) }

// decodeNode decodes a body, which is known to be JSON.
func decodeNode(r *http.Request, v any) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if err := unmarshal(body, v); err != nil {
		return model.Errorf(model.CodeInvalidEntity, "the body %v", err)
	}
	return nil
}

// sameNode refuses a body that speaks for another node than the certificate.
func sameNode(r *http.Request, claimed string) error {
	if id := nodeID(r); claimed != id {
		return model.Errorf(model.CodeAccessForbidden, "node %s may not speak for node %q", id, clip(claimed))
	}
	return nil
}

func (s *server) nodeRegister(w http.ResponseWriter, r *http.Request) {
	var in wire.RegisterRequest
	err := decodeNode(r, &in)
	if err == nil && (in.Token == "" || in.CSR == "") {
		err = model.Errorf(model.CodeInvalidEntity, "token and csr must be given")
	}
	var certificate, ca []byte
	if err == nil {
		certificate, ca, err = s.Nodes.Register(r.Context(), in.Token, []byte(in.CSR))
	}
	s.nodeAnswer(w, r, wire.Credentials{Certificate: string(certificate), CA: string(ca)}, err)
}

func (s *server) nodeRenew(w http.ResponseWriter, r *http.Request) {
	var in wire.RenewRequest
	err := decodeNode(r, &in)
	if err == nil && in.CSR == "" {
		err = model.Errorf(model.CodeInvalidEntity, "csr must be given")
	}
	var certificate, ca []byte
	if err == nil {
		certificate, ca, err = s.Nodes.Renew(r.Context(), nodeID(r), []byte(in.CSR))
	}
	s.nodeAnswer(w, r, wire.Credentials{Certificate: string(certificate), CA: string(ca)}, err)
}

// nodePlan holds the request until there is a plan the node doesn't have.
func (s *server) nodePlan(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	var wait time.Duration
	if raw := query.Get(wire.QueryWait); raw != "" {
		var err error
		if wait, err = time.ParseDuration(raw); err != nil || wait < 0 {
			s.refuse(w, r, model.Errorf(model.CodeInvalidQueryParams, "wait must be a duration like 30s (was %q)", clip(raw)))
			return
		}
		wait = min(wait, maxWait)
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait+requestTimeout)
	defer cancel()
	ctx, release := s.untilStopping(ctx)
	defer release()
	p, err := s.Nodes.Plan(ctx, nodeID(r), query.Get(wire.QueryHash), wait)
	if err != nil && errors.Is(context.Cause(ctx), errStopping) {
		err = nil // the node will ask again, here or elsewhere
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout))
	switch {
	case err != nil:
		s.refuse(w, r, err)
	case p == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		writeJSON(w, http.StatusOK, p)
	}
}

func (s *server) nodeReport(w http.ResponseWriter, r *http.Request) {
	var in plan.Report
	err := decodeNode(r, &in)
	if err == nil {
		err = sameNode(r, in.NodeID)
	}
	if err == nil {
		err = s.Nodes.Report(r.Context(), in.NodeID, in)
	}
	s.nodeAnswer(w, r, s.intervals(), err)
}

func (s *server) nodeHeartbeat(w http.ResponseWriter, r *http.Request) {
	var in wire.Heartbeat
	err := decodeNode(r, &in)
	if err == nil {
		err = sameNode(r, in.NodeID)
	}
	if err == nil {
		err = s.Nodes.Heartbeat(r.Context(), in.NodeID)
	}
	s.nodeAnswer(w, r, s.intervals(), err)
}

func (s *server) intervals() wire.Answer {
	return wire.Answer{HeartbeatSeconds: int(s.HeartbeatInterval.Seconds())}
}

func (s *server) nodeAnswer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, v)
}
