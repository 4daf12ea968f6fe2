package nodeimage

import (
	"sync"
	"time"
)

// State says what an Event reports about its step.
type State string

// States of a step. Each step reports STARTED once, then PROGRESS any number of
// times, then one of the others.
const (
	Started  State = "STARTED"
	Progress State = "PROGRESS"
	// Cached: the step's result was there already.
	Cached State = "CACHED"
	Done   State = "DONE"
	Failed State = "FAILED"
)

// Event is one report of a build's progress.
type Event struct {
	// Step names the step, as "base", "component etcd", "node", "image".
	Step  string
	State State
	// Elapsed is the time since the step started. On Cached it is the time that
	// the result took when it was made.
	Elapsed time.Duration
	// Detail is a line for people: what is being done, or what came out.
	Detail string
	// Size is the size of the step's result in bytes, once it is there.
	Size int64
}

// progressInterval keeps a chatty tool from flooding the listener.
const progressInterval = 200 * time.Millisecond

// reporter passes events to the listener, one at a time.
type reporter struct {
	mu     sync.Mutex
	listen func(Event)
}

func (r *reporter) send(e Event) {
	if r.listen == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listen(e)
}

func (r *reporter) start(name, detail string) *step {
	now := time.Now()
	r.send(Event{Step: name, State: Started, Detail: detail})
	return &step{reporter: r, name: name, start: now}
}

// step is one step under way. Its methods may be called concurrently.
type step struct {
	reporter *reporter
	name     string
	start    time.Time

	mu   sync.Mutex
	last time.Time
}

// progress reports a detail, unless one was reported a moment ago.
func (s *step) progress(detail string) {
	s.mu.Lock()
	now := time.Now()
	quiet := now.Sub(s.last) < progressInterval
	if !quiet {
		s.last = now
	}
	s.mu.Unlock()
	if !quiet {
		s.reporter.send(Event{Step: s.name, State: Progress, Elapsed: now.Sub(s.start), Detail: detail})
	}
}

// end reports how the step ended.
func (s *step) end(e entry, cached bool, err error) {
	ev := Event{Step: s.name, State: Done, Elapsed: time.Since(s.start), Size: e.Size}
	switch {
	case err != nil:
		ev.State, ev.Size, ev.Detail = Failed, 0, err.Error()
	case cached:
		ev.State, ev.Elapsed = Cached, time.Duration(e.Seconds*float64(time.Second))
	}
	s.reporter.send(ev)
}
