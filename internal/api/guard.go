package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/pleiad/pleiad/internal/model"
)

// Access says who may use a route.
type Access int

// Levels of access. The zero value is the strictest.
const (
	Admin         Access = iota // administrators
	Authenticated               // whoever has a valid token
	Public                      // anyone
	byNode                      // a node, by its client certificate
)

// MaxBody is the size of the largest JSON body, in bytes; uploads have no limit here.
const MaxBody = 1 << 20

const (
	bodyTimeout    = 30 * time.Second // to read a JSON body
	requestTimeout = 60 * time.Second // for an operation
	answerTimeout  = 90 * time.Second // until the answer is written, from the request's start
	stallTimeout   = 60 * time.Second // for a stream or an upload that doesn't move
)

// route is what guards a route.
type route struct {
	pattern string // set by handle
	access  Access
	// maxBody is the limit of a JSON body, in bytes; 0 for a route without one.
	maxBody int64
	// stream exempts from deadlines: the handler sets its own as data moves.
	stream bool
	// quiet is for what is called all the time: it is logged at debug level.
	quiet bool
}

// handle registers a route with what guards it.
func (s *server) handle(pattern string, rt route, h http.HandlerFunc) {
	rt.pattern = pattern
	s.routes = append(s.routes, rt)
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		noteOf(r).route = rt
		r, err := s.admit(rt, w, r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		if !rt.stream {
			ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
			defer cancel()
			r = r.WithContext(ctx)
		}
		h(w, r)
	})
}

// admit authenticates a request and reads its body, if it is JSON.
func (s *server) admit(rt route, w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	if rt.stream {
		setDeadlines(w, time.Time{}, time.Time{})
	}
	switch rt.access {
	case Public:
	case byNode:
		id, err := s.nodeOf(r)
		if err != nil {
			return r, err
		}
		noteOf(r).principal = "node:" + id
		r = r.WithContext(context.WithValue(r.Context(), nodeKey{}, id))
	default:
		p, err := s.authenticate(rt.access, r)
		if err != nil {
			return r, err
		}
		noteOf(r).principal = p.Subject
		r = r.WithContext(WithPrincipal(r.Context(), p))
	}
	if rt.maxBody > 0 {
		body, err := readJSON(w, r, rt.maxBody)
		if err != nil {
			return r, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json") // as huma spells it
	}
	if !rt.stream {
		// The connection is read from while the operation runs, to notice that
		// the client has gone; a deadline would be taken for that.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	return r, nil
}

// setDeadlines bounds the reading and the writing of what is left of a request;
// the zero time is no bound. An error means that the connection has no
// deadlines, as in some tests.
func setDeadlines(w http.ResponseWriter, read, write time.Time) {
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(read)
	_ = conn.SetWriteDeadline(write)
}

// authenticate returns who sent the request if they may have that access.
func (s *server) authenticate(access Access, r *http.Request) (Principal, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return Principal{}, model.Errorf(model.CodeMissingAuthToken, "the request has no access token").
			Do("send one in the header Authorization: Bearer TOKEN")
	}
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return Principal{}, model.Errorf(model.CodeMalformedAuthToken, "the header Authorization has no bearer token").
			Do("send Authorization: Bearer TOKEN")
	}
	p, err := s.Authenticator.Authenticate(r.Context(), token)
	if err != nil {
		return Principal{}, err
	}
	if access == Admin && !p.Admin {
		return Principal{}, model.Errorf(model.CodeAccessForbidden, "%s is not an administrator", p.Subject).
			Do("ask an administrator to do it")
	}
	return p, nil
}

// readJSON reads a body and checks that it is a JSON document within limit.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/json" {
			return nil, model.Errorf(model.CodeInvalidEntity, "Content-Type must be application/json (was %q)", clip(ct))
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, model.Errorf(model.CodeRequestTooLarge, "the body is larger than %d bytes, the limit here", limit).
			With("limit", fmt.Sprint(limit))
	case err != nil:
		return nil, model.Errorf(model.CodeInvalidJSON, "the body was cut off after %d bytes", len(body))
	case len(bytes.TrimSpace(body)) == 0:
		return nil, model.Errorf(model.CodeInvalidJSON, "the body is empty; a JSON object is expected")
	}
	var document json.RawMessage
	if err := json.Unmarshal(body, &document); err != nil {
		e := model.Errorf(model.CodeInvalidJSON, "the body is not JSON: %v", err)
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			e.Message = fmt.Sprintf("the body is not JSON: %v, at byte %d", err, syntax.Offset)
		}
		return nil, e
	}
	return body, nil
}

// unmarshal is json.Unmarshal with errors for people. huma calls it with bodies
// that are known to be JSON, so what is left are values that don't fit.
func unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	var misfit *json.UnmarshalTypeError
	if !errors.As(err, &misfit) {
		return err
	}
	if misfit.Field == "" {
		return fmt.Errorf("holds a %s that is out of range", misfit.Value)
	}
	return fmt.Errorf(".%s must not be a %s that is out of range", misfit.Field, misfit.Value)
}

// refuse answers with err; one that isn't for users is logged and answered as InternalError.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	writeError(w, s.userError(r.Context(), err))
}

// userError returns what a user is told of err.
func (s *server) userError(ctx context.Context, err error) *model.Error {
	var e *model.Error
	if errors.As(err, &e) {
		if e.Data == nil {
			shown := *e
			shown.Data = map[string]string{}
			e = &shown
		}
		return e
	}
	id := requestID(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		s.log.WarnContext(ctx, "request abandoned", "request", id, "error", err)
	} else {
		s.log.ErrorContext(ctx, "internal error", "request", id, "error", err)
	}
	return model.AsError(err).With("requestId", id)
}

// adapter registers huma's operations as routes.
type adapter struct{ *server }

func (a adapter) Handle(op *huma.Operation, handler func(huma.Context)) {
	rt := op.Metadata[routeKey].(route)
	a.handle(op.Method+" "+op.Path, rt, func(w http.ResponseWriter, r *http.Request) {
		handler(humago.NewContext(op, r, w))
	})
}

func (a adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }
