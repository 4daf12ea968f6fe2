package api

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pleiad/pleiad/internal/model"
)

// note is what is learnt of a request on its way, for its log line. It belongs
// to the request's goroutine.
type note struct {
	id        string
	route     route
	principal string
}

type noteKey struct{}

func noteOf(r *http.Request) *note { return r.Context().Value(noteKey{}).(*note) }

// requestID returns the id of the request whose context this is.
func requestID(ctx context.Context) string {
	if n, ok := ctx.Value(noteKey{}).(*note); ok {
		return n.id
	}
	return ""
}

// handler gives each request an id and a log line, counts it, and recovers from
// its panics; then it is routed.
func (s *server) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		n := &note{id: r.Header.Get("REQUEST-ID")}
		if !decentID(n.id) {
			n.id = rand.Text()
		}
		r = r.WithContext(context.WithValue(r.Context(), noteKey{}, n))
		out := &recorder{ResponseWriter: w}
		// Not only by route: what an earlier request on the connection has set stays.
		setDeadlines(out, start.Add(bodyTimeout), start.Add(answerTimeout))
		out.Header().Set("REQUEST-ID", n.id)
		out.Header().Set("X-API-VERSION", s.Info.BaseVersion)
		out.Header().Set("X-Content-Type-Options", "nosniff")
		out.Header().Set("Cache-Control", "no-store")
		defer func() {
			cause := recover()
			if cause != nil && !isAbort(cause) {
				s.log.Error("panic while serving a request", "request", n.id, "route", n.route.pattern,
					"panic", cause, "stack", string(debug.Stack()))
				if out.status == 0 {
					s.refuse(out, r, model.AsError(nil).With("requestId", n.id))
					cause = nil
				}
			}
			s.record(r, n, out, time.Since(start))
			if cause != nil {
				panic(http.ErrAbortHandler) // the answer is broken off: let the client see it
			}
		}()
		s.dispatch(out, r)
	})
}

func isAbort(cause any) bool {
	err, ok := cause.(error)
	return ok && errors.Is(err, http.ErrAbortHandler)
}

// decentID reports whether a client's request id may be shown in logs and answers.
func decentID(id string) bool {
	return id != "" && len(id) <= 64 && strings.IndexFunc(id, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !strings.ContainsRune("-_.:", c)
	}) < 0
}

// methods that routes have, in the order in which Allow lists them.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// dispatch finds the route; a trailing slash is tolerated.
func (s *server) dispatch(w http.ResponseWriter, r *http.Request) {
	if trimmed := strings.TrimRight(r.URL.Path, "/"); trimmed != "" && trimmed != r.URL.Path {
		u := *r.URL
		u.Path, u.RawPath = trimmed, strings.TrimRight(u.RawPath, "/")
		r.URL = &u // r is our own copy
	}
	shown := clip(r.URL.Path)
	// The mux would answer an unclean path with a redirect, which turns a POST into a GET.
	if escaped := r.URL.EscapedPath(); path.Clean(escaped) != escaped {
		s.refuse(w, r, model.Errorf(model.CodeNotFound, "there is nothing at %q", shown))
		return
	}
	if _, pattern := s.mux.Handler(r); pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	var allowed []string
	for _, method := range methods {
		probe := *r
		probe.Method = method
		if _, pattern := s.mux.Handler(&probe); pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		s.refuse(w, r, model.Errorf(model.CodeNotFound, "there is nothing at %q", shown).
			Do("see /v1/openapi.json for what there is"))
		return
	}
	list := strings.Join(allowed, ", ")
	w.Header().Set("Allow", list)
	writeJSON(w, http.StatusMethodNotAllowed, model.Errorf(model.CodeInvalidOperation,
		"%s cannot be used on %q, only %s", clip(r.Method), shown, list))
}

// record writes the log line and counts the request.
func (s *server) record(r *http.Request, n *note, out *recorder, took time.Duration) {
	level := slog.LevelInfo
	switch {
	case out.status >= http.StatusInternalServerError:
		level = slog.LevelError
	case n.route.quiet:
		level = slog.LevelDebug
	}
	name := n.route.pattern
	if name == "" {
		name = "none" // an attacker's paths must not become labels
	}
	s.log.Log(r.Context(), level, "request", "request", n.id, "method", r.Method, "path", clip(r.URL.Path),
		"route", name, "status", out.status, "bytes", out.bytes, "duration", took.Round(time.Microsecond),
		"principal", n.principal, "remote", r.RemoteAddr)
	s.metrics.requests.WithLabelValues(name, strconv.Itoa(out.status)).Inc()
	if !n.route.stream {
		s.metrics.seconds.WithLabelValues(name).Observe(took.Seconds())
	}
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// metrics of the API.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(registry *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pleiad_http_requests_total", Help: "Requests answered, by route and HTTP status.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pleiad_http_request_duration_seconds",
			Help: "Time to answer a request, by route; streams, uploads and long polls are not counted.",
			Buckets: []float64{
				.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60,
			},
		}, []string{"route"}),
	}
	registry.MustRegister(m.requests, m.seconds)
	return m
}
