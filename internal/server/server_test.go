package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/kind/kubernetes"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// running is a server of a test's.
type running struct {
	url, fingerprint string
	dir              string
	stop             func() error
}

// start runs a server until the test ends or stop is called.
func start(t *testing.T, o Options) *running {
	t.Helper()
	return startWith(t, sim.New(), o)
}

// startWith runs a server with those hosts.
func startWith(t *testing.T, fleet *sim.Fleet, o Options) *running {
	t.Helper()
	if o.DataDir == "" {
		o.DataDir = t.TempDir()
	}
	o.Listen, o.UnsafeNoFsync, o.Logger = "127.0.0.1:0", true, slog.New(slog.DiscardHandler)
	o.Kinds = kind.NewRegistry(kubernetes.Kind{})
	o.Connectors = hypervisor.Connectors{"sim": fleet}
	ready := make(chan *running, 1)
	o.Ready = func(address, fingerprint string) {
		ready <- &running{url: "https://" + address, fingerprint: fingerprint, dir: o.DataDir}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	select {
	case r := <-ready:
		r.stop = func() error {
			cancel()
			err := <-done
			done <- err
			return err
		}
		t.Cleanup(func() {
			if err := r.stop(); err != nil {
				t.Errorf("the server ended with %v", err)
			}
		})
		return r
	case err := <-done:
		cancel()
		t.Fatalf("the server did not start: %v", err)
		return nil
	}
}

func (r *running) client(t *testing.T) *client.Client {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(r.dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{
		Endpoints: []string{r.url}, Token: strings.TrimSpace(string(token)), CAFingerprint: r.fingerprint,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestFirstStart(t *testing.T) {
	r := start(t, Options{})
	for _, name := range []string{"admin.token", "seal.key"} {
		st, err := os.Stat(filepath.Join(r.dir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, st.Mode(), err)
		}
	}
	task, err := r.client(t).CreateTenant(t.Context(), model.TenantCreateSpec{Name: "acme"})
	if err != nil || task.State != model.TaskCompleted {
		t.Fatalf("the administrator's token made %+v, %v", task, err)
	}
	// Without the token: health is for anyone, figures are not.
	anyone := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer anyone.CloseIdleConnections()
	for path, want := range map[string]int{"/healthz": 200, "/metrics": 401, "/v1/tenants": 401} {
		resp, err := anyone.Get(r.url + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s answers %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	first := start(t, Options{DataDir: dir})
	if _, err := first.client(t).CreateTenant(t.Context(), model.TenantCreateSpec{Name: "acme"}); err != nil {
		t.Fatal(err)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	second := start(t, Options{DataDir: dir})
	if second.fingerprint != first.fingerprint {
		t.Error("a restart made another CA")
	}
	tenants, err := second.client(t).Tenants(t.Context())
	if err != nil || len(tenants) != 1 || tenants[0].Name != "acme" {
		t.Errorf("after a restart the tenants are %v, %v", tenants, err)
	}
}

func TestWrongSealKeyIsTold(t *testing.T) {
	dir := t.TempDir()
	if err := start(t, Options{DataDir: dir}).stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "seal.key")); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), Options{DataDir: dir, Listen: "127.0.0.1:0", UnsafeNoFsync: true, Logger: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, store.ErrKeyMissing) {
		t.Errorf("without the key: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "seal.key")); err == nil {
		t.Error("a new key was made although the store is sealed with another")
	}
}

// TestExternalEtcd runs two servers on one etcd of its own: one installation.
func TestExternalEtcd(t *testing.T) {
	endpoint, _ := startEtcd(t)
	key := filepath.Join(t.TempDir(), "seal.key")
	o := Options{EtcdEndpoints: []string{endpoint}, SealKey: key}
	one, two := start(t, o), start(t, o)
	if one.fingerprint != two.fingerprint {
		t.Error("the two have different CAs")
	}
	if _, err := one.client(t).CreateTenant(t.Context(), model.TenantCreateSpec{Name: "acme"}); err != nil {
		t.Fatal(err)
	}
	_, err := two.client(t).CreateTenant(t.Context(), model.TenantCreateSpec{Name: "acme"})
	if !errors.Is(err, model.ErrorOf(model.CodeNameTaken)) {
		t.Errorf("the other server gave the name again: %v", err)
	}
	// Whichever leads may stop: the other carries on what the API takes.
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	c := two.client(t)
	task, err := c.CreateHost(t.Context(), "default", model.HostCreateSpec{Address: "nowhere", Driver: "sim", UsageTags: []string{"CLOUD"}})
	if err != nil {
		t.Fatal(err)
	}
	task, err = c.WaitTask(t.Context(), task.ID, nil)
	if task == nil || task.State != model.TaskError {
		t.Errorf("a host that is not there: task %+v, %v", task, err)
	}
}

// startEtcd runs a real etcd of one member on loopback, until stop kills it or the test
// ends, and returns its client URL.
func startEtcd(t *testing.T) (endpoint string, stop func()) {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.UnsafeNoFsync = t.TempDir(), "error", true
	clientURL, peerURL := freeURL(t), freeURL(t)
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{clientURL}, []url.URL{clientURL}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peerURL}, []url.URL{peerURL}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	select {
	case <-etcd.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd did not start")
	}
	return clientURL.String(), etcd.Server.HardStop
}

func freeURL(t *testing.T) url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return url.URL{Scheme: "http", Host: l.Addr().String()}
}
