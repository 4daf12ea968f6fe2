package devbox

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/cli"
	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/kind/kubernetes"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/server"
	"github.com/pleiad/pleiad/nodeimage/archive"
)

// asCLI in the environment makes this program the command line that setUp runs.
const asCLI = "PLEIAD_DEVBOX_TEST_AS_CLI"

func TestMain(m *testing.M) {
	if os.Getenv(asCLI) != "" {
		os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// transcript is what setUp shows. A test may wait for a part of it.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
	want string
	seen chan struct{}
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if w.want != "" && strings.Contains(w.text.String(), w.want) {
		w.want = ""
		close(w.seen)
	}
	return len(p), nil
}

// await forgets what was shown so far; the channel is closed once want is shown.
func (w *transcript) await(want string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Reset()
	w.want, w.seen = want, make(chan struct{})
	return w.seen
}

func (w *transcript) shows(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.text.String(), text)
}

// agentless is Kubernetes for VMs nothing runs in: a cluster is ready when they are started.
type agentless struct {
	kubernetes.Kind
	fail *atomic.Value // the id of the cluster that cannot be made
}

func (k agentless) Decide(v kind.View) kind.Decision {
	d := k.Kind.Decide(v)
	if k.fail.Load() == v.Cluster.ID {
		d.Failed = model.Errorf(model.CodeNodeStepFailed, "as the test wants it")
		return d
	}
	d.Ready = len(d.Issue) == 0 && len(d.Create) == 0 && d.Failed == nil
	for _, n := range v.Nodes {
		d.Ready = d.Ready && n.VM.State == model.VMStarted
	}
	return d
}

// Access gives a file for the test's kubectl.
func (agentless) Access(kind.View) (map[string][]byte, error) {
	return map[string][]byte{"kubeconfig": []byte("demo")}, nil
}

// site is a real server with a simulated host, and a devbox's directory around it.
type site struct {
	*Options
	t      *testing.T
	st     state
	out    *transcript
	client *client.Client
	fail   atomic.Value
	held   atomic.Pointer[hold]
}

// hold keeps the host from one operation until it is released.
type hold struct {
	op       string
	released chan struct{}
}

func newSite(t *testing.T) *site {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(asCLI, "1")
	t.Setenv("GORACE", "atexit_sleep_ms=0")              // it would be a second for each of the many commands
	t.Setenv("PLEIAD_TARGET", "https://another.example") // the user's own business
	t.Setenv("PLEIAD_TOKEN", "for another")
	s := &site{t: t, out: &transcript{}}
	s.Options = &Options{Dir: t.TempDir(), Exe: exe, Bridge: "vmnet", Address: DefaultAddress, Cluster: "demo", Workers: 1, Out: s.out}
	s.Image = nodeImage(t)
	fleet := sim.New()
	fleet.AddHost("host", sim.DefaultFacts(64, 64<<30, 1<<40))
	fleet.Hook = func(ctx context.Context, c sim.Call, m sim.Moment) error {
		if h := s.held.Load(); h != nil && h.op == c.Op && m == sim.Before {
			select {
			case <-h.released:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	ready := make(chan state, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- server.Run(ctx, server.Options{
			DataDir: s.path("server"), Listen: "127.0.0.1:0", UnsafeNoFsync: true, Logger: slog.New(slog.DiscardHandler),
			Kinds: kind.NewRegistry(agentless{fail: &s.fail}), Connectors: hypervisor.Connectors{"sim": fleet},
			Ready: func(address, fingerprint string) {
				if err := os.WriteFile(s.readyFile(), []byte(fingerprint+"\n"), 0o600); err != nil {
					t.Error(err)
				}
				ready <- state{URL: "https://" + address}
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
		fleet.Close()
		if t.Failed() {
			t.Logf("the devbox showed last:\n%s", s.out.text.String())
		}
	})
	select {
	case s.st = <-ready:
	case err := <-done:
		done <- nil
		t.Fatalf("the server did not start: %v", err)
	}
	token, err := os.ReadFile(s.path("server", "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	fingerprint, err := os.ReadFile(s.readyFile())
	if err != nil {
		t.Fatal(err)
	}
	s.client, err = client.New(client.Options{
		Endpoints: []string{s.st.URL}, Token: strings.TrimSpace(string(token)), CAFingerprint: strings.TrimSpace(string(fingerprint)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	s.ended(s.client.CreateHost(t.Context(), "default", model.HostCreateSpec{Address: "host", Driver: "sim", UsageTags: []string{"CLOUD"}}))
	return s
}

// nodeImage makes a node image whose kubectl says what it is asked, and that
// the nodes are not ready when it is asked first.
func nodeImage(t *testing.T) string {
	t.Helper()
	const kubectl = `#!/bin/sh
echo "$*" >>"$0.log"
case "$*" in *" wait "*)
	[ -e "$0.ready" ] || { : >"$0.ready"; echo "connection refused" >&2; exit 1; }
esac
echo "NAME STATUS"
`
	dir := t.TempDir()
	root := filepath.Join(dir, "root", "usr", "bin")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "kubectl"), []byte(kubectl), 0o755); err != nil {
		t.Fatal(err)
	}
	const name = "lxd/rootfs.squashfs"
	if err := os.Mkdir(filepath.Join(dir, "lxd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mksquashfs", filepath.Join(dir, "root"), filepath.Join(dir, name), "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v: %s", err, out)
	}
	p, err := archive.Describe(filepath.Join(dir, name), name, archive.LXDSquashfs)
	if err != nil {
		t.Fatal(err)
	}
	m := &archive.Manifest{
		FormatVersion: archive.FormatVersion, Kind: "KUBERNETES", Version: "v9.8.7", Architecture: "amd64",
		Created: time.Unix(1_800_000_000, 0).UTC(), Components: map[string]string{}, Images: map[string]string{},
		Payloads: []archive.Payload{p},
	}
	for _, c := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "coredns", "pause", "flannel"} {
		m.Images[c] = "pleiad.local/" + c + ":v9.8.7"
	}
	var out bytes.Buffer
	if err := archive.Write(&out, m, dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "node.tar")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// ended follows a task to its good end.
func (s *site) ended(task *model.Task, err error) {
	s.t.Helper()
	if err == nil {
		_, err = s.client.WaitTask(s.t.Context(), task.ID, nil)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// up does what Up does after the server is there, and checks that all is well then.
func (s *site) up() {
	s.t.Helper()
	if err := s.setUp(s.t.Context(), s.st, nil); err != nil {
		s.t.Fatalf("setting up: %v", err)
	}
	if c := s.found(); c.State != model.ClusterReady {
		s.t.Errorf("the cluster is %s", c.State)
	}
}

// found is the cluster, as the command line finds it.
func (s *site) found() (c model.Cluster) {
	s.t.Helper()
	var out bytes.Buffer
	if err := s.quiet(s.t.Context(), &out, "cluster", "list", "-o", "json"); err != nil {
		s.t.Fatal(err)
	}
	var all []model.Cluster
	if err := json.Unmarshal(out.Bytes(), &all); err != nil || len(all) != 1 || all[0].Name != "demo" {
		s.t.Fatalf("clusters: %v, %s", err, &out)
	}
	return all[0]
}

func (s *site) tasks() int {
	s.t.Helper()
	all, err := s.client.Tasks(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return len(all)
}

// forget takes keys out of the context file, as if what writes them had not run.
func (s *site) forget(keys ...string) {
	s.t.Helper()
	b, err := os.ReadFile(configFile(s.Dir))
	if err != nil {
		s.t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		s.t.Fatal(err)
	}
	for _, k := range keys {
		if c[k] == nil {
			s.t.Fatalf("the context file has no %s: %s", k, b)
		}
		delete(c, k)
	}
	if b, err = json.Marshal(c); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(configFile(s.Dir), b, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// create begins a cluster as an Up does that ends before the cluster is there.
func (s *site) create() {
	s.t.Helper()
	if err := s.quiet(s.t.Context(), io.Discard, "-n", "cluster", "create", "-n", "demo", "-k", "KUBERNETES", "-c", "1", "--no-wait"); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) delete() {
	s.t.Helper()
	s.ended(s.client.DeleteCluster(s.t.Context(), s.found().ID))
}

// hold keeps the host from op until release.
func (s *site) hold(op string) {
	s.held.Store(&hold{op, make(chan struct{})})
}

func (s *site) release() { close(s.held.Swap(nil).released) }

// releaseFollowed releases the host once setUp follows the task, after first.
func (s *site) releaseFollowed(first func()) {
	seen, ctx := s.out.await("$ pleiad task monitor"), s.t.Context()
	var released sync.WaitGroup
	released.Go(func() {
		select {
		case <-seen:
			first()
		case <-ctx.Done(): // it was not followed
		}
		s.release()
	})
	s.t.Cleanup(released.Wait)
}

// TestSetUp: whatever an earlier setUp has left undone is done by the next, and nothing else.
func TestSetUp(t *testing.T) {
	s := newSite(t)
	s.up()
	asked, err := os.ReadFile(s.path("bin", "kubectl.log"))
	if err != nil {
		t.Fatal(err)
	}
	if w, g := strings.Count(string(asked), " wait "), strings.Index(string(asked), "get nodes"); w != 2 || g < strings.LastIndex(string(asked), " wait ") {
		t.Errorf("kubectl must be asked until all nodes are Ready, and then shows them; it was asked:\n%s", asked)
	}

	undone := func(name string, undo func()) {
		t.Run(name, func(t *testing.T) {
			s.t = t
			undo()
			before := s.tasks()
			s.out.await("")
			s.up()
			if after := s.tasks(); after != before {
				t.Errorf("%d tasks were made", after-before)
			}
		})
	}
	undone("nothing", func() {})
	if s.out.shows("target login") {
		t.Error("logged in again with a good token")
	}
	undone("logging in", func() { s.forget("token", "tenant", "project") })
	undone("setting tenant and project", func() { s.forget("tenant", "project") })
	undone("setting the project", func() { s.forget("project") })

	for _, c := range []struct {
		name    string
		prepare func()
		same    bool // or another one must take its place
	}{
		{"a cluster that is being made", func() {
			s.delete()
			s.hold("CreateVM")
			s.create()
			s.releaseFollowed(func() {})
		}, true},
		{"a cluster that failed", func() {
			s.delete()
			s.hold("CreateVM")
			s.create()
			c := s.found()
			s.fail.Store(c.ID)
			s.release()
			if _, err := s.client.WaitTask(s.t.Context(), c.TaskID, nil); err == nil {
				s.t.Fatal("it did not fail")
			}
		}, false},
		{"a cluster that fails while it is followed", func() {
			s.delete()
			s.hold("CreateVM")
			s.create()
			id := s.found().ID
			s.releaseFollowed(func() { s.fail.Store(id) })
		}, false},
		{"a cluster that is being deleted", func() {
			s.hold("DeleteVM")
			if _, err := s.client.DeleteCluster(s.t.Context(), s.found().ID); err != nil {
				s.t.Fatal(err)
			}
			s.releaseFollowed(func() {})
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.t = t
			c.prepare()
			before := s.found().ID
			s.up()
			if same := s.found().ID == before; same != c.same {
				t.Errorf("is it the same cluster: %v, want %v", same, c.same)
			}
		})
	}
}
