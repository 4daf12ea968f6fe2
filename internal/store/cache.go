package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// cache is the in-memory copy of all objects at revision rev.
type cache struct {
	mu      sync.RWMutex
	rev     int64
	tables  map[*schema]*table
	waiters []waiter
	subs    map[*subscription]struct{}
}

type waiter struct {
	rev int64
	ch  chan struct{}
}

// table is one collection. Lists are sorted by id.
type table struct {
	sch     *schema
	byID    map[string]*entry
	all     []*entry
	indexed map[string][]*entry // by "name/value"
	unique  map[string]string   // "name/key" to the id that holds it
}

// entry is one object; the lists share it, so an update that changes no index touches none.
type entry struct {
	id  string
	val any
	mod int64 // revision of its last change
}

// change is one object's change on its way from etcd to the cache.
type change struct {
	sch *schema
	id  string
	val any // nil when deleted
	mod int64
}

func newCache() *cache {
	return &cache{tables: map[*schema]*table{}, subs: map[*subscription]struct{}{}}
}

func newTables() map[*schema]*table {
	tables := make(map[*schema]*table, len(registry))
	for _, sch := range registry {
		tables[sch] = &table{sch: sch, byID: map[string]*entry{}, indexed: map[string][]*entry{}, unique: map[string]string{}}
	}
	return tables
}

func (t *table) list(key string) []*entry {
	if key == "" {
		return t.all
	}
	return t.indexed[key]
}

func (t *table) setList(key string, list []*entry) {
	switch {
	case key == "":
		t.all = list
	case len(list) == 0:
		delete(t.indexed, key)
	default:
		t.indexed[key] = list
	}
}

func position(list []*entry, id string) (int, bool) {
	return slices.BinarySearchFunc(list, id, func(e *entry, id string) int { return strings.Compare(e.id, id) })
}

// after returns the part of a list whose ids come after id.
func after(list []*entry, id string) []*entry {
	if id == "" {
		return list
	}
	i, found := position(list, id)
	if found {
		i++
	}
	return list[i:]
}

// apply makes the change and returns the value before it, nil if there was none.
func (t *table) apply(c change) any {
	e := t.byID[c.id]
	var old any
	var had, has []string // lists the object was and will be in
	if e != nil {
		old = e.val
		had = append(t.sch.index(old), "")
		for _, u := range t.sch.unique(old) {
			if t.unique[u] == c.id { // else claimed by another object in the same commit
				delete(t.unique, u)
			}
		}
	}
	if c.val != nil {
		has = append(t.sch.index(c.val), "")
		for _, u := range t.sch.unique(c.val) {
			t.unique[u] = c.id
		}
		if e == nil {
			e = &entry{id: c.id}
			t.byID[c.id] = e
		}
		e.val, e.mod = c.val, c.mod
	} else {
		delete(t.byID, c.id)
	}
	for _, key := range had {
		if !slices.Contains(has, key) {
			list := t.list(key)
			if i, found := position(list, c.id); found {
				t.setList(key, slices.Delete(list, i, i+1))
			}
		}
	}
	for _, key := range has {
		if !slices.Contains(had, key) {
			list := t.list(key)
			i, _ := position(list, c.id)
			t.setList(key, slices.Insert(list, i, e))
		}
	}
	return old
}

// advance applies changes and moves on to rev.
func (c *cache) advance(changes []change, rev int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range changes {
		old := c.tables[ch.sch].apply(ch)
		c.publish(ch, old)
	}
	c.moveTo(rev)
}

// replace puts tables read at rev in the place of the present ones, and tells
// subscribers what is different.
func (c *cache) replace(tables map[*schema]*table, rev int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.tables
	c.tables = tables
	for sch, t := range old {
		for _, e := range t.all {
			if tables[sch].byID[e.id] == nil {
				c.publish(change{sch, e.id, nil, rev}, e.val)
			}
		}
	}
	for sch, t := range tables {
		for _, e := range t.all {
			var before *entry
			if old[sch] != nil {
				before = old[sch].byID[e.id]
			}
			switch {
			case before == nil:
				c.publish(change{sch, e.id, e.val, e.mod}, nil)
			case before.mod != e.mod:
				c.publish(change{sch, e.id, e.val, e.mod}, before.val)
			}
		}
	}
	c.moveTo(rev)
}

func (c *cache) publish(ch change, old any) {
	for sub := range c.subs {
		sub.add(ch, old)
	}
}

func (c *cache) moveTo(rev int64) {
	c.rev = max(c.rev, rev)
	c.waiters = slices.DeleteFunc(c.waiters, func(w waiter) bool {
		if w.rev > c.rev {
			return false
		}
		close(w.ch)
		return true
	})
}

// reached returns a channel that is closed once the cache is at rev.
func (c *cache) reached(rev int64) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan struct{})
	if rev <= c.rev {
		close(ch)
	} else {
		c.waiters = append(c.waiters, waiter{rev, ch})
	}
	return ch
}

// forget ends a wait for a revision, reached or not.
func (c *cache) forget(reached <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(w waiter) bool { return w.ch == reached })
}

// objects is the range of keys the cache holds.
func (s *Store) objects() string { return s.prefix + "o/" }

// decode turns a key and its value into a change; ok is false for a collection
// this binary does not know, which a newer one may have made.
func (s *Store) decode(kv *mvccpb.KeyValue, deleted bool) (c change, ok bool, err error) {
	key := strings.TrimPrefix(string(kv.Key), s.prefix)
	name, id, _ := strings.Cut(strings.TrimPrefix(key, "o/"), "/")
	sch := registry[name]
	if sch == nil {
		s.log.Warn("the store holds an object of an unknown collection, which is left alone", "key", key)
		return c, false, nil
	}
	c = change{sch: sch, id: id, mod: kv.ModRevision}
	if !deleted {
		if c.val, err = sch.open(s.sealer, key, kv.Value); err != nil {
			return c, false, fmt.Errorf("store: %s: %w", key, err)
		}
	}
	return c, true, nil
}

// load reads all objects at one revision.
func (s *Store) load(ctx context.Context) (map[*schema]*table, int64, error) {
	const page = 500
	tables := newTables()
	key, end := s.objects(), clientv3.GetPrefixRangeEnd(s.objects())
	var rev int64
	for {
		reqCtx, cancel := context.WithTimeout(ctx, 6*requestTimeout)
		resp, err := s.client.Get(reqCtx, key, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(rev))
		cancel()
		if err != nil {
			return nil, 0, fmt.Errorf("store: etcd does not answer: %w", err)
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			c, ok, err := s.decode(kv, false)
			if err != nil {
				return nil, 0, &undecodable{err}
			}
			if ok {
				tables[c.sch].apply(c)
			}
		}
		if !resp.More {
			return tables, rev, nil
		}
		key = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// undecodable marks an error that no retry mends.
type undecodable struct{ error }

func (u *undecodable) Unwrap() error { return u.error }

// run keeps the cache up until the store ends.
func (s *Store) run() {
	for attempt := 0; s.ctx.Err() == nil; attempt++ {
		s.cache.mu.RLock()
		rev := s.cache.rev
		s.cache.mu.RUnlock()
		err := s.watch(rev + 1)
		if errors.Is(err, rpctypes.ErrCompacted) {
			// What happened since rev is gone; what there is now is not.
			var tables map[*schema]*table
			var loaded int64
			if tables, loaded, err = s.load(s.ctx); err == nil {
				s.cache.replace(tables, loaded)
				continue
			}
		}
		if _, ok := errors.AsType[*undecodable](err); ok {
			s.fail(err)
			return
		}
		if s.ctx.Err() != nil {
			return
		}
		if s.Revision() > Revision(rev) {
			attempt = 0
		}
		s.log.Warn("the watch of the store ended, and starts again", "error", err)
		pause(s.ctx, backoff(attempt, 50*time.Millisecond, 2*time.Second))
	}
}

// watch applies what happens from revision from on, until the watch ends.
func (s *Store) watch(from int64) error {
	ctx, cancel := context.WithCancel(s.watchContext())
	defer cancel()
	events := s.client.Watch(ctx, s.objects(), clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithProgressNotify())
	for resp := range events {
		if err := resp.Err(); err != nil {
			return err
		}
		// A response's header may be ahead of its events, unless it has none.
		rev := resp.Header.Revision
		if !resp.IsProgressNotify() {
			rev = from - 1
		}
		changes := make([]change, 0, len(resp.Events))
		for _, e := range resp.Events {
			c, ok, err := s.decode(e.Kv, e.Type == clientv3.EventTypeDelete)
			if err != nil {
				return &undecodable{err}
			}
			rev = max(rev, e.Kv.ModRevision)
			if ok {
				changes = append(changes, c)
			}
		}
		s.cache.advance(changes, rev)
	}
	return errors.New("watch closed")
}

// watchContext asks an external etcd to end the watch at a member that has lost
// its cluster, rather than to leave it silent. The client finds the stream
// of a progress request by this context's metadata.
func (s *Store) watchContext() context.Context { return clientv3.WithRequireLeader(s.ctx) }

func (s *Store) requestProgress() {
	ctx, cancel := context.WithTimeout(s.watchContext(), requestTimeout)
	defer cancel()
	if err := s.client.RequestProgress(ctx); err != nil && s.ctx.Err() == nil {
		s.log.Debug("asking the watch for its progress", "error", err)
	}
}

// backoff returns a random duration that grows with the attempt.
func backoff(attempt int, first, limit time.Duration) time.Duration {
	d := min(first<<min(attempt, 20), limit)
	return d/2 + rand.N(d/2+1)
}

// pause waits for d, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (s *Store) get(sch *schema, id string) (any, error) {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	if e := s.cache.tables[sch].byID[id]; e != nil {
		return e.val, nil
	}
	return nil, nil
}

func (s *Store) find(sch *schema, unique string) string {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	return s.cache.tables[sch].unique[unique]
}

func (s *Store) list(sch *schema, q Query) (page []any, next string, err error) {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	rest := after(s.cache.tables[sch].list(q.key()), q.After)
	if q.Limit > 0 && len(rest) > q.Limit {
		rest = rest[:q.Limit]
		next = rest[q.Limit-1].id
	}
	page = make([]any, len(rest))
	for i, e := range rest {
		page[i] = e.val
	}
	return page, next, nil
}

func (s *Store) count(sch *schema, q Query) int {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	return len(s.cache.tables[sch].list(q.key()))
}
