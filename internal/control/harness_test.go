package control

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/control/simnode"
	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/imagefile"
	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/kind/kubernetes"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/pki"
	"github.com/pleiad/pleiad/internal/plan"
	"github.com/pleiad/pleiad/internal/store"
	"github.com/pleiad/pleiad/internal/store/storetest"
	"github.com/pleiad/pleiad/nodeimage/archive"
)

// patience is how long a test waits for what must come. Nothing waits this long
// when all is well.
const patience = 30 * time.Second

const gib = int64(1) << 30

// world is all that is outside a controller, real but for hosts and nodes,
// which outlive the controllers that a test stops and kills.
type world struct {
	t     testing.TB
	opts  store.Options
	store *store.Store
	files *imagefile.Store
	id    *Identity
	fleet *sim.Fleet
	nodes *simnode.Nodes
	clock *clock
	hook  atomic.Pointer[func(context.Context, sim.Call, sim.Moment) error]

	mu      sync.Mutex
	server  *server       // that nodes speak to; nil while there is none
	changed chan struct{} // closed when server changes

	// What setUp has made.
	tenant, ticket, project, image, subnet, master, worker string // ids
	hosts                                                  []string
}

// clock is real time plus what the test adds.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// newWorld makes an empty installation without hosts. change, if any, adjusts it before it is used.
func newWorld(t testing.TB, change func(*world)) *world {
	t.Helper()
	w := &world{t: t, opts: storetest.Options(t), fleet: sim.New(), nodes: &simnode.Nodes{}, clock: &clock{}, changed: make(chan struct{})}
	w.nodes.Dial = w.dial
	w.fleet.Agent = w.nodes.Run
	w.fleet.Hook = func(ctx context.Context, c sim.Call, m sim.Moment) error {
		if h := w.hook.Load(); h != nil {
			return (*h)(ctx, c, m)
		}
		return nil
	}
	if change != nil {
		change(w)
	}
	var err error
	if w.files, err = imagefile.Open(filepath.Join(t.TempDir(), "images")); err != nil {
		t.Fatal(err)
	}
	ca, err := pki.NewAuthority("Test", pki.AuthorityValidity, w.clock.now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := pki.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := pki.NewTokens(pair.Key, w.clock.now)
	if err != nil {
		t.Fatal(err)
	}
	w.id = &Identity{ID: "test", CA: ca, Tokens: tokens}
	w.open()
	t.Cleanup(func() {
		w.stop()
		w.fleet.Close()
		if err := w.store.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	w.update(func(tx *store.Tx) error {
		return store.Deployments.Put(tx, &model.Deployment{
			Meta: model.Meta{ID: DeploymentID, Kind: "deployment"}, State: model.StateReady,
			ImageDatastores: []string{}, ClusterConfigurations: []model.ClusterConfiguration{},
		})
	})
	return w
}

// hooked sets what the hosts ask before and after each call.
func (w *world) hooked(hook func(context.Context, sim.Call, sim.Moment) error) { w.hook.Store(&hook) }

func (w *world) open() {
	w.t.Helper()
	s, err := store.Open(context.Background(), w.opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = s
}

func (w *world) update(fn func(*store.Tx) error) {
	w.t.Helper()
	if _, err := w.store.Update(context.Background(), "", fn); err != nil {
		w.t.Fatal(err)
	}
}

// server is a controller that runs.
type server struct {
	*Controller
	life context.Context
	quit context.CancelFunc
	done chan error
}

// controller makes a controller that does not run.
func (w *world) controller(replica string) *Controller {
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() && os.Getenv("PLEIAD_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return New(Config{
		Store: w.store, Kinds: kind.NewRegistry(kubernetes.Kind{}), Connectors: hypervisor.Connectors{"sim": w.fleet},
		Images: w.files, Identity: w.id, NodeEndpoints: []string{"https://100.64.0.1:9443"},
		Replica: replica, Logger: log, Clock: w.clock.now,
	})
}

// run runs one more controller.
func (w *world) run(replica string) *server {
	s := &server{Controller: w.controller(replica), done: make(chan error, 1)}
	s.life, s.quit = context.WithCancel(context.Background())
	go func() { s.done <- s.Run(s.life) }()
	return s
}

// start runs the controller that nodes speak to from now on.
func (w *world) start() *server {
	s := w.run("a")
	w.serve(s)
	return s
}

func (w *world) serve(s *server) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.server = s
	close(w.changed)
	w.changed = make(chan struct{})
}

// stop stops the controller gracefully, as a server that is told to.
func (w *world) stop() {
	w.t.Helper()
	w.mu.Lock()
	s := w.server
	w.server = nil
	w.mu.Unlock()
	if s != nil {
		if err := s.halt(); err != nil {
			w.t.Errorf("the controller ended with %v", err)
		}
	}
}

func (s *server) halt() error {
	s.quit()
	return <-s.done
}

// kill takes the store away from under the controller: whatever it does from
// then on leaves no trace but on the hosts. What it had written is there.
func (w *world) kill() {
	w.t.Helper()
	w.mu.Lock()
	s := w.server
	w.server = nil
	w.mu.Unlock()
	if err := w.store.Close(); err != nil {
		w.t.Fatal(err)
	}
	_ = s.halt() // it may complain of the store
	w.open()
}

// dial is where nodes find their controller: the one that runs.
func (w *world) dial(ctx context.Context) (simnode.Controller, error) {
	for {
		w.mu.Lock()
		s, changed := w.server, w.changed
		w.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// The calls of nodes end with the server, as connections do.

func (s *server) while(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() { stop(); cancel() }
}

func (s *server) Plan(ctx context.Context, id, hash string, wait time.Duration) (*plan.Plan, error) {
	ctx, done := s.while(ctx)
	defer done()
	p, err := s.Controller.Plan(ctx, id, hash, wait)
	if p == nil && err == nil {
		err = ctx.Err()
	}
	return p, err
}

func (s *server) Report(ctx context.Context, id string, r plan.Report) error {
	ctx, done := s.while(ctx)
	defer done()
	return s.Controller.Report(ctx, id, r)
}

// host adds a host to the fleet.
func (w *world) host(name string, memory int64, limits map[string]int64) *sim.Host {
	facts := sim.DefaultFacts(512, memory, 1<<50)
	facts.Limits = limits
	return w.fleet.AddHost(name, facts)
}

// setUp does what an operator and a tenant do before the first cluster: hosts
// of 64 GiB by those names, an image on all of them, flavors (master 2 GB,
// worker 1 GB of memory), a tenant with quota, a subnet.
func (w *world) setUp(s *server, quota []model.QuotaLineItem, hosts ...string) {
	w.t.Helper()
	ctx := context.Background()
	for _, name := range hosts {
		if w.fleet.Host(name) == nil {
			w.host(name, 64*gib, nil)
		}
		w.hosts = append(w.hosts, w.done(s.CreateHost(ctx, hostSpec(name))))
	}
	w.image = w.done(s.CreateImage(ctx, "k8s-node", "EAGER", bytes.NewReader(nodeImage(w.t))))
	w.done(s.EnableClusterType(ctx, model.ClusterConfigurationSpec{Type: "KUBERNETES", ImageID: w.image}))
	w.master = w.done(s.CreateFlavor(ctx, vmFlavor(kubernetes.DefaultMasterFlavor, 2)))
	w.worker = w.done(s.CreateFlavor(ctx, vmFlavor(kubernetes.DefaultOtherFlavor, 1)))
	w.done(s.CreateFlavor(ctx, model.FlavorCreateSpec{Name: kubernetes.DefaultDiskFlavor, Kind: model.FlavorEphemeralDisk,
		Cost: []model.QuotaLineItem{{Key: "ephemeral-disk.cost", Value: 1, Unit: model.UnitCount}}}))
	w.subnet = w.done(s.CreateSubnet(ctx, model.SubnetCreateSpec{Name: "net", PortGroups: []string{"vmnet"},
		CIDR: "100.64.0.0/18", Gateway: "100.64.0.1", DNS: []string{"100.64.0.2"}}))
	w.tenant = w.done(s.CreateTenant(ctx, model.TenantCreateSpec{Name: "acme"}))
	w.ticket = w.done(s.CreateResourceTicket(ctx, w.tenant, model.ResourceTicketCreateSpec{Name: "gold", Limits: quota}))
	w.project = w.done(s.CreateProject(ctx, w.tenant, model.ProjectCreateSpec{Name: "web",
		ResourceTicket: model.ResourceTicketReservation{Name: "gold", Limits: quota}}))
}

func memory(gb float64) []model.QuotaLineItem {
	return []model.QuotaLineItem{{Key: "vm.memory", Value: gb, Unit: model.UnitGB}}
}

func hostSpec(name string) model.HostCreateSpec {
	return model.HostCreateSpec{Address: name, Driver: "sim", UsageTags: []string{model.UsageCloud}}
}

func vmFlavor(name string, memoryGB float64) model.FlavorCreateSpec {
	return model.FlavorCreateSpec{Name: name, Kind: model.FlavorVM, Cost: []model.QuotaLineItem{
		{Key: "vm.cpu", Value: 1, Unit: model.UnitCount}, {Key: "vm.memory", Value: memoryGB, Unit: model.UnitGB}}}
}

func clusterSpec(name string, workers int) model.ClusterCreateSpec {
	return model.ClusterCreateSpec{Name: name, Type: "KUBERNETES", WorkerCount: &workers}
}

const version = "v9.8.7"

// nodeImage is a node image archive with next to nothing in it.
func nodeImage(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "rootfs")
	if err := os.WriteFile(file, []byte("root file system"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := archive.Describe(file, "rootfs", archive.LXDSquashfs)
	if err != nil {
		t.Fatal(err)
	}
	m := &archive.Manifest{
		FormatVersion: archive.FormatVersion, Kind: "KUBERNETES", Version: version, Architecture: "amd64",
		Created: time.Unix(1_800_000_000, 0).UTC(), Components: map[string]string{}, Images: map[string]string{},
		Payloads: []archive.Payload{p},
	}
	for _, c := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "coredns", "pause", "flannel"} {
		m.Images[c] = "pleiad.local/" + c + ":" + version
	}
	var out bytes.Buffer
	if err := archive.Write(&out, m, dir); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// await waits until is holds, looking whenever an object of the collection has changed.
func await[T any](w *world, of *store.Collection[T], is func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	changes := of.Watch(ctx, w.store, store.WatchOptions{Present: true})
	if is() {
		return
	}
	for range changes {
		if is() {
			return
		}
	}
	w.t.Fatal("what was waited for did not come")
}

// finished waits for a task to end and returns it.
func (w *world) finished(task *model.Task, err error) *model.Task {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var last model.Task
	err = w.controller("watcher").WatchTask(ctx, task.ID, func(t model.Task) error { last = t; return nil })
	if err != nil || !last.State.Finished() {
		w.t.Fatalf("task %s did not end: %v\n%s", task.Operation, err, describe(&last))
	}
	return &last
}

// done waits for a task to complete, and returns the id of what it is about.
func (w *world) done(task *model.Task, err error) string {
	w.t.Helper()
	last := w.finished(task, err)
	if last.State != model.TaskCompleted {
		w.t.Fatalf("task failed:\n%s", describe(last))
	}
	return last.Entity.ID
}

func describe(t *model.Task) string {
	out := fmt.Sprintf("%s %s", t.Operation, t.State)
	for _, s := range t.Steps {
		out += fmt.Sprintf("\n  %s %s %s", s.Operation, s.State, s.Progress)
		for _, e := range s.Errors {
			out += "\n    " + e.Error()
		}
	}
	return out
}

// refused checks an error's code.
func refused(t testing.TB, err error, code model.Code) *model.Error {
	t.Helper()
	e, ok := errors.AsType[*model.Error](err)
	if !ok || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	return e
}
