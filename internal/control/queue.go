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
// for each key, at most `workers` at a time in all, once more if it is asked
// for while it runs. A function that fails is run again after a backoff.
type queue struct {
	run func(ctx context.Context, k key) (again time.Duration, err error)

	mu      sync.Mutex
	wake    *sync.Cond
	ready   []key              // to run, in order of arrival
	state   map[key]*queueItem // known keys
	stopped bool
}

type queueItem struct {
	queued  bool // in ready
	running bool
	dirty   bool // asked for while running
	tries   int  // failures in a row
	timer   *time.Timer
}

const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 30 * time.Second
)

func newQueue(run func(context.Context, key) (time.Duration, error)) *queue {
	q := &queue{run: run, state: map[key]*queueItem{}}
	q.wake = sync.NewCond(&q.mu)
	return q
}

// add asks for k to be run soon. A pending backoff is cut short: something changed.
func (q *queue) add(k key) {
	q.mu.Lock()
	defer q.mu.Unlock()
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
		it.queued = true
		q.ready = append(q.ready, k)
		q.wake.Signal()
	}
}

// serve runs keys with n workers until ctx ends, and returns when all have stopped.
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
		q.wake.Broadcast()
	})
	defer stop()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for {
				k, ok := q.next()
				if !ok {
					return
				}
				again, err := q.run(ctx, k)
				q.done(k, again, err)
			}
		})
	}
	wg.Wait()
}

func (q *queue) next() (key, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.ready) == 0 && !q.stopped {
		q.wake.Wait()
	}
	if q.stopped {
		return key{}, false
	}
	k := q.ready[0]
	q.ready = q.ready[1:]
	it := q.state[k]
	it.queued, it.running = false, true
	return k, true
}

func (q *queue) done(k key, again time.Duration, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.state[k]
	it.running = false
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
		it.queued = true
		q.ready = append(q.ready, k)
		q.wake.Signal()
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
