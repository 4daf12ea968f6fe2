package store

import (
	"context"
	"iter"
	"sync"
)

// Event says that an object has changed.
type Event[T any] struct {
	ID string
	// Old is the object as the watcher last knew it, nil if it did not; New is
	// what it is now, nil if it is gone. Both are shared and must not be changed.
	Old, New *T
	Revision Revision
}

// WatchOptions choose what Watch yields.
type WatchOptions struct {
	ID      string // only this object; empty for all
	Present bool   // yield first what there is, as events without Old, in order of ids
}

// Watch returns the changes from now on, in the order they happened, until ctx
// or the store ends. It begins when Watch is called, not when the sequence is
// first used. The sequence can be used once.
//
// A watcher may be slow: changes of one object that it has not taken yet are
// merged into one, so that it always gets every object's latest state, never
// holds up anybody, and is owed no more events than there are objects. That
// makes Watch a source for a queue of work, keyed by id.
func (c *Collection[T]) Watch(ctx context.Context, s *Store, o WatchOptions) iter.Seq[Event[T]] {
	sub := &subscription{sch: c.sch, id: o.ID, pending: map[string]*pendingChange{}, wake: make(chan struct{}, 1)}
	s.cache.mu.Lock()
	if o.Present {
		for _, e := range s.cache.tables[c.sch].all {
			sub.add(change{c.sch, e.id, e.val, e.mod}, nil)
		}
	}
	s.cache.subs[sub] = struct{}{}
	s.cache.mu.Unlock()
	leave := func() {
		s.cache.mu.Lock()
		delete(s.cache.subs, sub)
		s.cache.mu.Unlock()
	}
	stop := context.AfterFunc(ctx, leave)
	return func(yield func(Event[T]) bool) {
		defer func() {
			stop()
			leave()
		}()
		for {
			for p := sub.take(); p != nil; p = sub.take() {
				e := Event[T]{ID: p.id, Revision: Revision(p.mod)}
				if p.old != nil {
					e.Old = p.old.(*T)
				}
				if p.val != nil {
					e.New = p.val.(*T)
				}
				if ctx.Err() != nil || !yield(e) {
					return
				}
			}
			select {
			case <-sub.wake:
			case <-ctx.Done():
				return
			case <-s.ctx.Done():
				return
			}
		}
	}
}

// subscription is what one watcher has still to be told.
type subscription struct {
	sch  *schema
	id   string
	wake chan struct{} // has one element when there may be something to take

	mu      sync.Mutex
	pending map[string]*pendingChange
	order   []*pendingChange
}

type pendingChange struct {
	change
	old any
}

// add never blocks: the cache calls it with its lock held.
func (sub *subscription) add(c change, old any) {
	if c.sch != sub.sch || sub.id != "" && sub.id != c.id {
		return
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if p := sub.pending[c.id]; p != nil {
		p.change = c
	} else {
		p = &pendingChange{c, old}
		sub.pending[c.id] = p
		sub.order = append(sub.order, p)
	}
	select {
	case sub.wake <- struct{}{}:
	default:
	}
}

// take returns the next change, nil if there is none. What came and went
// unseen is left out.
func (sub *subscription) take() *pendingChange {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	for len(sub.order) > 0 {
		p := sub.order[0]
		sub.order[0] = nil
		sub.order = sub.order[1:]
		delete(sub.pending, p.id)
		if p.old != nil || p.val != nil {
			return p
		}
	}
	return nil
}
