package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/model"
)

func testConflicts(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	r, start := replica(t, s)
	start()
	must(t, s, func(tx *Tx) error { return accounts.Create(tx, &account{ID: "a"}) })
	const writers, each = 8, 5
	var runs atomic.Int64
	var wg sync.WaitGroup
	for i := range writers {
		at := []*Store{s, r}[i%2]
		wg.Go(func() {
			for range each {
				_, err := at.Update(testContext(t), "", func(tx *Tx) error {
					runs.Add(1)
					a, err := accounts.Get(tx, "a")
					if err != nil {
						return err
					}
					a.Used++
					return accounts.Put(tx, a)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if a, _ := accounts.Get(s, "a"); a.Used != writers*each && s.WaitFor(testContext(t), r.Revision()) == nil {
		if a, _ = accounts.Get(s, "a"); a.Used != writers*each {
			t.Fatalf("%d increments left %d", writers*each, a.Used)
		}
	}
	t.Logf("%d increments took %d runs", writers*each, runs.Load())
}

// reserve books an entry on an account, within its limit.
func reserve(tx *Tx, acct, id string, amount int) error {
	a, err := accounts.Get(tx, acct)
	if err != nil {
		return err
	}
	if a.Used+amount > a.Limit {
		return errOverLimit
	}
	a.Used += amount
	return errors.Join(accounts.Put(tx, a), bookings.Create(tx, &booking{ID: id, Account: acct, Amount: amount}))
}

var errOverLimit = errors.New("over the limit")

func testGroupedLedger(t *testing.T, options func(testing.TB) Options) {
	for _, maxOps := range []int{0, 24} { // the second splits what waits into several commits
		o := options(t)
		o.MaxTxnOps = maxOps
		s := open(t, o)
		r, start := replica(t, s)
		start()
		const writers, each, limit = 64, 6, 250
		must(t, s, func(tx *Tx) error { return accounts.Create(tx, &account{ID: "a", Limit: limit}) })
		if err := r.WaitFor(testContext(t), s.Revision()); err != nil {
			t.Fatal(err)
		}
		var granted, refused atomic.Int64
		var wg sync.WaitGroup
		for w := range writers {
			at := s
			if w%8 == 0 {
				at = r // another replica takes from the same account
			}
			wg.Go(func() {
				for i := range each {
					_, err := at.Update(testContext(t), "a", func(tx *Tx) error {
						return reserve(tx, "a", fmt.Sprintf("%d-%d", w, i), 1)
					})
					switch {
					case err == nil:
						granted.Add(1)
					case errors.Is(err, errOverLimit):
						refused.Add(1)
					default:
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if err := s.WaitFor(testContext(t), r.Revision()); err != nil {
			t.Fatal(err)
		}
		a, _ := accounts.Get(s, "a")
		n, _ := bookings.Count(s, Query{Index: "account", Value: "a"})
		if granted.Load() != limit || refused.Load() != writers*each-limit || a.Used != limit || n != limit {
			t.Fatalf("%d granted, %d refused; the account says %d, bookings %d; the limit is %d",
				granted.Load(), refused.Load(), a.Used, n, limit)
		}
	}
}

// testRefusalValidated: a refusal that rests on a state that is no more is not
// returned, but made anew.
func testRefusalValidated(t *testing.T, options func(testing.TB) Options) {
	for _, group := range []string{"", "g"} {
		s := open(t, options(t))
		must(t, s, func(tx *Tx) error { return accounts.Create(tx, &account{ID: "a", Limit: 1, Used: 1}) })
		runs := 0
		_, err := s.Update(testContext(t), group, func(tx *Tx) error {
			runs++
			err := reserve(tx, "a", "e", 1)
			if runs == 1 {
				// Meanwhile, somebody else returns what he had.
				must(t, s, func(tx *Tx) error { return accounts.Put(tx, &account{ID: "a", Limit: 1}) })
			}
			return err
		})
		if err != nil || runs != 2 {
			t.Fatalf("group %q: %v after %d runs", group, err, runs)
		}
	}
}

// testPhantom: a parent is deleted for having no children while it gets one.
func testPhantom(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	notEmpty := errors.New("not empty")
	for name, check := range map[string]func(tx *Tx) (int, error){
		"Count": func(tx *Tx) (int, error) { return bookings.Count(tx, Query{Index: "account", Value: "a"}) },
		"List": func(tx *Tx) (int, error) {
			list, _, err := bookings.List(tx, Query{Index: "account", Value: "a", Limit: 1})
			return len(list), err
		},
		"ListAll": func(tx *Tx) (int, error) {
			list, _, err := bookings.List(tx, Query{})
			return len(list), err
		},
	} {
		must(t, s, func(tx *Tx) error { return accounts.Put(tx, &account{ID: "a"}) })
		runs := 0
		_, err := s.Update(testContext(t), "", func(tx *Tx) error {
			runs++
			n, err := check(tx)
			if err != nil {
				return err
			}
			if runs == 1 {
				must(t, s, func(tx *Tx) error {
					_, err := accounts.Get(tx, "a") // what makes the child's side safe
					return errors.Join(err, bookings.Create(tx, &booking{ID: "child", Account: "a"}))
				})
			}
			if n > 0 {
				return notEmpty
			}
			return accounts.Delete(tx, "a")
		})
		if !errors.Is(err, notEmpty) || runs != 2 {
			t.Errorf("%s: %v after %d runs", name, err, runs)
		}
		must(t, s, func(tx *Tx) error { return bookings.Delete(tx, "child") })
	}
	// The other way round: the parent goes while a child is being made.
	runs := 0
	_, err := s.Update(testContext(t), "", func(tx *Tx) error {
		runs++
		_, err := accounts.Get(tx, "a")
		if runs == 1 {
			must(t, s, func(tx *Tx) error { return accounts.Delete(tx, "a") })
		}
		return errors.Join(err, bookings.Create(tx, &booking{ID: "child", Account: "a"}))
	})
	if !errors.Is(err, ErrNotFound) || runs != 2 {
		t.Errorf("child of a deleted parent: %v after %d runs", err, runs)
	}
}

func testReplica(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	r, start := replica(t, s)
	rev := must(t, s, func(tx *Tx) error { return accounts.Create(tx, &account{ID: "a"}) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.WaitFor(ctx, rev); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("waiting for a cache that stands still: %v", err)
	}
	if len(r.cache.waiters) != 0 {
		t.Fatal("a wait that was given up is remembered")
	}
	start()
	if err := r.WaitFor(testContext(t), rev); err != nil {
		t.Fatal(err)
	}
	if _, err := accounts.Get(r, "a"); err != nil {
		t.Fatal(err)
	}
	// A revision made by another user of the same etcd is no change of ours.
	put, err := s.client.Put(testContext(t), "/elsewhere"+s.prefix, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.WaitFor(testContext(t), Revision(put.Header.Revision)); err != nil {
		t.Fatal(err)
	}
}

func testSnapshot(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	must(t, s, func(tx *Tx) error {
		return Secrets.Create(tx, &model.Secret{ID: "s", Values: map[string][]byte{"k": []byte("hidden in plain sight")}})
	})
	path := filepath.Join(t.TempDir(), "snapshot")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Snapshot(testContext(t), f), f.Close()); err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, path)
	full := &limitedWriter{n: 100}
	if err := s.Snapshot(testContext(t), full); !errors.Is(err, io.ErrShortWrite) {
		t.Fatalf("a writer that fails: %v", err)
	}
}

type limitedWriter struct{ n int }

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.n {
		return 0, io.ErrShortWrite
	}
	w.n -= len(p)
	return len(p), nil
}
