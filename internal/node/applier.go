package node

import (
	"maps"
	"slices"
	"time"

	"github.com/pleiad/pleiad/internal/plan"
)

// Retries of a failed step.
const (
	retryBase = time.Second
	retryMax  = 30 * time.Second
)

// verb is what to do now.
type verb string

const (
	idle  verb = "idle"  // every step is done, or there is no plan
	start verb = "start" // run decision.step
	keep  verb = "keep"  // let the running step go on
	stop  verb = "stop"  // the running step is not wanted any more: cut it off
	wait  verb = "wait"  // a step failed; try again at decision.until
)

// decision is what an applier wants done next.
type decision struct {
	verb    verb
	step    plan.Step
	attempt int
	// cleanup says that an earlier run of this step did not end well.
	cleanup bool
	until   time.Time
}

// applier is the agent's state machine: it knows the plan and how far it is,
// and decides what is next. It is pure; time and outcomes are given to it. The
// order of calls is setPlan and next at any time, and began, then ended, for
// each step that next said to start.
//
// The rules. The first step of the plan that is not done is the one to run; a
// step is done when its last run succeeded with the content it has now. A step
// that leaves the plan is forgotten, but for what it left half done: should it
// come back, that is cleaned up. A running command is
// left alone as long as its step is unchanged, even when an earlier step
// changed; a probe, which changes nothing, makes way at once. A step whose last
// run, of whatever content, failed or was cut off is cleaned up before it runs
// again. A new plan ends the waiting for a retry.
type applier struct {
	plan   plan.Plan
	hash   string   // of plan; empty while there is none
	hashes []string // of plan.Steps

	// results are the last run of each step, by id. One that is StepRunning
	// while it is not running was cut off.
	results map[string]plan.StepResult
	running *runningStep
	retryAt time.Time
}

type runningStep struct {
	id, hash string
	probe    bool
}

// newApplier continues with what was saved; p is nil when nothing was.
func newApplier(p *plan.Plan, results []plan.StepResult) *applier {
	a := &applier{results: map[string]plan.StepResult{}}
	for _, r := range results {
		a.results[r.ID] = r
	}
	if p != nil {
		a.setPlan(*p)
	}
	return a
}

// setPlan replaces the plan.
func (a *applier) setPlan(p plan.Plan) {
	a.plan, a.hash, a.retryAt = p, p.Hash(), time.Time{}
	a.hashes = a.hashes[:0]
	present := make(map[string]bool, len(p.Steps))
	for _, s := range p.Steps {
		a.hashes = append(a.hashes, s.Hash())
		present[s.ID] = true
	}
	for id, r := range a.results {
		if present[id] {
			continue
		}
		if r.State == plan.StepDone {
			delete(a.results, id)
			continue
		}
		r.Error, r.LogTail = "", ""
		a.results[id] = r
	}
}

// next decides what to do now.
func (a *applier) next(now time.Time) decision {
	first := a.firstUndone()
	if r := a.running; r != nil {
		at := a.index(r.id, r.hash)
		if at < 0 || (r.probe && at != first) {
			return decision{verb: stop}
		}
		return decision{verb: keep}
	}
	if first < 0 {
		return decision{verb: idle}
	}
	d := decision{verb: start, step: a.plan.Steps[first], attempt: 1}
	last, ran := a.results[d.step.ID]
	d.cleanup = ran && last.State != plan.StepDone
	if ran && last.Hash == a.hashes[first] {
		d.attempt = last.Attempts + 1
		if last.State == plan.StepFailed && now.Before(a.retryAt) {
			return decision{verb: wait, until: a.retryAt}
		}
	}
	return d
}

// began records the start of the step that next gave.
func (a *applier) began(d decision, now time.Time) {
	hash := d.step.Hash()
	a.running = &runningStep{id: d.step.ID, hash: hash, probe: d.step.Probe != nil}
	a.results[d.step.ID] = plan.StepResult{
		ID: d.step.ID, Hash: hash, State: plan.StepRunning, Started: now.UnixMilli(), Attempts: d.attempt,
	}
}

// outcome is how a run of a step ended.
type outcome struct {
	// err is why it failed, fit for a log; nil when it succeeded.
	err error
	// detail are a program's own words on it, and logTail the last lines of the
	// logs that the step named. Neither is for our log.
	detail, logTail string
	output          string
}

// ended records the end of the running step. cutOff says that it was told to
// stop; a step that then failed is not to blame and stays as it is, to be run
// again. retryIn is how long to wait after a failure.
func (a *applier) ended(o outcome, cutOff bool, now time.Time, retryIn time.Duration) {
	id := a.running.id
	r := a.results[id]
	a.running = nil
	present := slices.ContainsFunc(a.plan.Steps, func(s plan.Step) bool { return s.ID == id })
	if o.err == nil && !present {
		delete(a.results, id)
		return
	}
	if o.err != nil && (cutOff || !present) {
		return
	}
	r.Ended = now.UnixMilli()
	if o.err == nil {
		r.State, r.Output = plan.StepDone, o.output
	} else {
		r.State, r.Error, r.LogTail = plan.StepFailed, o.err.Error(), o.logTail
		if o.detail != "" {
			r.Error += ": " + o.detail
		}
		a.retryAt = now.Add(retryIn)
	}
	a.results[id] = r
}

// journal is what must be saved: the last run of every step, by id.
func (a *applier) journal() []plan.StepResult {
	out := make([]plan.StepResult, 0, len(a.results))
	for _, id := range slices.Sorted(maps.Keys(a.results)) {
		out = append(out, a.results[id])
	}
	return out
}

// report is what to tell of: results of the contents the plan has now.
func (a *applier) report() []plan.StepResult {
	var out []plan.StepResult
	for i, s := range a.plan.Steps {
		if r, ok := a.results[s.ID]; ok && r.Hash == a.hashes[i] {
			out = append(out, r)
		}
	}
	return out
}

// firstUndone is the index of the first step that is not done, or -1.
func (a *applier) firstUndone() int {
	for i, s := range a.plan.Steps {
		if r := a.results[s.ID]; r.State != plan.StepDone || r.Hash != a.hashes[i] {
			return i
		}
	}
	return -1
}

// index is that of the step with this id and content, or -1.
func (a *applier) index(id, hash string) int {
	for i, s := range a.plan.Steps {
		if s.ID == id && a.hashes[i] == hash {
			return i
		}
	}
	return -1
}
