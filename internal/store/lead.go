package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Leadership is held by one candidate of a name at a time, by a lease that is
// kept alive until Resign or the end of the process.
type Leadership struct {
	s       *Store
	session *concurrency.Session
	key     string
	rev     int64 // revision key was created at: what fenced commits compare
	resign  sync.Once
}

// Campaign waits until it leads under that name, or ctx ends. id says who
// leads, for people who look into etcd. When the process dies, another leads
// after ttl (5 seconds is usual; etcd counts whole seconds, and has a minimum of its own).
func (s *Store) Campaign(ctx context.Context, name, id string, ttl time.Duration) (*Leadership, error) {
	for attempt := 0; ; attempt++ {
		l, err := s.candidate(ctx, s.prefix+"l/"+name+"/", id, ttl)
		if err == nil {
			return l, nil
		}
		if s.ctx.Err() != nil {
			return nil, context.Cause(s.ctx)
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("store: campaign for %s: %w", name, ctx.Err())
		}
		s.log.Warn("a campaign failed, and starts again", "name", name, "error", err)
		pause(ctx, backoff(attempt, 50*time.Millisecond, 2*time.Second))
	}
}

// candidate queues up behind the earlier candidates and waits until all are gone.
func (s *Store) candidate(ctx context.Context, queue, id string, ttl time.Duration) (_ *Leadership, err error) {
	grantCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	grant, err := s.client.Grant(grantCtx, max(1, int64(ttl/time.Second)))
	if err != nil {
		return nil, err
	}
	session, err := concurrency.NewSession(s.client, concurrency.WithLease(grant.ID), concurrency.WithContext(s.ctx))
	if err != nil {
		return nil, err
	}
	l := &Leadership{s: s, session: session, key: queue + strconv.FormatInt(int64(grant.ID), 16)}
	defer func() {
		if err != nil {
			l.release(context.WithoutCancel(ctx))
		}
	}()
	put, err := s.client.Put(grantCtx, l.key, id, clientv3.WithLease(grant.ID))
	if err != nil {
		return nil, err
	}
	l.rev = put.Header.Revision
	for {
		getCtx, cancel := context.WithTimeout(ctx, requestTimeout)
		resp, err := s.client.Get(getCtx, queue, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
		cancel()
		if err != nil {
			return nil, err
		}
		place := slices.IndexFunc(resp.Kvs, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) == l.key })
		switch place {
		case -1:
			return nil, errLeaseEnded
		case 0:
			return l, nil
		}
		before := string(resp.Kvs[place-1].Key)
		if err := s.waitGone(ctx, before, resp.Header.Revision+1, session.Done()); err != nil {
			return nil, err
		}
	}
}

var errLeaseEnded = errors.New("store: the lease ended")

// waitGone waits until key is deleted at revision from or later.
func (s *Store) waitGone(ctx context.Context, key string, from int64, ended <-chan struct{}) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	events := s.client.Watch(ctx, key, clientv3.WithRev(from), clientv3.WithFilterPut())
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return errors.New("watch closed")
			}
			if err := resp.Err(); err != nil {
				return err
			}
			if len(resp.Events) > 0 {
				return nil
			}
		case <-ended:
			return errLeaseEnded
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}

// Done is closed when the lease has ended, or is about to for want of an
// answer from etcd. Work under it must stop; what it still writes by Fenced fails.
func (l *Leadership) Done() <-chan struct{} { return l.session.Done() }

// Resign gives leadership up, so that the next candidate leads at once.
func (l *Leadership) Resign(ctx context.Context) error {
	if err := l.release(ctx); err != nil {
		return fmt.Errorf("store: resign: %w", err)
	}
	return nil
}

// release ends the lease, and the key with it.
func (l *Leadership) release(ctx context.Context) (err error) {
	l.resign.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		l.session.Orphan() // stops keeping it alive
		_, err = l.s.client.Revoke(ctx, l.session.Lease())
	})
	return err
}

// Fenced writes to a store on condition that a leadership lasts.
type Fenced struct {
	s *Store
	l *Leadership
}

// Fenced returns a handle whose commits succeed only while l lasts. That guards
// the store; work elsewhere must be safe to repeat.
func (s *Store) Fenced(l *Leadership) *Fenced { return &Fenced{s, l} }

// Update is Store.Update with one more error: ErrFenced, once leadership is lost.
func (f *Fenced) Update(ctx context.Context, group string, fn func(*Tx) error) (Revision, error) {
	return f.s.update(ctx, groupKey{group, f.l}, fn)
}
