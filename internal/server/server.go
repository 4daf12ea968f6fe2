package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pleiad/pleiad/internal/api"
	"github.com/pleiad/pleiad/internal/control"
	"github.com/pleiad/pleiad/internal/imagefile"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// Run serves until ctx ends, then stops: no new requests, requests under way
// end or are cut off after DrainTimeout, the controller puts down its work where it can be taken up again, and
// the store is closed last. It returns an error if it could not start, or if the store failed.
func Run(ctx context.Context, o Options) (err error) {
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	etcdTLS, err := o.etcdTLS()
	if err != nil {
		return err
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = defaultDrainTimeout
	}
	if o.SealKey == "" {
		o.SealKey = filepath.Join(o.DataDir, "seal.key")
	}
	sealer, err := store.NewFileSealer(o.SealKey)
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, store.Options{
		DataDir: filepath.Join(o.DataDir, "store"), Endpoints: o.EtcdEndpoints, TLS: etcdTLS,
		Sealer: sealer, Logger: o.Logger, UnsafeNoFsync: o.UnsafeNoFsync,
	})
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()

	identity, err := loadIdentity(ctx, st, time.Now)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if err := identity.writeAdminToken(filepath.Join(o.DataDir, "admin.token"), o.Logger); err != nil {
		return err
	}
	images, err := openImages(filepath.Join(o.DataDir, "images"), st, o.Logger)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", o.Listen, err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	endpoints, err := o.nodeEndpoints(port)
	if err != nil {
		return err
	}
	hostname, _ := os.Hostname() // for people; the id below is what counts
	controller := control.New(control.Config{
		Store: st, Kinds: o.Kinds, Connectors: o.Connectors, Images: images, Identity: identity.control(),
		NodeEndpoints: endpoints, Replica: fmt.Sprintf("%s:%d", hostname, port), Logger: o.Logger,
	})

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	handler := api.New(apiConfig(ctx, o, st, identity, controller))
	certificate, err := newServingCertificate(identity, o.names, o.Logger)
	if err != nil {
		return err
	}
	tlsConfig := certificate.tlsConfig()
	var inHand sync.WaitGroup // requests
	srv := api.NewHTTPServer(counted(&inHand, handler), tlsConfig, o.Logger)
	requests, cutOff := context.WithCancel(context.WithoutCancel(ctx))
	defer cutOff()
	srv.BaseContext = func(net.Listener) context.Context { return requests }

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := controller.Run(ctx); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() {
		if err := srv.Serve(tls.NewListener(listener, tlsConfig)); !errors.Is(err, http.ErrServerClosed) {
			cancel(fmt.Errorf("serve: %w", err))
		}
	})
	wg.Go(func() {
		select {
		case err := <-st.Failed():
			cancel(fmt.Errorf("the store failed: %w", err))
		case <-ctx.Done():
		}
	})
	o.Logger.Info("serving", "address", listener.Addr().String(), "caSha256", identity.fingerprint(), "nodes", endpoints)
	if o.Ready != nil {
		o.Ready(listener.Addr().String(), identity.fingerprint())
	}
	<-ctx.Done()
	cause := context.Cause(ctx)
	o.Logger.Info("stopping", "cause", cause)
	shutdown, done := context.WithTimeout(context.WithoutCancel(ctx), o.DrainTimeout)
	defer done()
	if err := srv.Shutdown(shutdown); err != nil {
		o.Logger.Warn("requests were cut off", "error", err)
		cutOff()
		_ = srv.Close()
	}
	wg.Wait()
	inHand.Wait() // those cut off clean up behind them while there is a store
	if errors.Is(cause, context.Canceled) {
		return nil
	}
	return cause
}

func apiConfig(ctx context.Context, o Options, st *store.Store, id *identity, c *control.Controller) api.Config {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registerCounts(registry, st)
	return api.Config{
		Operations: c, Nodes: c, Authenticator: id, NodeFromCertificate: nodeFromCertificate,
		Sources: sources(st),
		Info: model.Info{
			BaseVersion: o.Version, FullVersion: o.Version + "+" + o.Commit, GitCommitHash: o.Commit, NetworkType: "PHYSICAL",
		},
		Auth:     model.AuthInfo{Enabled: true},
		Logger:   o.Logger,
		Metrics:  registry,
		Healthy:  (&health{life: ctx, probe: probeStore(st), clock: time.Now}).check,
		Stopping: ctx.Done(),
	}
}

// counted is a handler whose requests in hand are counted.
func counted(inHand *sync.WaitGroup, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inHand.Add(1)
		defer inHand.Done()
		h.ServeHTTP(w, r)
	})
}

// openImages opens the directory of image files and deletes those the store
// knows nothing of: a crash came between the file and its record. A store that
// knows of no image at all may be another one than these files belong to.
func openImages(dir string, st *store.Store, log *slog.Logger) (*imagefile.Store, error) {
	images, err := imagefile.Open(dir)
	if err != nil {
		return nil, err
	}
	recorded, _, err := store.Images.List(st, store.Query{})
	if err != nil {
		return nil, err
	}
	if len(recorded) == 0 {
		return images, nil
	}
	pruned, err := images.Prune(func(id string) bool {
		return slices.ContainsFunc(recorded, func(img *model.Image) bool { return img.ID == id })
	})
	if len(pruned) > 0 {
		log.Warn("image files without a record were deleted", "images", pruned)
	}
	return images, err
}

func sources(st *store.Store) api.Sources {
	return api.Sources{
		Tenants:         api.Stored(st, store.Tenants),
		ResourceTickets: api.Stored(st, store.ResourceTickets, "tenantId"),
		Projects:        api.Stored(st, store.Projects, "tenantId"),
		Flavors:         api.Stored(st, store.Flavors, "kind"),
		Images:          api.Stored(st, store.Images),
		Zones:           api.Stored(st, store.Zones),
		Hosts:           api.Stored(st, store.Hosts),
		Datastores:      api.Stored(st, store.Datastores),
		Orphans:         api.Stored(st, store.Orphans),
		Subnets:         api.Stored(st, store.Subnets),
		Deployments:     api.Stored(st, store.Deployments),
		VMs:             api.Stored(st, store.VMs, "projectId", "clusterId", "hostId"),
		Clusters:        api.Stored(st, store.Clusters, "projectId"),
		Tasks:           api.Stored(st, store.Tasks, "entityId", "state", "projectId", "tenantId"),
	}
}

// registerCounts shows how many objects of each noun there are.
func registerCounts(r *prometheus.Registry, st *store.Store) {
	count := func(noun string, n func() (int, error)) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pleiad_objects", Help: "Objects in the store, by noun.", ConstLabels: prometheus.Labels{"noun": noun},
		}, func() float64 {
			v, err := n()
			if err != nil {
				return -1
			}
			return float64(v)
		}))
	}
	all := store.Query{}
	count("host", func() (int, error) { return store.Hosts.Count(st, all) })
	count("vm", func() (int, error) { return store.VMs.Count(st, all) })
	count("cluster", func() (int, error) { return store.Clusters.Count(st, all) })
	count("project", func() (int, error) { return store.Projects.Count(st, all) })
	count("task", func() (int, error) { return store.Tasks.Count(st, all) })
}
