package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pleiad/pleiad/internal/plan"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// faultyDisk is a journal in memory whose writes can be made to fail.
type faultyDisk struct {
	mu          sync.Mutex
	err         error
	onlyResults bool
}

// set makes writes fail from now on, those of plans or not.
func (d *faultyDisk) set(err error, onlyResults bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.onlyResults = err, onlyResults
}

func (d *faultyDisk) savePlan(plan.Plan) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.onlyResults {
		return nil
	}
	return d.err
}

func (d *faultyDisk) saveResults([]plan.StepResult) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// scripted is a performer that counts.
type scripted struct {
	mu   sync.Mutex
	runs []string
}

func (s *scripted) perform(_ context.Context, st plan.Step, _ bool) outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = append(s.runs, st.ID)
	return outcome{}
}

// ran is how often a step did.
func (s *scripted) ran(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.runs {
		if r == id {
			n++
		}
	}
	return n
}

// reality is what survives a crash: the disk, and what steps have done to the
// world. A fuse burns at every event; when it is burnt the machine is dead:
// nothing is written and nothing is done any more, until it boots again.
type reality struct {
	mu   sync.Mutex
	fuse int
	dead chan struct{}

	plan    []byte
	results []byte
	// begun, ended and cleaned are the runs of each step, by id.
	begun, ended, cleaned map[string]int
	trace                 []string
}

var errDead = errors.New("the machine is dead")

// event happens, unless the machine is dead by then.
func (r *reality) event(name string, do func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fuse == 0 {
		return errDead
	}
	do()
	r.trace = append(r.trace, name)
	if r.fuse--; r.fuse == 0 {
		close(r.dead)
	}
	return nil
}

func (r *reality) savePlan(p plan.Plan) error {
	raw, err := json.Marshal(p)
	return errors.Join(err, r.event("save plan", func() { r.plan = raw }))
}

func (r *reality) saveResults(res []plan.StepResult) error {
	raw, err := json.Marshal(res)
	return errors.Join(err, r.event("save results", func() { r.results = raw }))
}

func (r *reality) perform(_ context.Context, s plan.Step, cleanup bool) outcome {
	steps := []struct {
		name string
		do   func()
	}{
		{"begin " + s.ID, func() { r.begun[s.ID]++ }},
		{"end " + s.ID, func() { r.ended[s.ID]++ }},
	}
	if cleanup {
		steps = slices.Insert(steps, 0, struct {
			name string
			do   func()
		}{"clean " + s.ID, func() { r.cleaned[s.ID]++ }})
	}
	for _, st := range steps {
		if err := r.event(st.name, st.do); err != nil {
			return outcome{err: err}
		}
	}
	return outcome{}
}

// boot runs an engine on what is there, until the fuse is burnt or an hour has
// passed, and returns the last report.
func (r *reality) boot(t *testing.T, fuse int, p plan.Plan) plan.Report {
	r.fuse, r.dead = fuse, make(chan struct{})
	var saved *plan.Plan
	if r.plan != nil {
		saved = new(must(plan.Parse(r.plan))(t))
	}
	var results []plan.StepResult
	if r.results != nil {
		if err := json.Unmarshal(r.results, &results); err != nil {
			t.Fatal(err)
		}
	}
	e := newEngine(testNode, r, r, newApplier(saved, results), quiet(), func() {})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.run(ctx) }()
	if e.planHash() != p.Hash() {
		_ = e.offer(ctx, p) // a dead machine refuses it
	}
	select {
	case <-r.dead:
	case <-time.After(time.Hour):
	}
	cancel()
	<-ended
	var rep plan.Report
	e.fill(&rep)
	return rep
}

// The agent is killed at every event of a plan's life, and, again, at every
// event of what follows. Whatever happened, in the end every step is done; one
// whose end was saved never ran again; and one that ran again was cleaned up
// first.
func TestACrashAtEveryPoint(t *testing.T) {
	p := plan.Plan{NodeID: testNode, Steps: []plan.Step{command("a", "a"), command("b", "b"), command("c", "c")}}
	const forever = 1 << 30
	fresh := func() *reality {
		return &reality{begun: map[string]int{}, ended: map[string]int{}, cleaned: map[string]int{}}
	}
	events := func() (n int) {
		synctest.Test(t, func(t *testing.T) {
			r := fresh()
			r.boot(t, forever, p)
			n = len(r.trace)
		})
		return n
	}()
	if events != 1+3*4 {
		t.Fatalf("%d events without a crash", events)
	}
	for first := 1; first <= events; first++ {
		for second := 1; second <= events-first+3; second++ {
			t.Run(fmt.Sprintf("%d+%d", first, second), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := fresh()
					r.boot(t, first, p)
					r.boot(t, second, p)
					rep := r.boot(t, forever, p)
					if !rep.AllDone(p) {
						t.Fatalf("not all done: %+v\n%q", rep.Results, r.trace)
					}
					total := 0
					for _, s := range p.Steps {
						total += r.begun[s.ID]
						again := r.begun[s.ID] - 1
						if r.ended[s.ID] < 1 || again > 2 || r.cleaned[s.ID] < again {
							t.Errorf("%s began %d times, ended %d times, was cleaned up %d times: %q",
								s.ID, r.begun[s.ID], r.ended[s.ID], r.cleaned[s.ID], r.trace)
						}
					}
					if total > len(p.Steps)+2 {
						t.Errorf("%d runs of %d steps with two crashes: %q", total, len(p.Steps), r.trace)
					}
					// Once its end is saved, a step is not touched again.
					r.trace = nil
					if r.boot(t, forever, p); len(r.trace) != 0 {
						t.Errorf("after all is done: %q", r.trace)
					}
				})
			})
		}
	}
}
