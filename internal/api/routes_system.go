package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pleiad/pleiad/internal/model"
)

// Available is what /v1/available answers when the API can be reached.
type Available struct{}

func (s *server) systemRoutes() {
	read(s, op("getAuth", "GET /v1/auth", Public, "system", "How to authenticate"),
		func(context.Context) (model.AuthInfo, error) { return s.Auth, nil })
	read(s, op("getAvailable", "GET /v1/available", Public, "system", "Whether the API can be reached"),
		func(context.Context) (Available, error) { return Available{}, nil })
	read(s, op("getInfo", "GET /v1/info", Authenticated, "system", "Versions"),
		func(context.Context) (model.Info, error) { return s.Info, nil })
	read(s, op("getStatus", "GET /v1/status", Authenticated, "system", "How the system's parts are"), s.status)

	o := withBody(op("createToken", "POST /v1/auth/tokens", Authenticated, "system", "Make an access token"))
	o.Description = "A token for somebody else than the caller is for administrators to make."
	o.DefaultStatus = http.StatusCreated
	huma.Register(s.huma, o, s.createToken)

	s.handle("GET /healthz", route{access: Public, quiet: true}, s.healthz)
	s.handle("GET /metrics", route{access: Authenticated, quiet: true},
		promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{Registry: s.Metrics}).ServeHTTP)
}

func (s *server) status(ctx context.Context) (model.SystemStatus, error) {
	status, err := s.Operations.Status(ctx)
	orEmpty(&status.Components)
	return status, err
}

func (s *server) createToken(ctx context.Context, in *bodied[model.TokenCreateSpec]) (*answer[model.Token], error) {
	caller, _ := PrincipalFrom(ctx)
	spec := in.Body
	if spec.Subject == "" {
		spec.Subject = caller.Subject
	}
	if spec.Subject != caller.Subject && !caller.Admin {
		return answered(ctx, s, model.Token{}, model.Errorf(model.CodeAccessForbidden,
			"%s may not make a token for somebody else", caller.Subject).Do("ask an administrator to do it"))
	}
	token, err := s.Authenticator.IssueToken(ctx, caller, spec)
	return answered(ctx, s, token, err)
}

// health is what /healthz answers.
type health struct {
	Status string     `json:"status"`
	Code   model.Code `json:"code,omitempty"`
}

// healthz tells load balancers whether to send requests here. The code is all
// it says of what is wrong, the rest is in the log: this route is public.
func (s *server) healthz(w http.ResponseWriter, r *http.Request) {
	if s.Healthy != nil {
		if err := s.Healthy(r.Context()); err != nil {
			s.log.WarnContext(r.Context(), "not healthy", "error", err)
			writeJSON(w, http.StatusServiceUnavailable, health{"error", model.AsError(err).Code})
			return
		}
	}
	writeJSON(w, http.StatusOK, health{Status: "ok"})
}
