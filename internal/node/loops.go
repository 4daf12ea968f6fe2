package node

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/pleiad/pleiad/internal/node/wire"
	"github.com/pleiad/pleiad/internal/plan"
)

const (
	// pollWait is how long a controller may hold a request for a plan.
	pollWait = 30 * time.Second
	// pollPause keeps a controller that answers at once, again and again, from
	// being asked in a tight loop.
	pollPause = time.Second

	heartbeatDefault = 10 * time.Second
	heartbeatMin     = time.Second
	heartbeatMax     = 10 * time.Minute
)

// poll asks for the next plan and offers it to the engine, until ctx ends.
func poll(ctx context.Context, c *Client, e *engine, log *slog.Logger) {
	out := outage{log: log, what: "asking for a plan"}
	// An unusable plan stays so until the controller makes another.
	failed, unusable := newBackoff(), &backoff{base: time.Second, max: 30 * time.Second}
	for ctx.Err() == nil {
		asked := time.Now()
		have := e.planHash()
		p, err := c.Plan(ctx, have, pollWait)
		news := err == nil && p != nil && p.Hash() != have
		if news {
			err = e.offer(ctx, *p)
		}
		if ctx.Err() != nil {
			return
		}
		switch {
		case errors.Is(err, ErrBadPlan):
			e.refuse(err)
			out.failed(err)
			pause(ctx, unusable.next())
			continue
		case err != nil:
			out.failed(err)
			pause(ctx, failed.next())
			continue
		}
		out.over()
		failed.reset()
		unusable.reset()
		if !news && time.Since(asked) < pollPause {
			pause(ctx, jitter(pollPause))
		}
	}
}

// reporter sends the node's state whenever it changed. What changes while a
// report is under way goes with the next one.
type reporter struct {
	client *Client
	engine *engine
	log    *slog.Logger
	wake   chan struct{} // holds one: a change not reported yet

	mu        sync.Mutex // guards what follows
	facts     plan.Facts
	heartbeat time.Duration
}

func newReporter(log *slog.Logger) *reporter {
	return &reporter{log: log, wake: make(chan struct{}, 1), heartbeat: heartbeatDefault}
}

// changed says that there is something to report. It does not block.
func (r *reporter) changed() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reporter) setFacts(f plan.Facts) {
	r.mu.Lock()
	same := reflect.DeepEqual(f, r.facts)
	r.facts = f
	r.mu.Unlock()
	if !same {
		r.changed()
	}
}

// run reports until ctx ends.
func (r *reporter) run(ctx context.Context) {
	out := outage{log: r.log, what: "reporting"}
	wait := newBackoff()
	r.changed() // the first report tells that the node is there
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		var rep plan.Report
		r.engine.fill(&rep)
		r.mu.Lock()
		rep.Facts = r.facts
		r.mu.Unlock()
		answer, err := r.client.Report(ctx, rep)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			out.failed(err)
			r.changed() // not told yet
			pause(ctx, wait.next())
			continue
		}
		out.over()
		wait.reset()
		r.obey(answer)
	}
}

// beat sends heartbeats, and looks whether the facts changed, until ctx ends.
func (r *reporter) beat(ctx context.Context, s *surveyor) {
	out := outage{log: r.log, what: "heartbeat"}
	for {
		r.mu.Lock()
		every := r.heartbeat
		r.mu.Unlock()
		// Up to a tenth sooner, so that nodes started together drift apart.
		if !pause(ctx, every-jitter(every/10)) {
			return
		}
		r.setFacts(s.facts())
		h := wire.Heartbeat{NodeID: r.engine.nodeID, PlanHash: r.engine.planHash()}
		h.Uptime, h.Load = s.uptime()
		answer, err := r.client.Heartbeat(ctx, h)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			out.failed(err)
			continue // the next one comes soon enough
		}
		out.over()
		r.obey(answer)
	}
}

func (r *reporter) obey(a wire.Answer) {
	if a.HeartbeatSeconds <= 0 {
		return
	}
	r.mu.Lock()
	r.heartbeat = min(max(time.Duration(min(a.HeartbeatSeconds, 3600))*time.Second, heartbeatMin), heartbeatMax)
	r.mu.Unlock()
}
