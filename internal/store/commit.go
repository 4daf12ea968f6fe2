package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

type groupKey struct {
	name string
	lead *Leadership
}

// group is a queue of updates that commit together. It exists, with one
// goroutine that works it off, while there is something in it; Store.mu guards it.
type group struct{ queue []*job }

// job is one call of Update.
type job struct {
	ctx   context.Context
	fn    func(*Tx) error
	taken atomic.Bool // by the one who will answer it, or by the caller who gave up
	done  chan struct{}
	// The answer, set before done is closed.
	rev   Revision
	err   error
	panic any
}

// Update runs fn and commits what it wrote, if what it read is still so; else
// it waits a little and runs fn again. fn may run several times, also after it
// has returned an error: it must have no effect but by its Tx and by variables
// it sets anew each time, must not block, and must not call Update. An error of
// fn's is returned as it is, once etcd has confirmed what fn read; nothing is
// written then.
//
// Updates with the same group run one after the other and commit together, in
// order, each seeing what those before it wrote. An update in group "" commits
// alone.
//
// When Update returns, reads with s show the commit. It takes 30 seconds at
// most, or what ctx allows. The error wraps ErrUnknownOutcome if etcd did not
// answer, ErrTooLarge if fn reads or writes more than a transaction carries,
// and is a model.Error with CodeStorageFull if there is no space.
func (s *Store) Update(ctx context.Context, groupName string, fn func(*Tx) error) (Revision, error) {
	return s.update(ctx, groupKey{groupName, nil}, fn)
}

func (s *Store) update(ctx context.Context, key groupKey, fn func(*Tx) error) (Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	j := &job{ctx: ctx, fn: fn, done: make(chan struct{})}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0, ErrClosed
	}
	s.updates.Add(1)
	defer s.updates.Done()
	if key.name == "" {
		s.mu.Unlock()
		j.taken.Store(true)
		s.commit([]*job{j}, key.lead)
	} else {
		g := s.groups[key]
		if g == nil {
			g = &group{}
			s.groups[key] = g
			s.updates.Go(func() { s.work(key, g) })
		}
		g.queue = append(g.queue, j)
		s.mu.Unlock()
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		if j.taken.CompareAndSwap(false, true) {
			return 0, fmt.Errorf("store: update still queued: %w", ctx.Err())
		}
		<-j.done // it is on its way: the answer must say how it ended
	}
	if j.panic != nil {
		panic(j.panic)
	}
	return j.rev, j.err
}

// work commits a group's queue until it is empty.
func (s *Store) work(key groupKey, g *group) {
	var jobs []*job
	for {
		s.mu.Lock()
		fresh := g.queue
		g.queue = nil
		if len(jobs)+len(fresh) == 0 {
			delete(s.groups, key)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		for _, j := range fresh {
			if j.taken.CompareAndSwap(false, true) {
				jobs = append(jobs, j)
			}
		}
		jobs = s.commit(jobs, key.lead)
	}
}

func (j *job) answer(rev Revision, err error) {
	j.rev, j.err = rev, err
	close(j.done)
}

func answerAll(jobs []*job, err error) {
	for _, j := range jobs {
		j.answer(0, err)
	}
}

// commit runs as many of the jobs as one transaction carries, commits and
// answers them, and returns the rest.
func (s *Store) commit(jobs []*job, lead *Leadership) (rest []*job) {
	for attempt := 0; ; attempt++ {
		if s.ctx.Err() != nil {
			answerAll(jobs, context.Cause(s.ctx))
			return rest
		}
		var deadline time.Time // the latest of theirs
		jobs = slices.DeleteFunc(jobs, func(j *job) bool {
			if err := j.ctx.Err(); err != nil {
				j.answer(0, fmt.Errorf("store: update not committed after %d conflicts: %w", attempt, err))
				return true
			}
			if d, _ := j.ctx.Deadline(); d.After(deadline) {
				deadline = d
			}
			return false
		})
		if len(jobs) == 0 {
			return rest
		}
		batch, errs := s.runJobs(jobs)
		rest = append(slices.Clone(jobs[len(errs):]), rest...)
		jobs = jobs[:len(errs)]

		rev, err := s.send(batch, lead, deadline)
		if conflict, ok := errors.AsType[*conflictError](err); ok {
			// Wait first, then read: the other way round, many writers of one
			// object would all find it changed again.
			select {
			case <-s.closing:
				answerAll(jobs, ErrClosed)
				return rest
			default:
			}
			ctx, cancel := context.WithTimeout(s.ctx, requestTimeout)
			pause(ctx, backoff(attempt, 2*time.Millisecond, 250*time.Millisecond))
			s.WaitFor(ctx, conflict.rev) // if it fails, the next attempt does, too, and says why
			cancel()
			continue
		}
		if err != nil {
			if !errors.Is(err, ErrUnknownOutcome) {
				err = s.outage(err)
			}
			answerAll(jobs, err)
			return rest
		}
		if len(batch.writes) > 0 {
			// The commit stands, whether or not this replica gets to see it in time.
			ctx, cancel := context.WithTimeout(s.ctx, requestTimeout)
			if err := s.WaitFor(ctx, rev); err != nil && s.ctx.Err() == nil {
				s.log.Warn("a commit is not seen by the watch of the store", "error", err)
			}
			cancel()
		}
		for i, j := range jobs {
			if errs[i] != nil {
				j.answer(0, errs[i])
			} else {
				j.answer(rev, nil)
			}
		}
		return rest
	}
}

// runJobs runs jobs one after the other, each on top of those before it, until
// a transaction is full. There is one error, nil or not, for each job that ran.
func (s *Store) runJobs(jobs []*job) (*layer, []error) {
	batch := newLayer()
	var errs []error
	ops, size := 1, 0 // one condition is the leader's
	for i, j := range jobs {
		tx := &Tx{s: s, batch: batch, own: newLayer()}
		err := j.run(tx)
		moreOps, moreSize := tx.own.size()
		if ops+moreOps > s.maxOps || size+moreSize > s.maxBytes {
			if i > 0 {
				break
			}
			err = fmt.Errorf("%w: %d operations of %d, about %d bytes of %d",
				ErrTooLarge, moreOps, s.maxOps-1, moreSize, s.maxBytes)
			return batch, append(errs, err)
		}
		batch.absorb(tx.own, err == nil)
		if err == nil {
			ops += moreOps
			size += moreSize
		} else {
			ops += len(tx.own.reads) + len(tx.own.free) + len(tx.own.lists)
		}
		errs = append(errs, err)
	}
	return batch, errs
}

var errPanicked = errors.New("store: the function panicked")

// run runs the job's function. A panic in it is its caller's, not the group's.
func (j *job) run(tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			j.panic = fmt.Sprintf("%v\n\nin a function given to store.Update:\n%s", p, debug.Stack())
			err = errPanicked
		}
	}()
	j.panic = nil
	return j.fn(tx)
}

// conflictError says that something read has changed, at rev or before.
type conflictError struct{ rev Revision }

func (*conflictError) Error() string { return "store: conflict" }

// send commits a layer in one transaction. An unanswered transaction is sent
// again as it is: since it requires what it changes to be unchanged, it can be
// committed once at most.
func (s *Store) send(l *layer, lead *Leadership, deadline time.Time) (Revision, error) {
	conditions, writes, mark, err := s.operations(l)
	if err != nil {
		return 0, err
	}
	if len(writes) > 0 && s.dataDir != "" {
		floor := s.minFree
		if l.frees || lead != nil {
			floor /= 4
		}
		if err := checkSpace(s.dataDir, floor); err != nil {
			return 0, err
		}
	}
	then := writes
	if len(then) == 0 {
		// A transaction of conditions alone counts as serializable: a member of etcd
		// that is behind would check them against its past (txn.IsTxnSerializable).
		// One that reads is checked by all.
		then = []clientv3.Op{clientv3.OpGet(s.prefix, clientv3.WithCountOnly())}
	}
	// On conflict, tell whose: the leader's key shows whether leadership is
	// lost, the mark whether an earlier sending was committed after all.
	var look []clientv3.Op
	if mark != nil {
		look = append(look, clientv3.OpGet(mark.key))
	}
	if lead != nil {
		conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(lead.key), "=", lead.rev))
		look = append(look, clientv3.OpGet(lead.key))
	}
	untilDeadline, cancel := context.WithDeadline(s.ctx, deadline)
	defer cancel()
	for attempt := 0; ; attempt++ {
		ctx, cancel := context.WithTimeout(untilDeadline, sendTimeout)
		resp, err := s.client.Txn(ctx).If(conditions...).Then(then...).Else(look...).Commit()
		cancel()
		switch {
		case err == nil && resp.Succeeded:
			return Revision(resp.Header.Revision), nil
		case err == nil:
			if mark != nil && attempt > 0 {
				rev, err := s.landed(untilDeadline, mark, resp.Responses[0].GetResponseRange().Kvs)
				if rev != 0 || err != nil {
					return rev, err
				}
			}
			if lead != nil {
				kvs := resp.Responses[len(look)-1].GetResponseRange().Kvs
				if len(kvs) == 0 || kvs[0].CreateRevision != lead.rev {
					return 0, ErrFenced
				}
			}
			return 0, &conflictError{Revision(resp.Header.Revision)}
		case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps):
			return 0, fmt.Errorf("%w: %w", ErrTooLarge, err)
		case refused(err) && !errors.Is(err, rpctypes.ErrTooManyRequests):
			return 0, fmt.Errorf("store: etcd refuses the transaction: %w", err)
		case untilDeadline.Err() != nil && len(writes) == 0:
			return 0, fmt.Errorf("store: etcd does not answer: %w", err)
		case untilDeadline.Err() != nil:
			return 0, fmt.Errorf("%w: %w", ErrUnknownOutcome, errors.Join(context.Cause(s.ctx), err))
		}
		s.log.Warn("etcd did not answer a transaction, which is sent again", "error", err)
		pause(untilDeadline, backoff(attempt, 20*time.Millisecond, time.Second))
	}
}

// landmark is a write that shows whether its transaction was committed: no
// other transaction writes the same bytes there.
type landmark struct {
	key     string
	value   []byte
	since   int64 // a revision before the transaction was sent
	lasting bool  // the key is never deleted
}

// landed looks for the landmark in the history of its key, from what it holds
// now back to before the transaction was sent. It returns the revision of the
// commit, or 0 if there was none.
func (s *Store) landed(ctx context.Context, m *landmark, kvs []*mvccpb.KeyValue) (Revision, error) {
	for len(kvs) > 0 && kvs[0].ModRevision > m.since {
		if bytes.Equal(kvs[0].Value, m.value) {
			return Revision(kvs[0].ModRevision), nil
		}
		resp, err := s.client.Get(ctx, m.key, clientv3.WithRev(kvs[0].ModRevision-1))
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
		kvs = resp.Kvs
	}
	if len(kvs) == 0 && !m.lasting {
		return 0, fmt.Errorf("%w: what it may have written was deleted since", ErrUnknownOutcome)
	}
	return 0, nil
}

// operations turns a layer into conditions and writes.
func (s *Store) operations(l *layer) (conditions []clientv3.Cmp, writes []clientv3.Op, mark *landmark, err error) {
	for k, r := range l.reads {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(s.prefix+k.String()), "=", r.mod))
	}
	for key := range l.free {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(s.prefix+key), "=", 0))
	}
	for key, rev := range l.lists {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(s.prefix+key), "<", rev+1))
	}
	nonce, since := rand.Text(), int64(s.Revision())
	for key := range l.moved {
		writes = append(writes, clientv3.OpPut(s.prefix+key, nonce))
		mark = &landmark{s.prefix + key, []byte(nonce), since, true}
	}
	for key, id := range l.claims {
		if id == "" {
			writes = append(writes, clientv3.OpDelete(s.prefix+key))
		} else {
			writes = append(writes, clientv3.OpPut(s.prefix+key, id))
		}
	}
	for k, st := range l.writes {
		key := s.prefix + k.String()
		if st == nil {
			writes = append(writes, clientv3.OpDelete(key))
			continue
		}
		value, err := seal(s.sealer, k.String(), k.sch.version, st.raw)
		if err != nil {
			return nil, nil, nil, err
		}
		writes = append(writes, clientv3.OpPut(key, string(value)))
		if mark == nil {
			mark = &landmark{key, value, since, false}
		}
	}
	return conditions, writes, mark, nil
}
