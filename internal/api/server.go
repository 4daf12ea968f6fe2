package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pleiad/pleiad/internal/model"
)

// Config is what the API is made of. All but Logger, Metrics, Healthy,
// Stopping and HeartbeatInterval must be set.
type Config struct {
	Operations    Operations
	Sources       Sources
	Nodes         Nodes
	Authenticator Authenticator
	// NodeFromCertificate returns the id of the node whose client certificate
	// it is. The certificate's chain has been verified by the listener.
	NodeFromCertificate func(*x509.Certificate) (string, error)

	// Info is what /v1/info answers.
	Info model.Info
	// Auth is what /v1/auth answers.
	Auth model.AuthInfo

	// Logger gets one line per request, and the causes of internal errors; nil discards.
	Logger *slog.Logger
	// Metrics is what /metrics shows and where the API adds its own; nil makes
	// one that has them alone.
	Metrics *prometheus.Registry
	// Healthy says why the server can't do its work, if it cannot; nil means it always can.
	Healthy func(context.Context) error
	// Stopping ends event streams and long polls when it is closed; nil never does.
	Stopping <-chan struct{}
	// HeartbeatInterval is how often nodes are asked to send heartbeats; 0 means 10 seconds.
	HeartbeatInterval time.Duration
}

// server is the handler's state; it does not change after New.
type server struct {
	Config
	log     *slog.Logger
	mux     *http.ServeMux
	huma    huma.API
	metrics *metrics
	routes  []route
	views
}

// New returns the handler of everything the server serves.
func New(cfg Config) http.Handler { return newServer(cfg).handler() }

// NewHTTPServer returns a server for a handler made by New, without an address:
// its listener is given to Serve or ServeTLS. tlsConfig must verify client
// certificates if they are given, against the CA of nodes.
func NewHTTPServer(handler http.Handler, tlsConfig *tls.Config, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:   handler,
		TLSConfig: tlsConfig,
		// Bodies have their own deadlines, by route: an upload may take hours.
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

func newServer(cfg Config) *server {
	if cfg.HeartbeatInterval == 0 {
		cfg.HeartbeatInterval = 10 * time.Second
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	s := &server{Config: cfg, log: cfg.Logger, mux: http.NewServeMux()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.metrics = newMetrics(cfg.Metrics)
	s.views = newViews(cfg.Sources)
	s.huma = huma.NewAPI(s.humaConfig(), adapter{s})
	s.systemRoutes()
	s.tenantRoutes()
	s.infrastructureRoutes()
	s.deploymentRoutes()
	s.clusterRoutes()
	s.taskRoutes()
	s.nodeRoutes()
	s.documentRoutes()
	return s
}

// errStopping is the cause of a context that ended because the server stops.
var errStopping = errors.New("the server is stopping")

// untilStopping returns a context that also ends when the server stops. release
// must be called.
func (s *server) untilStopping(ctx context.Context) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-s.Stopping:
			cancel(errStopping)
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel(nil)
		watch.Wait()
	}
}

func (s *server) humaConfig() huma.Config {
	config := huma.DefaultConfig("Pleiad", s.Info.BaseVersion)
	config.Info.Description = "Self-service clusters on bare hypervisor hosts. " +
		"Shapes, states and error codes are those of Photon Controller's v1.1 API; what is added is typed."
	// huma's own routes for documents make them on first use, unguarded, and
	// its schema links would add a field to every object.
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", "", nil
	config.Formats = map[string]huma.Format{"application/json": {Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}}
	config.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[httpError](), reflect.TypeFor[model.Error]())
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		securityScheme: {Type: "http", Scheme: "bearer", BearerFormat: "JWT"},
	}
	return config
}

// documentRoutes serves the OpenAPI document of the routes registered so far.
func (s *server) documentRoutes() {
	document := s.huma.OpenAPI()
	asJSON, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		panic(fmt.Errorf("api: the OpenAPI document cannot be made: %w", err)) // the types are wrong, not the input
	}
	asYAML, err := document.YAML()
	if err != nil {
		panic(fmt.Errorf("api: the OpenAPI document cannot be made: %w", err))
	}
	s.handle("GET /v1/openapi.json", route{access: Public}, serveBytes("application/openapi+json", asJSON))
	s.handle("GET /v1/openapi.yaml", route{access: Public}, serveBytes("application/openapi+yaml", asYAML))
}

func serveBytes(contentType string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(content)
	}
}
