package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pleiad/pleiad/internal/plan"
)

func TestUnusablePlansAreRefusedAndTold(t *testing.T) {
	const marker = "plan-s3cret"
	huge := plan.Plan{NodeID: testNode, Steps: []plan.Step{{ID: "a", Files: []plan.File{
		{Path: "/big", Mode: "0600", Content: bytes.Repeat([]byte("x"), plan.MaxPlan)}}}}}
	for name, c := range map[string]struct {
		body []byte
		says string
	}{
		"too large":      {must(json.Marshal(huge))(t), "over 4194304 bytes"},
		"endless":        {bytes.Repeat([]byte(" "), 2*plan.MaxPlan), "over 4194304 bytes"},
		"garbage":        {[]byte("<html>" + marker), "invalid character"},
		"cut off":        {[]byte(`{"nodeId":"node-1","steps":[{"id":"a","command":{"argv":["` + marker), "unexpected EOF"},
		"two documents":  {[]byte(`{"nodeId":"node-1","steps":[]}{}`), "follows"},
		"unknown field":  {[]byte(`{"nodeId":"node-1","steps":[{"id":"a","reboot":{}}]}`), `unknown field "reboot"`},
		"no action":      {[]byte(`{"nodeId":"node-1","steps":[{"id":"a"}]}`), "exactly one action"},
		"relative path":  {[]byte(`{"nodeId":"node-1","steps":[{"id":"a","files":[{"path":"etc/x","mode":"0644"}]}]}`), "not absolute"},
		"another's plan": {[]byte(`{"nodeId":"node-2","steps":[{"id":"a","command":{"argv":["run"]}}]}`), "node-2"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.ctl.giveRaw(c.body, "whatever")
				w.start()
				rep := w.ctl.await(func(r plan.Report) bool { return r.Refused != "" })
				if !strings.Contains(rep.Refused, c.says) || rep.PlanHash != "" {
					t.Errorf("refused: %q, plan %q", rep.Refused, rep.PlanHash)
				}
				<-time.After(2 * time.Minute)
				w.ctl.do(func() {
					if len(w.ctl.reports) > 3 {
						t.Errorf("%d reports of one refusal", len(w.ctl.reports))
					}
				})
				if n := w.programs.count("run"); n != 0 {
					t.Error("the plan was applied")
				}
				if s := w.log.String(); !strings.Contains(s, "plan refused") || strings.Contains(s, marker) {
					t.Errorf("log:\n%s", s)
				}
				p := w.plan(command("b", "good"))
				w.ctl.give(p)
				if rep := w.ctl.await(allDone(p)); rep.Refused != "" {
					t.Errorf("still refused: %q", rep.Refused)
				}
			})
		})
	}
}

func TestANewPlanEndsAProbe(t *testing.T) {
	inWorld(t, func(w *world) {
		w.programs.set("look", func(context.Context, Cmd) (Output, error) { return Output{}, errExit })
		probe := plan.Step{ID: "b", Probe: &plan.Probe{Exec: []string{"look"}, TimeoutSeconds: 3600}}
		w.ctl.give(w.plan(command("a", "one"), probe))
		w.start()
		w.ctl.await(inState("b", plan.StepRunning))
		<-time.After(time.Minute)
		began := time.Now()
		p := w.plan(command("a", "one"), command("c", "two"))
		w.ctl.give(p)
		w.ctl.await(allDone(p))
		if took := time.Since(began); took > time.Second {
			t.Errorf("the new plan waited %s for a probe that nobody wants", took)
		}
		if one := w.programs.count("one"); one != 1 {
			t.Errorf("the unchanged step ran %d times", one)
		}
	})
}

func TestANewPlanAndARunningCommand(t *testing.T) {
	inWorld(t, func(w *world) {
		finish := make(chan struct{})
		var stopped atomic.Int32
		w.programs.set("long", func(ctx context.Context, _ Cmd) (Output, error) {
			select {
			case <-finish:
				return Output{}, nil
			case <-ctx.Done():
				stopped.Add(1)
				return Output{}, ctx.Err()
			}
		})
		long := command("b", "long", "1")
		long.Command.TimeoutSeconds = 3600
		long.Command.Cleanup = []string{"clean", "1"}
		w.ctl.give(w.plan(command("a", "one"), long))
		w.start()
		w.ctl.await(inState("b", plan.StepRunning))

		// Something else changes: the command goes on.
		second := w.plan(command("a", "other"), long)
		w.ctl.give(second)
		w.ctl.await(func(r plan.Report) bool { return r.PlanHash == second.Hash() })
		<-time.After(time.Minute)
		if w.programs.count("other") != 0 || stopped.Load() != 0 {
			t.Error("a running command whose step is unchanged was not left alone")
		}
		// It changes itself: it is stopped, cleaned up, and runs anew.
		changed := command("b", "long", "2")
		changed.Command.TimeoutSeconds = 3600
		changed.Command.Cleanup = []string{"clean", "2"}
		third := w.plan(command("a", "other"), changed)
		w.ctl.give(third)
		w.ctl.await(func(r plan.Report) bool {
			return r.PlanHash == third.Hash() && inState("b", plan.StepRunning)(r) && inState("a", plan.StepDone)(r)
		})
		synctest.Wait()
		if stopped.Load() != 1 || w.programs.count("clean 2") != 1 || w.programs.count("clean 1") != 0 {
			t.Errorf("stopped %d times; %q", stopped.Load(), w.programs.all())
		}
		close(finish)
		w.ctl.await(allDone(third))
	})
}

func TestAFailedStepTellsWhyAndIsTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put("/var/log/app/1.log", []byte("first\nlast words\n"))
		var good atomic.Bool
		w.programs.set("kubeadm", func(context.Context, Cmd) (Output, error) {
			if good.Load() {
				return Output{}, nil
			}
			return Output{Tail: "preparing\nno space left for token-s3cret\n"}, errExit
		})
		w.programs.set("journalctl", func(_ context.Context, c Cmd) (Output, error) {
			return Output{Tail: "kubelet says no"}, nil
		})
		s := command("init", "kubeadm", "init")
		s.Title = "Start the control plane"
		s.Command.Cleanup = []string{"reset"}
		s.LogUnits, s.LogFiles = []string{"kubelet.service"}, []string{"/var/log/app/*.log"}
		p := w.plan(s, command("after", "after"))
		w.ctl.give(p)
		w.start()
		rep := w.ctl.await(inState("init", plan.StepFailed))
		r := rep.Result("init")
		if r.Error != "kubeadm: exit status 1: no space left for token-s3cret" {
			t.Errorf("error %q", r.Error)
		}
		for _, words := range []string{"preparing", "journal of kubelet.service", "kubelet says no", "==> /var/log/app/1.log <==", "last words"} {
			if !strings.Contains(r.LogTail, words) {
				t.Errorf("the log tail lacks %q:\n%s", words, r.LogTail)
			}
		}
		if fail := rep.Failure("n1", p); fail == nil || !strings.Contains(fail.Message, "Start the control plane") {
			t.Errorf("failure: %v", fail)
		}
		<-time.After(5 * time.Minute)
		tries := w.programs.count("kubeadm init")
		if tries < 12 || tries > 30 || w.programs.count("reset") != tries-1 || w.programs.count("after") != 0 {
			t.Errorf("%d tries and %d cleanups in five minutes", tries, w.programs.count("reset"))
		}
		good.Store(true)
		rep = w.ctl.await(allDone(p))
		if r := rep.Result("init"); r.Error != "" || r.LogTail != "" || r.Attempts < tries {
			t.Errorf("result %+v", r)
		}
		if strings.Contains(w.log.String(), "s3cret") {
			t.Error("a program's words are in the log")
		}
		w.mustLog("step failed", "exit status 1")
	})
}

func TestATimeoutIsAFailure(t *testing.T) {
	inWorld(t, func(w *world) {
		w.programs.set("hang", block)
		s := command("a", "hang")
		s.Command.TimeoutSeconds = 90
		w.ctl.give(w.plan(s))
		w.start()
		r := w.awaitResult("a", plan.StepFailed)
		if r.Error != "hang: not done after 1m30s, stopped" || r.Ended-r.Started != 90_000 {
			t.Errorf("%+v", r)
		}
		w.programs.set("look", func(context.Context, Cmd) (Output, error) { return Output{Tail: "not yet"}, errExit })
		w.ctl.give(w.plan(plan.Step{ID: "b", Probe: &plan.Probe{Exec: []string{"look"}, TimeoutSeconds: 10, IntervalMillis: 3000}}))
		r = w.awaitResult("b", plan.StepFailed)
		if r.Error != "not true after 10s and 4 looks: look: exit status 1: not yet" {
			t.Errorf("%+v", r)
		}
	})
}

func TestReportsMergeWhileOneIsUnderWay(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start()
		w.ctl.await(anyReport)
		w.ctl.do(func() { w.ctl.reports, w.ctl.slow = nil, time.Second })
		var steps []plan.Step
		for i := range 100 {
			steps = append(steps, command(fmt.Sprintf("s%d", i), "true"))
		}
		p := w.plan(steps...)
		began := time.Now()
		w.ctl.give(p)
		w.ctl.await(allDone(p))
		// One was under way at most when the last step ended.
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the last change was told %s late", took)
		}
		<-time.After(time.Minute)
		w.ctl.do(func() {
			if n := len(w.ctl.reports); n > 2 {
				t.Errorf("%d reports of 201 changes at one moment", n)
			}
		})
	})
}

// A state directory on a full disk must neither lose nor repeat a step.
func TestNothingRunsUnlessItsStartIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &faultyDisk{}
		x := &scripted{}
		e := newEngine(testNode, d, x, newApplier(nil, nil), quiet(), func() {})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); e.run(ctx) }()
		p := plan.Plan{NodeID: testNode, Steps: []plan.Step{command("a", "a")}}
		if err := e.offer(ctx, p); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if x.ran("a") != 1 {
			t.Fatal("the step did not run")
		}
		d.set(errors.New("no space left on device"), false)
		p.Steps = append(p.Steps, command("b", "b"))
		if err := e.offer(ctx, p); !errors.Is(err, ErrBadPlan) || !strings.Contains(err.Error(), "no space") {
			t.Errorf("a plan that cannot be saved: %v", err)
		}
		d.set(errors.New("no space left on device"), true)
		if err := e.offer(ctx, p); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		var rep plan.Report
		e.fill(&rep)
		if r := rep.Result("b"); x.ran("b") != 0 || r == nil || !strings.Contains(r.Error, "cannot be saved: no space") {
			t.Errorf("ran %d times: %+v", x.ran("b"), r)
		}
		d.set(nil, false)
		<-time.After(time.Minute)
		if x.ran("b") != 1 || x.ran("a") != 1 {
			t.Errorf("ran a %d times, b %d times", x.ran("a"), x.ran("b"))
		}
		cancel()
		<-ended
	})
}

func TestFilesAreWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "file")
	write := func(content string, mode os.FileMode, want bool) {
		t.Helper()
		changed, err := writeFile(path, []byte(content), mode)
		if err != nil || changed != want {
			t.Fatalf("changed %v, error %v", changed, err)
		}
		info := must(os.Lstat(path))(t)
		if got := must(os.ReadFile(path))(t); string(got) != content || info.Mode() != mode {
			t.Fatalf("content %q, mode %s", got, info.Mode())
		}
		if names := must(os.ReadDir(filepath.Dir(path)))(t); len(names) != 1 {
			t.Fatalf("left beside it: %v", names)
		}
	}
	write("one", 0o600, true)
	write("one", 0o600, false)
	write("one", 0o644, true)
	write("two", 0o644, true)
	write("", 0o755|os.ModeSetuid, true)

	// What a crash left of an earlier try is taken over.
	tmp := filepath.Join(filepath.Dir(path), ".file.pleiad-new")
	if err := os.WriteFile(tmp, []byte("half"), 0o666); err != nil {
		t.Fatal(err)
	}
	write("three", 0o600, true)

	// A reader that has the file open keeps the old content whole.
	f := must(os.Open(path))(t)
	defer f.Close()
	write("something else", 0o600, true)
	buf := make([]byte, 20)
	if n := must(f.Read(buf))(t); string(buf[:n]) != "three" {
		t.Errorf("the open file reads %q", buf[:n])
	}

	// A symbolic link is replaced; what it points to stays.
	target := filepath.Join(dir, "target")
	if err := errors.Join(os.WriteFile(target, []byte("x"), 0o600), os.Remove(path), os.Symlink(target, path)); err != nil {
		t.Fatal(err)
	}
	write("x", 0o600, true)
	if got := must(os.ReadFile(target))(t); string(got) != "x" {
		t.Errorf("target %q", got)
	}

	// What cannot be written leaves the old file and nothing beside it.
	if _, err := writeFile(filepath.Join(dir, "a"), nil, 0o600); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if _, err := writeFile(filepath.Join(path, "below"), nil, 0o600); err == nil {
		t.Error("a file was taken for a directory")
	}
	if got := fmt.Sprint(fileMode(0o4755), fileMode(0o1777), fileMode(0o2640)); got != "urwxr-xr-x trwxrwxrwx grw-r-----" {
		t.Errorf("modes %s", got)
	}
}
