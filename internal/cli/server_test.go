package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/api"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/pki"
)

// Ids and the token of the server in these tests.
const (
	testToken    = "test-token"
	deploymentID = "00000000-0000-4000-8000-000000000001"
	tenantID     = "00000000-0000-4000-8000-000000000011"
	ticketID     = "00000000-0000-4000-8000-000000000021"
	projectID    = "00000000-0000-4000-8000-000000000031"
	hostID       = "00000000-0000-4000-8000-000000000041"
	imageID      = "00000000-0000-4000-8000-000000000051"
	subnetID     = "00000000-0000-4000-8000-000000000061"
	clusterID    = "00000000-0000-4000-8000-000000000071"
	masterID     = "00000000-0000-4000-8000-000000000081"
	workerID     = "00000000-0000-4000-8000-000000000082"
	orphanID     = "00000000-0000-4000-8000-000000000085"
	taskID       = "00000000-0000-4000-8000-000000000091"
)

// shelf is a Source in memory.
type shelf[T any] struct {
	mu    sync.Mutex
	items []*T
	id    func(*T) string
}

func newShelf[T any](id func(*T) string, items ...T) *shelf[T] {
	s := &shelf[T]{id: id}
	for i := range items {
		s.put(items[i])
	}
	return s
}

func (s *shelf[T]) put(v T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items = append(s.items, &v)
	slices.SortFunc(s.items, func(a, b *T) int { return cmp.Compare(s.id(a), s.id(b)) })
}

func (s *shelf[T]) Get(_ context.Context, id string) (*T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.items {
		if s.id(v) == id {
			return v, nil
		}
	}
	return nil, api.ErrNotFound
}

func (s *shelf[T]) List(_ context.Context, q api.Query) ([]*T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*T
	for _, v := range s.items {
		if s.id(v) > q.After && len(found) < q.Limit {
			found = append(found, v)
		}
	}
	return found, nil
}

func (s *shelf[T]) Count(context.Context) (int, error) { return len(s.items), nil }
func (s *shelf[T]) Indexed(string) bool                { return false }

func meta(id, name string) model.Meta { return model.Meta{ID: id, Name: name} }

// testServer is the real API over operations that are made up.
type testServer struct {
	api.Operations // nil: what a test needs is below
	api.Nodes

	url, fingerprint string
	tenants          *shelf[model.Tenant]
	flavors          *shelf[model.Flavor]
	clusters         *shelf[model.Cluster]
	tasks            *shelf[model.Task]

	mu       sync.Mutex
	uploaded int64
	cluster  model.ClusterCreateSpec
	host     model.HostCreateSpec
	subnet   model.SubnetCreateSpec
	made     int
}

// newTestServer serves until the test ends.
func newTestServer(t *testing.T) *testServer {
	t.Helper()
	s := &testServer{
		tenants: newShelf(func(v *model.Tenant) string { return v.ID }, model.Tenant{Meta: meta(tenantID, "acme")}),
		flavors: newShelf(func(v *model.Flavor) string { return v.ID }),
		clusters: newShelf(func(v *model.Cluster) string { return v.ID }, model.Cluster{
			Meta: meta(clusterID, "demo"), Type: model.Kubernetes, State: model.ClusterReady, ProjectID: projectID,
			Version: "v1.37.1", ControlPlane: model.NodeGroup{Count: 1}, WorkerCount: 1, Endpoint: "https://100.64.10.20:6443",
			Conditions: []model.Condition{{Type: "Ready", Status: "True", Message: "all 2 nodes are Ready"}},
		}),
		tasks: newShelf(func(v *model.Task) string { return v.ID }, createTask("demo")[2]),
	}
	authority, err := pki.NewAuthority("Pleiad CA", time.Hour, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(pki.Leaf{CommonName: "pleiad", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Server: true}, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(append(pair.Certificate, authority.Certificate()...), pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewUnstartedServer(api.New(api.Config{
		Operations: s, Sources: s.sources(), Nodes: s, Authenticator: s,
		Info: model.Info{BaseVersion: "0.1", FullVersion: "0.1.0", GitCommitHash: "abc", NetworkType: "PHYSICAL"},
		Auth: model.AuthInfo{Enabled: true},
	}))
	ts.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	ts.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what some tests are about
	ts.StartTLS()
	t.Cleanup(ts.Close)
	s.url, s.fingerprint = ts.URL, authority.Fingerprint()
	return s
}

func (s *testServer) sources() api.Sources {
	nodes := []model.VM{
		{Meta: meta(masterID, "demo-master-0"), State: model.VMStarted, ProjectID: projectID, ClusterID: clusterID, HostID: hostID, Role: "master",
			Networks: []model.VMNetwork{{Network: "br0", MACAddress: "00:16:3e:00:00:01", IPAddress: "100.64.10.20"}}},
		{Meta: meta(workerID, "demo-worker-0"), State: model.VMStarted, ProjectID: projectID, ClusterID: clusterID, HostID: hostID, Role: "worker", Pool: "workers",
			Networks: []model.VMNetwork{{Network: "br0", MACAddress: "00:16:3e:00:00:02", IPAddress: "100.64.10.21"}}},
	}
	limits := []model.QuotaLineItem{{Key: "vm.memory", Value: 64, Unit: "GB"}, {Key: "vm.cpu", Value: 32, Unit: "COUNT"}}
	return api.Sources{
		Tenants: s.tenants, Flavors: s.flavors, Clusters: s.clusters, Tasks: s.tasks,
		ResourceTickets: newShelf(func(v *model.ResourceTicket) string { return v.ID }, model.ResourceTicket{
			Meta: meta(ticketID, "gold"), TenantID: tenantID, Limits: limits,
			Usage: []model.QuotaLineItem{{Key: "vm.memory", Value: 16, Unit: "GB"}}}),
		Projects: newShelf(func(v *model.Project) string { return v.ID }, model.Project{
			Meta: meta(projectID, "web"), TenantID: tenantID,
			ResourceTicket: model.ProjectTicket{TenantTicketID: ticketID, TenantTicketName: "gold", Limits: limits}}),
		Images: newShelf(func(v *model.Image) string { return v.ID }, model.Image{
			Meta: meta(imageID, "kubernetes-v1.37.1"), State: model.StateReady, Size: 1 << 20, ReplicationType: "EAGER", ReplicationProgress: "100%"}),
		Zones: newShelf(func(v *model.Zone) string { return v.ID }),
		Hosts: newShelf(func(v *model.Host) string { return v.ID }, model.Host{
			Meta: meta(hostID, ""), Address: "unix:/run/lxd.socket", Driver: "lxd", UsageTags: []string{"CLOUD"}, State: model.HostReady}),
		Datastores: newShelf(func(v *model.Datastore) string { return v.ID }),
		Orphans: newShelf(func(v *model.Orphan) string { return v.ID }, model.Orphan{
			Meta: meta(orphanID, "demo-worker-0"), HostID: hostID, Host: "100.64.7.12:8443", Cause: model.OrphanNotDeleted,
			Since: 1_800_000_000_000, RemoveAfter: 1_800_000_000_000,
			Error: model.Errorf(model.CodeHostUnreachable, "host 100.64.7.12:8443 does not answer")}),
		Subnets: newShelf(func(v *model.Subnet) string { return v.ID }, model.Subnet{
			Meta: meta(subnetID, "nodes"), State: model.StateReady, PortGroups: []string{"br0"}, CIDR: "100.64.10.0/24"}),
		Deployments: newShelf(func(v *model.Deployment) string { return v.ID }, model.Deployment{Meta: meta(deploymentID, ""), State: model.StateReady}),
		VMs:         newShelf(func(v *model.VM) string { return v.ID }, nodes...),
	}
}

func (s *testServer) Authenticate(_ context.Context, token string) (api.Principal, error) {
	if token != testToken {
		return api.Principal{}, model.Errorf(model.CodeInvalidAuthToken, "the access token is not valid").Do("log in with \"pleiad target login\"")
	}
	return api.Principal{Subject: "admin", Admin: true}, nil
}

func (s *testServer) IssueToken(_ context.Context, _ api.Principal, spec model.TokenCreateSpec) (model.Token, error) {
	return model.Token{AccessToken: fmt.Sprintf("token-for-%s-%ds", spec.Subject, spec.TTLSeconds), Subject: spec.Subject, ExpiresTime: 1_800_000_000_000}, nil
}

// done returns a task that has ended, on a new object.
func (s *testServer) done(operation, kind string) (*model.Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	id := fmt.Sprintf("00000000-0000-4000-8000-%012d", 900+s.made)
	return doneTask(operation, kind, id), nil
}

func doneTask(operation, kind, id string) *model.Task {
	return &model.Task{ID: taskID, Operation: operation, State: model.TaskCompleted,
		Entity: model.Entity{ID: id, Kind: kind}, QueuedTime: 1000, StartedTime: 1000, EndTime: 1200}
}

func (s *testServer) CreateTenant(_ context.Context, spec model.TenantCreateSpec) (*model.Task, error) {
	if spec.Name == "acme" {
		return nil, model.Errorf(model.CodeNameTaken, "there is a tenant named %q already", spec.Name).With("id", tenantID)
	}
	task, err := s.done("CREATE_TENANT", "tenant")
	s.tenants.put(model.Tenant{Meta: meta(task.Entity.ID, spec.Name)})
	return task, err
}

func (s *testServer) DeleteTenant(_ context.Context, id string) (*model.Task, error) {
	return doneTask("DELETE_TENANT", "tenant", id), nil
}

func (s *testServer) CreateResourceTicket(context.Context, string, model.ResourceTicketCreateSpec) (*model.Task, error) {
	return s.done("CREATE_RESOURCE_TICKET", "resource-ticket")
}

func (s *testServer) CreateProject(_ context.Context, _ string, spec model.ProjectCreateSpec) (*model.Task, error) {
	for _, l := range spec.ResourceTicket.Limits {
		if l.Key == "vm.memory" && l.Value > 48 {
			return nil, model.Errorf(model.CodeQuotaError, "resource ticket gold: vm.memory: %g GB more would exceed the limit", l.Value).
				With("limit", "vm.memory, 64 GB").With("usage", "vm.memory, 16 GB").With("newUsage", fmt.Sprintf("vm.memory, %g GB", 16+l.Value)).
				Do("ask for 48 GB or less, or have the ticket's limit raised")
		}
	}
	return s.done("CREATE_PROJECT", "project")
}

func (s *testServer) CreateFlavor(_ context.Context, spec model.FlavorCreateSpec) (*model.Task, error) {
	task, err := s.done("CREATE_FLAVOR", "flavor")
	s.flavors.put(model.Flavor{ID: task.Entity.ID, Name: spec.Name, Kind: spec.Kind, State: model.StateReady, Cost: spec.Cost})
	return task, err
}

func (s *testServer) CreateZone(context.Context, model.ZoneCreateSpec) (*model.Task, error) {
	return s.done("CREATE_AVAILABILITYZONE", "availability-zone")
}

func (s *testServer) CreateHost(_ context.Context, spec model.HostCreateSpec) (*model.Task, error) {
	s.mu.Lock()
	s.host = spec
	s.mu.Unlock()
	return s.done("CREATE_HOST", "host")
}

func (s *testServer) CreateSubnet(_ context.Context, spec model.SubnetCreateSpec) (*model.Task, error) {
	s.mu.Lock()
	s.subnet = spec
	s.mu.Unlock()
	return s.done("CREATE_NETWORK", "subnet")
}

func (s *testServer) SetDefaultSubnet(_ context.Context, id string) (*model.Task, error) {
	return doneTask("SET_DEFAULT_NETWORK", "subnet", id), nil
}

func (s *testServer) EnableClusterType(context.Context, model.ClusterConfigurationSpec) (*model.Task, error) {
	return s.done("CONFIGURE_CLUSTER", "deployment")
}

func (s *testServer) CreateImage(_ context.Context, _, _ string, body io.Reader) (*model.Task, error) {
	n, err := io.Copy(io.Discard, body)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.uploaded = n
	s.mu.Unlock()
	return s.done("CREATE_IMAGE", "image")
}

// CreateCluster begins a task; the cluster's name says how it will end.
func (s *testServer) CreateCluster(_ context.Context, _ string, spec model.ClusterCreateSpec) (*model.Task, error) {
	s.mu.Lock()
	s.cluster = spec
	s.mu.Unlock()
	if _, err := s.clusters.Get(context.Background(), newClusterID(spec.Name)); err != nil {
		s.clusters.put(model.Cluster{Meta: meta(newClusterID(spec.Name), spec.Name), Type: model.Kubernetes, State: model.ClusterReady, ProjectID: projectID})
	}
	events := createTask(spec.Name)
	if _, err := s.tasks.Get(context.Background(), events[0].ID); err != nil {
		s.tasks.put(events[len(events)-1])
	}
	return &events[0], nil
}

func (s *testServer) ResizeCluster(_ context.Context, id string, op model.ClusterResizeOperation) (*model.Task, error) {
	if *op.NewWorkerCount != 4 {
		return nil, model.Errorf(model.CodeInvalidEntity, "the session asks for 4 workers")
	}
	return doneTask("RESIZE_CLUSTER", "cluster", id), nil
}

func (s *testServer) DeleteCluster(_ context.Context, id string) (*model.Task, error) {
	return doneTask("DELETE_CLUSTER", "cluster", id), nil
}

func (s *testServer) Access(_ context.Context, _, _ string) ([]byte, error) {
	return []byte(demoKubeconfig), nil
}

func (s *testServer) Status(context.Context) (model.SystemStatus, error) {
	return model.SystemStatus{Status: "READY", Components: []model.ComponentStatus{{Component: "photon-controller", Status: "READY"}}}, nil
}

// WatchTask tells of a cluster's creation, event by event.
func (s *testServer) WatchTask(_ context.Context, id string, changed func(model.Task) error) error {
	name, err := hex.DecodeString(strings.TrimLeft(id[24:], "0"))
	if err != nil {
		return err
	}
	for _, t := range createTask(string(name)) {
		if err := changed(t); err != nil {
			return err
		}
	}
	return nil
}

// newClusterID and the id of the cluster's task hold the first letters of its name.
func newClusterID(name string) string {
	return fmt.Sprintf("00000000-0000-4000-8001-%012x", name[:min(5, len(name))])
}

// createTask is how the creation of a cluster goes: that of one named "fail" fails.
func createTask(name string) []model.Task {
	task := func(state model.TaskState, end int64, steps ...model.Step) model.Task {
		return model.Task{
			ID: fmt.Sprintf("00000000-0000-4000-8002-%012x", name[:min(5, len(name))]), Operation: "CREATE_CLUSTER", State: state,
			Entity: model.Entity{ID: newClusterID(name), Kind: "cluster"}, QueuedTime: 1000, StartedTime: 1000, EndTime: end, Steps: steps,
		}
	}
	reserve := model.Step{Sequence: 0, Operation: "RESERVE_RESOURCE", State: model.TaskCompleted, StartedTime: 1000, EndTime: 1040}
	workers := model.Step{Sequence: 1, Operation: "CREATE_KUBERNETES_CLUSTER_SETUP_WORKERS", State: model.TaskStarted, StartedTime: 1040, Progress: "1 of 2 nodes joined"}
	queued := workers
	queued.State, queued.Progress, queued.StartedTime = model.TaskQueued, "", 0
	ended := workers
	ended.State, ended.EndTime = model.TaskCompleted, 12240
	if name == "fail" {
		ended.State = model.TaskError
		ended.Errors = []model.Error{*model.Errorf(model.CodeNodeStepFailed, "node fail-worker-0: start kubelet: exit status 1").
			With("node", "fail-worker-0").With("log", "kubelet: failed to run\n\x1b[2Jkubelet: no space left on device\n").
			Do("free space on the host, then create the cluster again")}
		return []model.Task{task(model.TaskQueued, 0, reserve, queued), task(model.TaskStarted, 0, reserve, workers), task(model.TaskError, 12240, reserve, ended)}
	}
	return []model.Task{task(model.TaskQueued, 0, reserve, queued), task(model.TaskStarted, 0, reserve, workers), task(model.TaskCompleted, 12240, reserve, ended)}
}

const demoKubeconfig = `apiVersion: v1
kind: Config
clusters:
- name: demo
  cluster: {server: "https://100.64.10.20:6443"}
users:
- name: kubernetes-admin
  user: {token: secret}
contexts:
- name: kubernetes-admin@demo
  context: {cluster: demo, user: kubernetes-admin}
current-context: kubernetes-admin@demo
`

// console runs command lines with a home of their own.
type console struct {
	t    *testing.T
	home string
	env  map[string]string
}

// newConsole returns a console with nothing set.
func newConsole(t *testing.T) *console {
	home := t.TempDir()
	return &console{t, home, map[string]string{"HOME": home, "XDG_CONFIG_HOME": filepath.Join(home, "config")}}
}

// loggedIn returns a console that works in project web of tenant acme of the server.
func loggedIn(t *testing.T, s *testServer) *console {
	t.Helper()
	c := newConsole(t)
	context := config{Target: s.url, Fingerprint: s.fingerprint, Token: testToken, Tenant: &ref{tenantID, "acme"}, Project: &ref{projectID, "web"}}
	if err := context.save(c.configPath()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *console) configPath() string {
	return filepath.Join(c.home, "config", "pleiad", "config.json")
}

// run runs a command line and returns what it wrote and its exit code.
func (c *console) run(stdin string, args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	var out, errs strings.Builder
	code = Run(c.t.Context(), Env{
		Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Version: "test",
		Getenv: func(name string) string { return c.env[name] },
	}, args)
	return out.String(), errs.String(), code
}

// config returns the context file.
func (c *console) config() config {
	c.t.Helper()
	loaded, err := loadConfig(c.configPath())
	if err != nil {
		c.t.Fatal(err)
	}
	return loaded
}

func writeFile(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
