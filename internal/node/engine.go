package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pleiad/pleiad/internal/plan"
)

// journal keeps an engine's memory through a crash. What it was given is on
// disk when it returns.
type journal interface {
	savePlan(plan.Plan) error
	saveResults([]plan.StepResult) error
}

// performer runs one step. It returns soon after ctx ended, and by then nothing
// of the step runs any more.
type performer interface {
	perform(ctx context.Context, s plan.Step, cleanup bool) outcome
}

// engine carries out what its applier decides. Before a step runs, and after it
// ended, the journal is written: a crash at any point repeats at most the step
// it happened in.
type engine struct {
	nodeID    string
	journal   journal
	performer performer
	log       *slog.Logger
	// changed is called after every change that a report would show; it must not block.
	changed func()

	offers chan offer

	mu      sync.Mutex // guards what follows
	applier *applier
	refused string
}

type offer struct {
	plan  plan.Plan
	reply chan error
}

func newEngine(nodeID string, j journal, p performer, a *applier, log *slog.Logger, changed func()) *engine {
	return &engine{nodeID: nodeID, journal: j, performer: p, applier: a, log: log, changed: changed, offers: make(chan offer)}
}

// offer hands over a plan that came from a controller; an error says why it was
// not taken. It returns once the plan is saved.
func (e *engine) offer(ctx context.Context, p plan.Plan) error {
	o := offer{plan: p, reply: make(chan error, 1)}
	select {
	case e.offers <- o:
		return <-o.reply
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refuse records why a plan could not be taken, for the reports.
func (e *engine) refuse(err error) {
	e.mu.Lock()
	same := e.refused == err.Error()
	e.refused = err.Error()
	e.mu.Unlock()
	if !same {
		e.changed()
	}
}

// planHash is that of the plan the node has, empty while it has none.
func (e *engine) planHash() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.applier.hash
}

// fill adds to a report what the engine knows.
func (e *engine) fill(r *plan.Report) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r.NodeID, r.PlanHash, r.Refused, r.Results = e.nodeID, e.applier.hash, e.refused, e.applier.report()
}

// run applies plans until ctx ends; then it stops the running step, which
// counts as cut off, waits for it and returns.
func (e *engine) run(ctx context.Context) {
	var cut context.CancelFunc // not nil while a step runs
	done := make(chan outcome, 1)
	cutOff := false
	for {
		e.mu.Lock()
		d := e.applier.next(time.Now())
		e.mu.Unlock()

		var retry <-chan time.Time
		switch d.verb {
		case start:
			if ctx.Err() != nil {
				return
			}
			if !e.begin(d) {
				continue // the failure to save it is the outcome
			}
			cut, cutOff = e.launch(ctx, d, done), false
			continue
		case stop:
			cutOff = true
			cut()
		case wait:
			retry = time.After(time.Until(d.until))
		}

		quit := ctx.Done()
		if ctx.Err() != nil {
			if cut == nil {
				return
			}
			cutOff, quit = true, nil // the step's context has ended with ctx; its outcome is to come
		}
		select {
		case o := <-e.offers:
			o.reply <- e.take(o.plan)
		case o := <-done:
			cut()
			cut = nil
			e.end(o, cutOff)
		case <-retry:
		case <-quit:
		}
	}
}

// launch runs a step beside the engine, and returns what cuts it off.
func (e *engine) launch(ctx context.Context, d decision, done chan<- outcome) context.CancelFunc {
	ctx, cut := context.WithCancel(ctx)
	go func() { done <- e.performer.perform(ctx, d.step, d.cleanup) }()
	return cut
}

// take replaces the plan.
func (e *engine) take(p plan.Plan) error {
	if p.NodeID != e.nodeID {
		return fmt.Errorf("%w: it is for node %s, this is %s", ErrBadPlan, p.NodeID, e.nodeID)
	}
	if err := e.journal.savePlan(p); err != nil {
		return fmt.Errorf("%w: it cannot be saved: %w", ErrBadPlan, err)
	}
	e.mu.Lock()
	e.applier.setPlan(p)
	e.refused = ""
	hash := e.applier.hash
	e.mu.Unlock()
	e.log.Info("plan taken", "plan", hash, "steps", len(p.Steps))
	e.changed()
	return nil
}

// begin records the start of a step. When it cannot be saved the step has
// failed: running it now could run it twice later.
func (e *engine) begin(d decision) bool {
	e.mu.Lock()
	e.applier.began(d, time.Now())
	entries := e.applier.journal()
	e.mu.Unlock()
	if err := e.journal.saveResults(entries); err != nil {
		e.end(outcome{err: fmt.Errorf("its start cannot be saved: %w", err)}, false)
		return false
	}
	e.log.Info("step begins", "step", d.step.ID, "title", d.step.Title, "attempt", d.attempt, "cleanup", d.cleanup)
	e.changed()
	return true
}

// end records the outcome of the running step.
func (e *engine) end(o outcome, cutOff bool) {
	now := time.Now()
	e.mu.Lock()
	id := e.applier.running.id
	r := e.applier.results[id]
	retryIn := jitter(doubled(retryBase, retryMax, r.Attempts))
	e.applier.ended(o, cutOff, now, retryIn)
	entries := e.applier.journal()
	e.mu.Unlock()

	took := now.Sub(time.UnixMilli(r.Started)).Round(time.Millisecond)
	switch {
	case o.err == nil:
		e.log.Info("step done", "step", id, "took", took)
	case cutOff:
		e.log.Info("step cut off", "step", id, "took", took)
	default:
		e.log.Warn("step failed", "step", id, "took", took, "error", o.err, "retryIn", retryIn.Round(time.Millisecond))
	}
	// An outcome that cannot be saved is still true, and is saved with the next
	// one; only a crash before that would repeat the step.
	if err := e.journal.saveResults(entries); err != nil {
		e.log.Error("the step's outcome cannot be saved", "step", id, "error", err)
	}
	e.changed()
}

// errCutOff is the cause in an outcome of a step that was told to stop.
var errCutOff = errors.New("cut off")
