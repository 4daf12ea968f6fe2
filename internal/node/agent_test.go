package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/plan"
)

const (
	testNode  = "node-1"
	testToken = "one.time.token-s3cret"
)

// programs is a Runner whose programs are functions, by their first word.
type programs struct {
	mu    sync.Mutex
	calls []string
	funcs map[string]func(ctx context.Context, c Cmd) (Output, error)
}

func (p *programs) Run(ctx context.Context, c Cmd) (Output, error) {
	p.mu.Lock()
	p.calls = append(p.calls, strings.Join(c.Argv, " "))
	f := p.funcs[c.Argv[0]]
	p.mu.Unlock()
	if f == nil {
		return Output{}, nil
	}
	return f(ctx, c)
}

func (p *programs) set(name string, f func(ctx context.Context, c Cmd) (Output, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.funcs == nil {
		p.funcs = map[string]func(context.Context, Cmd) (Output, error){}
	}
	p.funcs[name] = f
}

// all are the command lines so far.
func (p *programs) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// count is how often a command line began so.
func (p *programs) count(prefix string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

var errExit = errors.New("exit status 1")

// block runs until it is stopped.
func block(ctx context.Context, _ Cmd) (Output, error) {
	<-ctx.Done()
	return Output{}, ctx.Err()
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// world is an agent below a directory, and a controller, in memory.
type world struct {
	t        *testing.T
	net      memory
	ctl      *controller
	programs programs
	log      logBuffer
	root     string
	boot     bootstrap.Bootstrap
}

// inWorld runs f in a synctest bubble, with a controller that is up.
func inWorld(t *testing.T, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, ctl: newController(t), root: t.TempDir()}
		w.ctl.allow(testToken, testNode, time.Hour)
		s := w.ctl.serve(w.net.listen("controller-1"), w.ctl.ca.serverCertificate(t, w.ctl.ca))
		t.Cleanup(s.Close) // after the agent, which stops first
		w.boot = bootstrap.Bootstrap{
			NodeID: testNode, Hostname: "n1", ControllerURLs: []string{"https://controller-1:9443"},
			CAFingerprint: bootstrap.Fingerprint(w.ctl.ca.cert), Token: testToken,
			Network: []model.VMNetwork{{MACAddress: "00:16:3e:00:00:01", IPAddress: "100.64.10.5", Prefix: 24, Gateway: "100.64.10.1"}},
		}
		f(w)
	})
}

// start runs an agent; the function it returns stops it and waits.
func (w *world) start() (stop func()) {
	w.t.Helper()
	w.put(bootstrap.Path, must(json.Marshal(w.boot))(w.t))
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{
			Version: "test", Root: w.root, Runner: &w.programs, Dial: w.net.dial,
			Log: slog.New(slog.NewTextHandler(&w.log, nil)),
			links: func() ([]link, error) {
				return []link{{name: "eth0", mac: "00:16:3e:00:00:01", addresses: []netip.Addr{netip.MustParseAddr("100.64.10.5")}}}, nil
			},
		})
	}()
	stopped := false
	stop = func() {
		w.t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("agent: %v", err)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *world) put(path string, content []byte) {
	w.t.Helper()
	if _, err := writeFile(filepath.Join(w.root, path), content, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) plan(steps ...plan.Step) plan.Plan { return plan.Plan{NodeID: testNode, Steps: steps} }

func command(id string, argv ...string) plan.Step {
	return plan.Step{ID: id, Command: &plan.Command{Argv: argv}}
}

func allDone(p plan.Plan) func(plan.Report) bool {
	return func(r plan.Report) bool { return r.PlanHash == p.Hash() && r.AllDone(p) }
}

func inState(id string, s plan.StepState) func(plan.Report) bool {
	return func(r plan.Report) bool { res := r.Result(id); return res != nil && res.State == s }
}

// awaitResult waits until a step is in a state.
func (w *world) awaitResult(id string, s plan.StepState) plan.StepResult {
	w.t.Helper()
	rep := w.ctl.await(inState(id, s))
	return *rep.Result(id)
}

func (w *world) mustLog(words ...string) {
	w.t.Helper()
	for _, s := range words {
		if !strings.Contains(w.log.String(), s) {
			w.t.Errorf("the log does not say %q:\n%s", s, w.log.String())
		}
	}
}

func TestAgentAppliesItsPlan(t *testing.T) {
	inWorld(t, func(w *world) {
		var stdin, env string
		w.programs.set("init", func(_ context.Context, c Cmd) (Output, error) {
			stdin, env = string(c.Stdin), strings.Join(c.Env, " ")
			return Output{Stdout: "cluster token"}, nil
		})
		up := 0
		w.programs.set("is-up", func(context.Context, Cmd) (Output, error) {
			if up++; up < 10 {
				return Output{}, errExit
			}
			return Output{}, nil
		})
		p := w.plan(
			plan.Step{ID: "files", Files: []plan.File{
				{Path: "/etc/app/key", Mode: "0600", Content: []byte("file-s3cret")},
				{Path: "/etc/systemd/system/app.service", Mode: "0644", Content: []byte("[Service]\n")},
			}},
			plan.Step{ID: "init", Title: "start the cluster", Command: &plan.Command{
				Argv: []string{"init"}, Stdin: []byte("stdin-s3cret"), Env: []string{"TOKEN=env-s3cret"}, Report: true,
			}},
			plan.Step{ID: "app", Service: &plan.Service{Unit: "app", State: "restarted", Enable: true}},
			plan.Step{ID: "up", Probe: &plan.Probe{Exec: []string{"is-up"}}},
		)
		w.start()
		w.ctl.give(p)
		rep := w.ctl.await(allDone(p))

		if got := rep.Result("init").Output; got != "cluster token" {
			t.Errorf("output %q", got)
		}
		if stdin != "stdin-s3cret" || env != "TOKEN=env-s3cret" {
			t.Errorf("the command got %q and %q", stdin, env)
		}
		if got := string(must(os.ReadFile(filepath.Join(w.root, "/etc/app/key")))(t)); got != "file-s3cret" {
			t.Errorf("file %q", got)
		}
		if r := rep.Result("up"); r.Ended-r.Started != 9*200 {
			t.Errorf("the probe took %d ms for ten looks", r.Ended-r.Started)
		}
		var systemctl []string
		for _, c := range w.programs.all() {
			if strings.HasPrefix(c, "systemctl") {
				systemctl = append(systemctl, c)
			}
		}
		if want := []string{"systemctl daemon-reload", "systemctl enable app", "systemctl restart app"}; !slices.Equal(systemctl, want) {
			t.Errorf("systemctl: %q", systemctl)
		}
		if f := rep.Facts; f.AgentVersion != "test" || f.Hostname != "n1" || !slices.Equal(f.Addresses, []string{"100.64.10.5"}) || f.CPUs < 1 {
			t.Errorf("facts %+v", f)
		}

		// The state is nobody else's to read, and the log tells no secret.
		err := filepath.WalkDir(filepath.Join(w.root, stateDir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %s", path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if s := w.log.String(); strings.Contains(s, "s3cret") || strings.Contains(s, "cluster token") || strings.Contains(s, "PRIVATE KEY") {
			t.Errorf("the log tells a secret:\n%s", s)
		}
		w.mustLog("step begins", "step done", "start the cluster", "took=1.8s", "registered")

		// Nothing runs again for the same plan, and the heart beats.
		calls := len(w.programs.all())
		<-time.After(10 * time.Minute) // of the bubble
		if more := w.programs.all()[calls:]; len(more) > 0 {
			t.Errorf("more was run: %q", more)
		}
		w.ctl.do(func() {
			if n := len(w.ctl.beats); n < 60 || n > 67 {
				t.Errorf("%d heartbeats in ten minutes", n)
			}
			if b := w.ctl.beats[0]; b.NodeID != testNode || b.PlanHash != p.Hash() {
				t.Errorf("heartbeat %+v", b)
			}
		})
	})
}
