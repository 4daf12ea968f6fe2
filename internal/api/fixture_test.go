package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/plan"
)

// memory is a Source of a fixed list.
type memory[T any] struct {
	items   []*T
	id      func(*T) string
	indexed map[string]func(*T) string
}

func (m memory[T]) Get(_ context.Context, id string) (*T, error) {
	for _, v := range m.items {
		if m.id(v) == id {
			return v, nil
		}
	}
	return nil, ErrNotFound
}

func (m memory[T]) List(_ context.Context, q Query) ([]*T, error) {
	if q.Limit <= 0 {
		return nil, errors.New("list without a limit")
	}
	if q.Index != "" && m.indexed[q.Index] == nil {
		return nil, errors.New("no index " + q.Index)
	}
	var found []*T
	for _, v := range m.items {
		if m.id(v) > q.After && (q.Index == "" || m.indexed[q.Index](v) == q.Value) && len(found) < q.Limit {
			found = append(found, v)
		}
	}
	return found, nil
}

func (m memory[T]) Count(context.Context) (int, error) { return len(m.items), nil }

func (m memory[T]) Indexed(field string) bool { return m.indexed[field] != nil }

// operations is a strict fake: it records what was asked for, refuses what the
// API should have refused, and fails with fail.
type operations struct {
	Operations // nil: what is not faked panics

	mu    sync.Mutex
	calls []string
	fail  error
	// image is what CreateImage read, imageErr how reading ended.
	image    bytes.Buffer
	imageErr error
	// stopAfter makes CreateImage fail after so many bytes, if it is not 0.
	stopAfter int64
	watch     func(context.Context, func(model.Task) error) error
}

func (o *operations) did(call string) (*model.Task, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, call)
	if o.fail != nil {
		return nil, o.fail
	}
	return &model.Task{ID: "task-1", Operation: "TEST", State: model.TaskQueued}, nil
}

func (o *operations) called() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.calls)
}

func (o *operations) CreateTenant(_ context.Context, s model.TenantCreateSpec) (*model.Task, error) {
	if s.Name == "panic" {
		panic("boom")
	}
	return o.did("CreateTenant " + s.Name)
}
func (o *operations) DeleteTenant(_ context.Context, id string) (*model.Task, error) {
	return o.did("DeleteTenant " + id)
}
func (o *operations) CreateResourceTicket(_ context.Context, id string, s model.ResourceTicketCreateSpec) (*model.Task, error) {
	return o.did("CreateResourceTicket " + id + " " + s.Name)
}
func (o *operations) DeleteResourceTicket(_ context.Context, id string) (*model.Task, error) {
	return o.did("DeleteResourceTicket " + id)
}
func (o *operations) CreateProject(_ context.Context, id string, s model.ProjectCreateSpec) (*model.Task, error) {
	return o.did("CreateProject " + id + " " + s.Name)
}
func (o *operations) DeleteProject(_ context.Context, id string) (*model.Task, error) {
	return o.did("DeleteProject " + id)
}
func (o *operations) CreateFlavor(_ context.Context, s model.FlavorCreateSpec) (*model.Task, error) {
	return o.did("CreateFlavor " + s.Name)
}
func (o *operations) DeleteFlavor(_ context.Context, id string) (*model.Task, error) {
	return o.did("DeleteFlavor " + id)
}
func (o *operations) DeleteImage(_ context.Context, id string) (*model.Task, error) {
	return o.did("DeleteImage " + id)
}
func (o *operations) CreateZone(_ context.Context, s model.ZoneCreateSpec) (*model.Task, error) {
	return o.did("CreateZone " + s.Name)
}
func (o *operations) DeleteZone(_ context.Context, id string) (*model.Task, error) {
	return o.did("DeleteZone " + id)
}
func (o *operations) CreateHost(_ context.Context, s model.HostCreateSpec) (*model.Task, error) {
	return o.did("CreateHost " + s.Address)
}
func (o *operations) DeleteHost(_ context.Context, id string) (*model.Task, error) {
	return o.did("DeleteHost " + id)
}
func (o *operations) CreateSubnet(_ context.Context, s model.SubnetCreateSpec) (*model.Task, error) {
	return o.did("CreateSubnet " + s.Name)
}
func (o *operations) DeleteSubnet(_ context.Context, id string) (*model.Task, error) {
	return o.did("DeleteSubnet " + id)
}
func (o *operations) SetDefaultSubnet(_ context.Context, id string) (*model.Task, error) {
	return o.did("SetDefaultSubnet " + id)
}
func (o *operations) EnableClusterType(_ context.Context, s model.ClusterConfigurationSpec) (*model.Task, error) {
	return o.did("EnableClusterType " + s.Type + " " + s.ImageID)
}
func (o *operations) DisableClusterType(_ context.Context, s model.ClusterConfigurationSpec) (*model.Task, error) {
	return o.did("DisableClusterType " + s.Type)
}
func (o *operations) CreateCluster(_ context.Context, id string, s model.ClusterCreateSpec) (*model.Task, error) {
	return o.did("CreateCluster " + id + " " + s.Name)
}
func (o *operations) ResizeCluster(_ context.Context, id string, op model.ClusterResizeOperation) (*model.Task, error) {
	return o.did(fmt.Sprintf("ResizeCluster %s %d", id, *op.NewWorkerCount))
}

func (o *operations) DeleteCluster(_ context.Context, id string) (*model.Task, error) {
	return o.did("DeleteCluster " + id)
}

func (o *operations) CreateImage(_ context.Context, name, replication string, body io.Reader) (*model.Task, error) {
	if o.stopAfter > 0 {
		_, err := io.CopyN(io.Discard, body, o.stopAfter)
		return nil, errors.Join(o.fail, err)
	}
	_, err := o.image.ReadFrom(body)
	o.imageErr = err
	if err != nil {
		o.image.Reset()
		return nil, err
	}
	return o.did("CreateImage " + name + " " + replication)
}

func (o *operations) Access(_ context.Context, id, file string) ([]byte, error) {
	_, err := o.did("Access " + id + " " + file)
	return []byte("apiVersion: v1\n"), err
}

func (o *operations) WatchTask(ctx context.Context, _ string, changed func(model.Task) error) error {
	return o.watch(ctx, changed)
}

func (o *operations) Status(context.Context) (model.SystemStatus, error) {
	return model.SystemStatus{Status: "READY"}, nil
}

// tokens is an Authenticator of fixed tokens.
type tokens struct{}

func (tokens) Authenticate(_ context.Context, token string) (Principal, error) {
	switch token {
	case "admin":
		return Principal{Subject: "administrator", Admin: true}, nil
	case "user":
		return Principal{Subject: "ada"}, nil
	case "expired":
		return Principal{}, model.Errorf(model.CodeExpiredAuthToken, "the token has expired")
	default:
		return Principal{}, model.Errorf(model.CodeInvalidAuthToken, "the token is not one of ours")
	}
}

func (tokens) IssueToken(_ context.Context, _ Principal, s model.TokenCreateSpec) (model.Token, error) {
	if s.Subject == "" {
		return model.Token{}, errors.New("no subject")
	}
	return model.Token{AccessToken: "new", Subject: s.Subject, ExpiresTime: 1}, nil
}

// agents is a strict fake of Nodes.
type agents struct {
	mu      sync.Mutex
	reports []plan.Report
	plan    *plan.Plan
}

func (a *agents) Register(_ context.Context, token string, csr []byte) (certificate, ca []byte, err error) {
	if token != "once" {
		return nil, nil, model.Errorf(model.CodeInvalidAuthToken, "the token is not good")
	}
	return append([]byte("signed "), csr...), []byte("ca"), nil
}

func (a *agents) Renew(_ context.Context, id string, csr []byte) (certificate, ca []byte, err error) {
	return []byte("renewed " + id + " " + string(csr)), []byte("ca"), nil
}

func (a *agents) Plan(ctx context.Context, id, hash string, wait time.Duration) (*plan.Plan, error) {
	if a.plan != nil && a.plan.Hash() != hash {
		return a.plan, nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	<-ctx.Done()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, nil
	}
	return nil, ctx.Err()
}

func (a *agents) Report(_ context.Context, _ string, r plan.Report) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reports = append(a.reports, r)
	return nil
}

func (a *agents) Heartbeat(context.Context, string) error { return nil }

// fixture is a server with one object of each noun, whose id is the noun's
// kind, and 250 flavors.
type fixture struct {
	*httptest.Server
	client *http.Client
	t      testing.TB
	api    *server
	ops    *operations
	node   *agents
	log    *bytes.Buffer
	stop   chan struct{}
	ca     *authority
}

func single[T any](n noun[T], v T) memory[T] {
	*n.head(&v).id = n.kind
	return memory[T]{items: []*T{&v}, id: n.id}
}

func newConfig(ops *operations, node *agents, log io.Writer, stop chan struct{}) Config {
	flavorSource := memory[model.Flavor]{id: flavors.id}
	for i := range 250 {
		kind, name := model.FlavorVM, "small"
		if i%5 == 0 {
			kind = model.FlavorEphemeralDisk
		}
		if i == 240 {
			name = "rare"
		}
		flavorSource.items = append(flavorSource.items, &model.Flavor{ID: big.NewInt(int64(1000 + i)).String(), Name: name, Kind: kind})
	}
	flavorSource.indexed = map[string]func(*model.Flavor) string{"kind": func(f *model.Flavor) string { return f.Kind }}
	vmSource := single(vms, model.VM{ProjectID: "project", ClusterID: "cluster", HostID: "host"})
	vmSource.indexed = map[string]func(*model.VM) string{"projectId": func(v *model.VM) string { return v.ProjectID }}
	return Config{
		Operations: ops, Nodes: node, Authenticator: tokens{},
		Sources: Sources{
			Tenants:         single(tenants, model.Tenant{}),
			ResourceTickets: single(tickets, model.ResourceTicket{TenantID: "tenant"}),
			Projects:        single(projects, model.Project{TenantID: "tenant"}),
			Flavors:         flavorSource,
			Images:          single(images, model.Image{}),
			Zones:           single(zones, model.Zone{}),
			Hosts:           single(hosts, model.Host{}),
			Datastores:      single(datastores, model.Datastore{Meta: model.Meta{Tags: []string{"fast"}}}),
			Orphans:         single(orphans, model.Orphan{HostID: "host"}),
			Subnets:         single(subnets, model.Subnet{}),
			Deployments:     single(deployments, model.Deployment{ClusterConfigurations: []model.ClusterConfiguration{{}}}),
			VMs:             vmSource,
			Clusters:        single(clusters, model.Cluster{ProjectID: "project"}),
			Tasks:           single(tasks, model.Task{State: model.TaskStarted, TenantID: "tenant", Entity: model.Entity{ID: "cluster", Kind: "cluster"}}),
		},
		NodeFromCertificate: func(c *x509.Certificate) (string, error) {
			if id, ok := strings.CutPrefix(c.Subject.CommonName, "node-"); ok {
				return id, nil
			}
			return "", errors.New("not a node")
		},
		Info:     model.Info{BaseVersion: "1.1.1", FullVersion: "1.1.1+test", NetworkType: "PHYSICAL"},
		Auth:     model.AuthInfo{Enabled: true},
		Logger:   slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Stopping: stop,
	}
}

// lockedWriter lets a test read the log after the server has ended.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, ops: &operations{}, node: &agents{}, log: &bytes.Buffer{}, stop: make(chan struct{}), ca: newAuthority(t)}
	f.api = newServer(newConfig(f.ops, f.node, &lockedWriter{w: f.log}, f.stop))
	f.Server = httptest.NewUnstartedServer(f.api.handler())
	f.Server.EnableHTTP2 = true
	f.Server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: f.ca.pool}
	f.StartTLS()
	f.client = f.Client()
	t.Cleanup(f.Server.Close)
	return f
}

// reply is an answer that was read.
type reply struct {
	*http.Response
	text string
}

// do sends a request; body may be nil, a string or a reader.
func (f *fixture) do(method, path, token string, body any, header ...string) reply {
	f.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case string:
		r = strings.NewReader(b)
	case io.Reader:
		r = b
	}
	q, err := http.NewRequest(method, f.URL+path, r)
	if err != nil {
		f.t.Fatal(err)
	}
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	response, err := f.client.Do(q)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{response, string(text)}
}

// refused checks that an answer is an error of ours, and returns it.
func (f *fixture) refused(r reply, status int, code model.Code) *model.Error {
	f.t.Helper()
	if r.StatusCode != status {
		f.t.Fatalf("%s %s: status %d, want %d: %s", r.Request.Method, r.Request.URL.Path, r.StatusCode, status, r.text)
	}
	if ct := r.Header.Get("Content-Type"); ct != "application/json" {
		f.t.Errorf("%s %s: content type %q of an error", r.Request.Method, r.Request.URL.Path, ct)
	}
	var raw map[string]any
	if err := json.Unmarshal([]byte(r.text), &raw); err != nil {
		f.t.Fatalf("%s %s: error is not JSON: %q", r.Request.Method, r.Request.URL.Path, r.text)
	}
	if _, ok := raw["data"].(map[string]any); !ok {
		f.t.Errorf("%s %s: error without data: %s", r.Request.Method, r.Request.URL.Path, r.text)
	}
	e := new(model.Error)
	if err := json.Unmarshal([]byte(r.text), e); err != nil {
		f.t.Fatal(err)
	}
	if e.Code != code || e.Message == "" {
		f.t.Fatalf("%s %s: %s %q, want %s", r.Request.Method, r.Request.URL.Path, e.Code, e.Message, code)
	}
	if r.Header.Get("REQUEST-ID") == "" || r.Header.Get("X-API-VERSION") == "" {
		f.t.Errorf("%s %s: headers are missing: %v", r.Request.Method, r.Request.URL.Path, r.Header)
	}
	return e
}

// parse reads a success.
func parse[T any](f *fixture, r reply, status int) T {
	f.t.Helper()
	var v T
	if r.StatusCode != status {
		f.t.Fatalf("%s %s: status %d, want %d: %s", r.Request.Method, r.Request.URL.Path, r.StatusCode, status, r.text)
	}
	if err := json.Unmarshal([]byte(r.text), &v); err != nil {
		f.t.Fatalf("%s %s: %v: %s", r.Request.Method, r.Request.URL.Path, err, r.text)
	}
	return v
}

// authority signs certificates of nodes.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue signs a client certificate.
func (a *authority) issue(commonName string) tls.Certificate {
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: commonName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
