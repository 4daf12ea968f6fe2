package node

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/plan"
)

// The scripts in testdata/applier are lines of
//
//	plan ID:CONTENT[?]…  a new plan; steps marked ? are probes, others commands
//	do WHAT              what next must say: idle, keep, stop, wait,
//	                     start ID ATTEMPT [cleanup]; a start begins
//	done | fail | cut    the running step ended so
//	tick DURATION        time passes; a failed step waits for one second
//	crash                the agent starts again from its journal
//	report ID:STATE…     what a report must say
//	# a comment
func TestApplierScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/applier/*.txt")
	if err != nil || len(paths) < 5 {
		t.Fatalf("scripts: %v, %v", paths, err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) { runScript(t, path) })
	}
}

func runScript(t *testing.T, path string) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a := newApplier(nil, nil)
	now := time.Unix(1_000_000, 0)
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		args := words[1:]
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("%s:%d: %s: %s", path, n, lines.Text(), fmt.Sprintf(format, args...))
		}
		switch words[0] {
		case "plan":
			a.setPlan(scriptPlan(args))
		case "do":
			d := a.next(now)
			if got, want := scriptWord(d), strings.Join(args, " "); got != want {
				fail("got %q", got)
			}
			if d.verb == start {
				a.began(d, now)
			}
		case "done":
			a.ended(outcome{}, false, now, 0)
		case "fail":
			a.ended(outcome{err: errors.New("it broke"), detail: "badly", logTail: "log"}, false, now, time.Second)
		case "cut":
			a.ended(outcome{err: errCutOff}, true, now, time.Second)
		case "tick":
			d, err := time.ParseDuration(args[0])
			if err != nil {
				fail("%v", err)
			}
			now = now.Add(d)
		case "crash":
			p := a.plan
			a = newApplier(&p, a.journal())
		case "report":
			var got []string
			for _, r := range a.report() {
				got = append(got, r.ID+":"+string(r.State))
				if failed := r.State == plan.StepFailed; failed != (r.Error == "it broke: badly" && r.LogTail == "log") {
					fail("state %s with error %q and log %q", r.State, r.Error, r.LogTail)
				}
				if (r.Ended != 0) != (r.State != plan.StepRunning) || r.Started == 0 || r.Attempts == 0 {
					fail("%+v", r)
				}
			}
			if strings.Join(got, " ") != strings.Join(args, " ") {
				fail("got %v", got)
			}
		default:
			fail("unknown word")
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

func scriptPlan(args []string) plan.Plan {
	p := plan.Plan{NodeID: "n"}
	for _, arg := range args {
		arg, probe := strings.CutSuffix(arg, "?")
		id, content, _ := strings.Cut(arg, ":")
		s := plan.Step{ID: id}
		if probe {
			s.Probe = &plan.Probe{Exec: []string{content}}
		} else {
			s.Command = &plan.Command{Argv: []string{content}}
		}
		p.Steps = append(p.Steps, s)
	}
	return p
}

func scriptWord(d decision) string {
	s := string(d.verb)
	if d.verb == start {
		s += " " + d.step.ID + " " + strconv.Itoa(d.attempt)
		if d.cleanup {
			s += " cleanup"
		}
	}
	return s
}

// FuzzApplier walks through random plans, outcomes and crashes, and
// checks what must hold whatever happens.
func FuzzApplier(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07"))
	f.Add([]byte{0, 3, 10, 1, 3, 0, 200, 3, 2, 3, 4, 0, 7, 3, 5, 1, 1, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		a := newApplier(nil, nil)
		now := time.Unix(1_000_000, 0)
		for i := 0; i+1 < len(script) && i < 400; i += 2 {
			arg := script[i+1]
			switch script[i] % 5 {
			case 0: // a plan of three steps, each of one of two contents, some absent
				var words []string
				for j, id := range []string{"a", "b", "c"} {
					if bits := arg >> (2 * j) & 3; bits != 0 {
						words = append(words, fmt.Sprintf("%s:%d", id, bits))
					}
				}
				a.setPlan(scriptPlan(words))
			case 1:
				now = now.Add(time.Duration(arg) * 10 * time.Millisecond)
			case 2:
				p := a.plan
				a = newApplier(&p, a.journal())
			default:
				before := len(a.journal())
				d := a.next(now)
				switch {
				case d.verb == start:
					last, ran := a.results[d.step.ID]
					if ran && last.State == plan.StepDone && last.Hash == d.step.Hash() {
						t.Fatal("a step that is done is started")
					}
					if d.cleanup != (ran && last.State != plan.StepDone) {
						t.Fatal("cleanup is not what the last run asks for")
					}
					a.began(d, now)
				case d.verb == stop:
					a.ended(outcome{err: errCutOff}, true, now, 0)
				case d.verb == keep && arg%2 == 0:
					a.ended(outcome{}, false, now, 0)
				case d.verb == keep:
					a.ended(outcome{err: errCutOff}, false, now, time.Second)
				case d.verb == wait:
					if !d.until.After(now) {
						t.Fatal("waits for what has passed")
					}
				case d.verb == idle:
					rep := plan.Report{Results: a.report()}
					if !rep.AllDone(a.plan) {
						t.Fatal("idle with steps undone")
					}
				}
				if after := len(a.journal()); after > before+1 {
					t.Fatal("one decision left several entries")
				}
			}
		}
	})
}
