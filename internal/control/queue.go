package control

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// key names one object to reconcile.
type key struct {
	noun string // which reconciler, e.g. "cluster"
	id   string
}

// queue runs a function for each key that was asked for: at most one at a time
// for each key, at most `workers` at a time for each noun, once more if it is
// asked for while it runs. A function that fails is run again after a backoff.
// Nouns do not wait for each other: VMs on a host that hangs hold up no cluster,
// nor the look at the host that tells it from the others.
type queue struct {
	run func(ctx context.Context, k key) (again time.Duration, err error)

	mu      sync.Mutex
	lanes   map[string]*lane   // by noun
	state   map[key]*queueItem // known keys
	stopped bool
}

// lane is the keys of a noun that are to run, in order of arrival.
type lane struct {
	ready []key
	wake  *sync.Cond
}

type queueItem struct {
	queued  bool // in ready
	running bool
	dirty   bool // asked for while running
	cut     context.CancelFunc
	tries   int // failures in a row
	timer   *time.Timer
}

const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 30 * time.Second
)

func newQueue(run func(context.Context, key) (time.Duration, error), nouns ...string) *queue {
	q := &queue{run: run, lanes: map[string]*lane{}, state: map[key]*queueItem{}}
	for _, n := range nouns {
		q.lanes[n] = &lane{wake: sync.NewCond(&q.mu)}
	}
	return q
}

// add asks for k, of one of the queue's nouns, to be run soon. A pending backoff is cut short: something changed.
func (q *queue) add(k key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(k)
}

// restart asks for k to be run anew: a run under way is cut short by its context,
// since what it works towards is no longer wanted.
func (q *queue) restart(k key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if it := q.state[k]; it != nil && it.running {
		it.cut()
	}
	q.addLocked(k)
}

func (q *queue) addLocked(k key) {
	if q.stopped {
		return
	}
	it := q.state[k]
	if it == nil {
		it = &queueItem{}
		q.state[k] = it
	}
	if it.timer != nil {
		it.timer.Stop()
		it.timer = nil
	}
	switch {
	case it.running:
		it.dirty = true
	case !it.queued:
		q.push(k, it)
	}
}

func (q *queue) push(k key, it *queueItem) {
	it.queued = true
	l := q.lanes[k.noun]
	l.ready = append(l.ready, k)
	l.wake.Signal()
}

// serve runs keys with n workers for each noun until ctx ends, and returns when all have stopped.
func (q *queue) serve(ctx context.Context, n int) {
	stop := context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.stopped = true
		for _, it := range q.state {
			if it.timer != nil {
				it.timer.Stop()
			}
		}
		for _, l := range q.lanes {
			l.wake.Broadcast()
		}
	})
	defer stop()
	var wg sync.WaitGroup
	for _, l := range q.lanes {
		for range n {
			wg.Go(func() {
				for {
					k, ctx, ok := q.next(ctx, l)
					if !ok {
						return
					}
					again, err := q.run(ctx, k)
					q.done(k, again, err)
				}
			})
		}
	}
	wg.Wait()
}

func (q *queue) next(ctx context.Context, l *lane) (key, context.Context, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(l.ready) == 0 && !q.stopped {
		l.wake.Wait()
	}
	if q.stopped {
		return key{}, nil, false
	}
	k := l.ready[0]
	l.ready = l.ready[1:]
	it := q.state[k]
	it.queued, it.running = false, true
	ctx, it.cut = context.WithCancel(ctx)
	return k, ctx, true
}

func (q *queue) done(k key, again time.Duration, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.state[k]
	it.running = false
	it.cut()
	if err != nil {
		it.tries++
		again = backoff(it.tries)
	} else {
		it.tries = 0
	}
	switch {
	case q.stopped:
	case it.dirty:
		it.dirty = false
		q.push(k, it)
	case again > 0:
		it.timer = time.AfterFunc(again, func() { q.add(k) })
	case err == nil:
		delete(q.state, k)
	}
}

// backoff doubles from minBackoff to maxBackoff, with jitter of a half so that
// what failed together is not tried again together.
func backoff(tries int) time.Duration {
	d := maxBackoff
	if tries < 9 {
		d = min(minBackoff<<(tries-1), maxBackoff)
	}
	return d/2 + rand.N(d/2+1)
}
