package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// lossy is a network that loses transactions, or their answers.
type lossy struct {
	clientv3.KV
	lose func(commit func() error) error // nil loses nothing
}

func (l *lossy) Txn(ctx context.Context) clientv3.Txn { return &lossyTxn{l.KV.Txn(ctx), l} }

type lossyTxn struct {
	clientv3.Txn
	l *lossy
}

func (t *lossyTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *lossyTxn) Then(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(o...); return t }
func (t *lossyTxn) Else(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(o...); return t }

func (t *lossyTxn) Commit() (resp *clientv3.TxnResponse, err error) {
	commit := func() error {
		resp, err = t.Txn.Commit()
		return err
	}
	if lose := t.l.lose; lose != nil {
		t.l.lose = nil
		if err := lose(commit); err != nil {
			return nil, err
		}
		return resp, nil
	}
	return resp, commit()
}

var errLost = status.Error(codes.Unavailable, "connection lost")

// TestLostAnswers: a transaction that etcd did not answer is committed once,
// and its outcome is known unless somebody has deleted what it wrote.
func TestLostAnswers(t *testing.T) {
	o := embedded(t)
	s := open(t, o)
	network := &lossy{KV: s.client.KV}
	s.client.KV = network
	create := func(id string) func(tx *Tx) error {
		return func(tx *Tx) error { return accounts.Create(tx, &account{ID: id, Owner: "o", Name: id}) }
	}
	// The transaction is lost.
	network.lose = func(func() error) error { return errLost }
	must(t, s, create("a"))
	// The answer is lost.
	network.lose = func(commit func() error) error { return errors.Join(commit(), errLost) }
	rev := must(t, s, create("b"))
	if _, err := accounts.Get(s, "b"); err != nil || s.Revision() != rev {
		t.Fatalf("after a lost answer: %v, revision %d, cache at %d", err, rev, s.Revision())
	}
	// The answer to a refusal is lost: nothing was written, it is simply asked again.
	network.lose = func(commit func() error) error { return errors.Join(commit(), errLost) }
	if _, err := s.Update(testContext(t), "", create("b")); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	// The transaction is lost, and meanwhile somebody changes what it read.
	network.lose = func(func() error) error {
		put(t, s, "a", 5)
		return errLost
	}
	must(t, s, func(tx *Tx) error {
		a, err := accounts.Get(tx, "a")
		if err != nil {
			return err
		}
		a.Used++
		return accounts.Put(tx, a)
	})
	if a, _ := accounts.Get(s, "a"); a.Used != 6 {
		t.Fatalf("after a lost transaction and a conflict: %+v", a)
	}
	// The answer is lost, and what it wrote is written over twice: history tells.
	network.lose = func(commit func() error) error {
		err := commit()
		put(t, s, "c", 8)
		put(t, s, "c", 9)
		return errors.Join(err, errLost)
	}
	must(t, s, create("c"))
	network.lose = func(commit func() error) error {
		err := commit()
		put(t, s, "a", 8)
		put(t, s, "a", 9)
		return errors.Join(err, errLost)
	}
	put(t, s, "a", 7)
	if a, _ := accounts.Get(s, "a"); a.Used != 9 {
		t.Fatalf("written over: %+v", a)
	}
	// What was written is deleted since: nobody can tell.
	network.lose = func(commit func() error) error {
		err := commit()
		remove(t, s, "a")
		return errors.Join(err, errLost)
	}
	_, err := s.Update(testContext(t), "", func(tx *Tx) error { return accounts.Put(tx, &account{ID: "a", Used: 10}) })
	if !errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("deleted since: %v", err)
	}
	// The answer to a delete is lost.
	network.lose = func(commit func() error) error { return errors.Join(commit(), errLost) }
	must(t, s, func(tx *Tx) error { return accounts.Delete(tx, "c") })
	// No answer at all.
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	var never func(func() error) error
	never = func(func() error) error { network.lose = never; return errLost }
	network.lose = never
	if _, err := s.Update(ctx, "", create("d")); !errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("never answered: %v", err)
	}
	network.lose = nil
}

// TestTooLarge: what no transaction can carry is refused, and does not hold up its group.
func TestTooLarge(t *testing.T) {
	o := embedded(t)
	o.MaxTxnOps = 32
	s := open(t, o)
	many := func(tx *Tx) error {
		for i := range 20 {
			if err := accounts.Create(tx, &account{ID: fmt.Sprint(i), Owner: "o", Name: fmt.Sprint(i)}); err != nil {
				return err
			}
		}
		return nil
	}
	big := func(tx *Tx) error {
		return accounts.Create(tx, &account{ID: "big", Name: strings.Repeat("x", s.maxBytes)})
	}
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			_, err := s.Update(testContext(t), "g", []func(*Tx) error{many, big, func(tx *Tx) error {
				return accounts.Create(tx, &account{ID: fmt.Sprint("small", i), Owner: "o", Name: fmt.Sprint("small", i)})
			}}[i%3])
			if fits := i%3 == 2; fits && err != nil || !fits && !errors.Is(err, ErrTooLarge) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n, _ := accounts.Count(s, Query{}); n != 8 {
		t.Errorf("%d objects", n)
	}
}

// blocked starts an update that keeps its group busy until release is called.
func blocked(t *testing.T, s *Store, group string) (release func()) {
	started, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := s.Update(testContext(t), group, func(*Tx) error {
			once.Do(func() { close(started) })
			<-released
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-started
	return sync.OnceFunc(func() { close(released); wg.Wait() })
}

// TestGiveUp: a caller who gives up while queued has changed nothing.
func TestGiveUp(t *testing.T) {
	s := open(t, embedded(t))
	release := blocked(t, s, "g")
	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	_, err := s.Update(ctx, "g", func(tx *Tx) error { return accounts.Create(tx, &account{ID: "a"}) })
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("given up: %v", err)
	}
	release()
	must(t, s, func(tx *Tx) error {
		if _, err := accounts.Get(tx, "a"); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("a given-up update: %w", err)
		}
		return nil
	})
	// One whose conflicts never end gives up, too.
	put(t, s, "b", 0)
	ctx, cancel = context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	n := 0
	_, err = s.Update(ctx, "", func(tx *Tx) error {
		_, err := accounts.Get(tx, "b")
		n++
		put(t, s, "b", n)
		return errors.Join(err, accounts.Create(tx, &account{ID: "a"}))
	})
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknownOutcome) || n < 2 {
		t.Fatalf("endless conflicts: %v after %d runs", err, n)
	}
}

// TestPanic: a panic is its caller's; the others in its group are committed.
func TestPanic(t *testing.T) {
	s := open(t, embedded(t))
	release := blocked(t, s, "g")
	var panics atomic.Int64
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					panics.Add(1)
					if text := fmt.Sprint(p); i%2 == 0 || !strings.Contains(text, "boom") {
						t.Errorf("update %d: %s", i, text)
					}
				}
			}()
			_, err := s.Update(testContext(t), "g", func(tx *Tx) error {
				err := accounts.Create(tx, &account{ID: fmt.Sprint(i)})
				if i%2 == 1 {
					panic("boom")
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	release()
	wg.Wait()
	if list, _, _ := accounts.List(s, Query{}); ids(list) != "0 2 4" || panics.Load() != 3 {
		t.Fatalf("%q is there after %d panics", ids(list), panics.Load())
	}
}

// TestClose: Close waits for what is under way; what comes later is refused.
func TestClose(t *testing.T) {
	o := embedded(t)
	s := open(t, o)
	var stored sync.Map
	var wg sync.WaitGroup
	started := make(chan struct{}, 8)
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d", w, i)
				_, err := s.Update(testContext(t), []string{"", "g"}[w%2], func(tx *Tx) error {
					return accounts.Create(tx, &account{ID: id, Name: id})
				})
				if errors.Is(err, ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				stored.Store(id, true)
				if i == 3 {
					started <- struct{}{}
				}
			}
		})
	}
	for range 8 {
		<-started
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
	// Restart keeps everything that was acknowledged.
	s = open(t, o)
	stored.Range(func(id, _ any) bool {
		if _, err := accounts.Get(s, id.(string)); err != nil {
			t.Error(err)
		}
		if _, err := accounts.Find(s, "name", Key("", id.(string))); err != nil {
			t.Error(err)
		}
		return true
	})
}

// TestMemberLost: when one of three members is killed, even the leader, writes
// go on: none fails, and none is lost or doubled.
func TestMemberLost(t *testing.T) {
	x := startExternal(t, 3, 0)
	s := open(t, x.options(t))
	const writers, each = 4, 25
	put(t, s, "sum", 0)
	var wg sync.WaitGroup
	var longest atomic.Int64
	half := make(chan struct{}, writers)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if i == each/2 {
					half <- struct{}{}
				}
				start := time.Now()
				_, err := s.Update(testContext(t), "sum", func(tx *Tx) error {
					a, err := accounts.Get(tx, "sum")
					if err != nil {
						return err
					}
					a.Used++
					return errors.Join(accounts.Put(tx, a), bookings.Create(tx, &booking{ID: fmt.Sprintf("%d-%d", w, i)}))
				})
				if err != nil {
					t.Error(err)
				}
				if took := int64(time.Since(start)); took > longest.Load() {
					longest.Store(took)
				}
			}
		})
	}
	for range writers {
		<-half
	}
	x.killLeader(t, s)
	wg.Wait()
	t.Logf("the longest update took %v", time.Duration(longest.Load()).Round(time.Millisecond))
	sum, err := accounts.Get(s, "sum")
	n, _ := bookings.Count(s, Query{})
	if err != nil || sum.Used != writers*each || n != writers*each {
		t.Fatalf("sum %+v, %d bookings, %v", sum, n, err)
	}
}
