package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/model"
)

// account and entry stand for a ledger and what is booked on it: bookings take
// from their account's limit.
type account struct {
	ID    string
	Owner string
	Name  string
	Tags  []string
	Limit int
	Used  int
}

type booking struct {
	ID      string
	Account string
	Amount  int
}

var (
	accounts = NewCollection("test-accounts", Schema[account]{
		ID:      func(a *account) string { return a.ID },
		Version: 2,
		Unique:  map[string]func(*account) string{"name": func(a *account) string { return Key(a.Owner, a.Name) }},
		Index: map[string]func(*account) []string{
			"owner": func(a *account) []string { return []string{a.Owner} },
			"tag":   func(a *account) []string { return a.Tags },
		},
		Upgrade: func(version int, raw []byte) ([]byte, error) {
			return []byte(strings.Replace(string(raw), `"Holder"`, `"Owner"`, 1)), nil
		},
	})
	bookings = NewCollection("test-bookings", Schema[booking]{
		ID: func(e *booking) string { return e.ID },
		Index: map[string]func(*booking) []string{
			"account": func(e *booking) []string { return []string{e.Account} },
		},
	})
)

func testLogger(t testing.TB) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return nil
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// embedded returns options for an embedded store of the test's own.
func embedded(t testing.TB) Options {
	dir := t.TempDir()
	return Options{DataDir: dir, Sealer: keyFile(t, filepath.Join(dir, "key")), UnsafeNoFsync: true, Logger: testLogger(t), MinFree: 1}
}

func keyFile(t testing.TB, path string) *FileSealer {
	t.Helper()
	f, err := NewFileSealer(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// replica returns a second store on the etcd of s, as another process on an
// external etcd would have. Its cache stands still until start is called.
func replica(t testing.TB, s *Store) (r *Store, start func()) {
	t.Helper()
	r = &Store{log: s.log, client: s.client, sealer: s.sealer, prefix: s.prefix, maxOps: s.maxOps, cache: newCache(),
		failed: make(chan error, 1), closing: make(chan struct{}), groups: map[groupKey]*group{}}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	if err := r.prepare(testContext(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cancel(ErrClosed); r.follow.Wait() })
	return r, func() { r.follow.Go(r.run) }
}

// must runs an update that has to succeed.
func must(t testing.TB, s *Store, fn func(tx *Tx) error) Revision {
	t.Helper()
	rev, err := s.Update(testContext(t), "", fn)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// TestConformance runs one suite on every sort of engine.
func TestConformance(t *testing.T) {
	suite := []struct {
		name string
		test func(*testing.T, func(testing.TB) Options)
	}{
		{"CRUD", testCRUD},
		{"Unique", testUnique},
		{"UniqueConcurrent", testUniqueConcurrent},
		{"Paging", testPaging},
		{"Index", testIndex},
		{"Overlay", testOverlay},
		{"Conflicts", testConflicts},
		{"GroupedLedger", testGroupedLedger},
		{"RefusalValidated", testRefusalValidated},
		{"Phantom", testPhantom},
		{"Watch", testWatch},
		{"WatchSlow", testWatchSlow},
		{"WatchCompacted", testWatchCompacted},
		{"Replica", testReplica},
		{"Leadership", testLeadership},
		{"Snapshot", testSnapshot},
	}
	engines := []struct {
		name    string
		options func(*testing.T) func(testing.TB) Options
	}{
		{"embedded", func(*testing.T) func(testing.TB) Options { return embedded }},
		{"external", func(t *testing.T) func(testing.TB) Options { return startExternal(t, 1, 0).options }},
		{"external3", func(t *testing.T) func(testing.TB) Options { return startExternal(t, 3, 0).options }},
	}
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			options := e.options(t)
			for _, c := range suite {
				t.Run(c.name, func(t *testing.T) { c.test(t, options) })
			}
		})
	}
}

func testCRUD(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	if _, err := accounts.Get(s, "a"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("Get of nothing: %v", err)
	}
	rev := must(t, s, func(tx *Tx) error { return accounts.Create(tx, &account{ID: "a", Limit: 1}) })
	if got, err := accounts.Get(s, "a"); err != nil || got.Limit != 1 {
		t.Fatalf("after Create: %+v, %v", got, err)
	}
	_, err := s.Update(testContext(t), "", func(tx *Tx) error { return accounts.Create(tx, &account{ID: "a"}) })
	if !errors.Is(err, ErrExists) {
		t.Fatalf("second Create: %v", err)
	}
	rev2 := must(t, s, func(tx *Tx) error {
		a, err := accounts.Get(tx, "a")
		if err != nil {
			return err
		}
		a.Limit = 2
		return accounts.Put(tx, a)
	})
	if rev2 <= rev || s.Revision() < rev2 {
		t.Fatalf("revisions: %d, then %d, cache at %d", rev, rev2, s.Revision())
	}
	if got, _ := accounts.Get(s, "a"); got.Limit != 2 {
		t.Fatalf("after Put: %+v", got)
	}
	must(t, s, func(tx *Tx) error { return accounts.Delete(tx, "a") })
	if _, err := accounts.Get(s, "a"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("after Delete: %v", err)
	}
	_, err = s.Update(testContext(t), "", func(tx *Tx) error { return accounts.Delete(tx, "a") })
	if !errors.Is(err, ErrNotFound) {
		t.Fatalf("second Delete: %v", err)
	}
	// An update whose function fails leaves nothing, though it wrote before.
	boom := errors.New("boom")
	_, err = s.Update(testContext(t), "", func(tx *Tx) error {
		return errors.Join(accounts.Create(tx, &account{ID: "b"}), boom)
	})
	if _, gone := accounts.Get(s, "b"); !errors.Is(err, boom) || !errors.Is(gone, ErrNotFound) {
		t.Fatalf("failed update: %v; its object: %v", err, gone)
	}
	if _, err := s.Update(testContext(t), "", func(tx *Tx) error { return accounts.Put(tx, &account{}) }); err == nil {
		t.Fatal("an object without id was stored")
	}
	if _, _, err := accounts.List(s, Query{Index: "nonsense"}); err == nil {
		t.Fatal("a list by an unknown index")
	}
	if _, err := accounts.Find(s, "nonsense", ""); err == nil || errors.Is(err, ErrNotFound) {
		t.Fatalf("Find by an unknown key: %v", err)
	}
}

func testUnique(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	must(t, s, func(tx *Tx) error { return accounts.Create(tx, &account{ID: "1", Owner: "o", Name: "x"}) })
	_, err := s.Update(testContext(t), "", func(tx *Tx) error {
		return accounts.Create(tx, &account{ID: "2", Owner: "o", Name: "x"})
	})
	taken, ok := errors.AsType[*TakenError](err)
	if !ok || *taken != (TakenError{"test-accounts", "name", "o/x", "1"}) {
		t.Fatalf("same name: %v", err)
	}
	// The same name elsewhere is another; parts do not run into each other.
	must(t, s, func(tx *Tx) error { return accounts.Create(tx, &account{ID: "3", Owner: "o/x", Name: "x"}) })
	must(t, s, func(tx *Tx) error { return accounts.Create(tx, &account{ID: "4", Owner: "o", Name: "x/x"}) })
	if a, err := accounts.Find(s, "name", Key("o", "x/x")); err != nil || a.ID != "4" {
		t.Fatalf("Find: %v, %v", a, err)
	}
	// Two swap their names in one update; a third takes a name as it becomes free.
	must(t, s, func(tx *Tx) error {
		a, err1 := accounts.Get(tx, "1")
		b, err2 := accounts.Get(tx, "4")
		a.Name, b.Name = "parked", "x"
		err3 := accounts.Put(tx, a)
		err4 := accounts.Put(tx, b)
		a.Name = "x/x"
		return errors.Join(err1, err2, err3, err4, accounts.Put(tx, a))
	})
	for id, name := range map[string]string{"1": "x/x", "4": "x"} {
		if a, err := accounts.Find(s, "name", Key("o", name)); err != nil || a.ID != id {
			t.Fatalf("after the swap, %s is held by %+v, %v", name, a, err)
		}
	}
	must(t, s, func(tx *Tx) error { return accounts.Delete(tx, "1") })
	must(t, s, func(tx *Tx) error { return accounts.Create(tx, &account{ID: "5", Owner: "o", Name: "x/x"}) })
	must(t, s, func(tx *Tx) error {
		return errors.Join(accounts.Delete(tx, "5"), accounts.Create(tx, &account{ID: "6", Owner: "o", Name: "x/x"}))
	})
	must(t, s, func(tx *Tx) error {
		if a, err := accounts.Find(tx, "name", Key("o", "x/x")); err != nil || a.ID != "6" {
			return fmt.Errorf("in a Tx: %v, %w", a, err)
		}
		return nil
	})
	if _, err := accounts.Find(s, "name", Key("o", "parked")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a name held for a moment in an update: %v", err)
	}
}

func testUniqueConcurrent(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	for round := range 5 {
		var wins, lost atomic.Int64
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				group := ""
				if i%2 == 0 {
					group = "g"
				}
				_, err := s.Update(testContext(t), group, func(tx *Tx) error {
					return accounts.Create(tx, &account{ID: fmt.Sprintf("%d-%d", round, i), Owner: "o", Name: fmt.Sprint(round)})
				})
				if _, ok := errors.AsType[*TakenError](err); ok {
					lost.Add(1)
				} else if err == nil {
					wins.Add(1)
				} else {
					t.Errorf("create: %v", err)
				}
			})
		}
		wg.Wait()
		if wins.Load() != 1 || lost.Load() != 15 {
			t.Fatalf("%d creations of one name succeeded, %d were refused", wins.Load(), lost.Load())
		}
	}
}

func testPaging(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	const n = 25
	must(t, s, func(tx *Tx) error {
		var errs error
		for i := range n {
			errs = errors.Join(errs, accounts.Create(tx, &account{ID: fmt.Sprintf("%03d", 2*i), Owner: "o", Name: fmt.Sprint(i)}))
		}
		return errs
	})
	// Between the pages, an object behind and one before the place are created,
	// and the one the token names is deleted.
	seen := map[string]int{}
	q := Query{Index: "owner", Value: "o", Limit: 10}
	for pages := 0; ; pages++ {
		page, next, err := accounts.List(s, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page {
			seen[a.ID]++
		}
		if next == "" {
			if pages != 2 {
				t.Fatalf("%d pages", pages+1)
			}
			break
		}
		q.After = next
		if pages == 0 {
			must(t, s, func(tx *Tx) error {
				return errors.Join(accounts.Delete(tx, next),
					accounts.Create(tx, &account{ID: "001", Owner: "o", Name: "before"}),
					accounts.Create(tx, &account{ID: "031", Owner: "o", Name: "behind"}))
			})
		}
	}
	for i := range n {
		if id := fmt.Sprintf("%03d", 2*i); seen[id] != 1 {
			t.Errorf("%s is on %d pages", id, seen[id])
		}
	}
	if seen["001"] != 0 || seen["031"] != 1 {
		t.Errorf("created meanwhile: before the place %d, behind it %d", seen["001"], seen["031"])
	}
	// The last page says that it is the last, also when it is full.
	if page, next, _ := accounts.List(s, Query{Limit: 26}); len(page) != 26 || next != "" {
		t.Errorf("a full last page has %d objects, token %q", len(page), next)
	}
}

func ids(list []*account) string {
	var s []string
	for _, a := range list {
		s = append(s, a.ID)
	}
	return strings.Join(s, " ")
}

func testIndex(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	must(t, s, func(tx *Tx) error {
		return errors.Join(
			accounts.Create(tx, &account{ID: "c", Owner: "o", Tags: []string{"x", "y", "x", ""}}),
			accounts.Create(tx, &account{ID: "a", Owner: "o", Tags: []string{"x"}}),
			accounts.Create(tx, &account{ID: "b", Owner: "p"}))
	})
	check := func(r Reader, index, value, want string) {
		t.Helper()
		list, _, err := accounts.List(r, Query{Index: index, Value: value})
		n, err2 := accounts.Count(r, Query{Index: index, Value: value})
		if got := ids(list); got != want || n != len(list) || err != nil || err2 != nil {
			t.Errorf("%s=%s: %q, count %d, want %q; %v, %v", index, value, got, n, want, err, err2)
		}
	}
	check(s, "", "", "a b c")
	check(s, "owner", "o", "a c")
	check(s, "tag", "x", "a c")
	check(s, "tag", "y", "c")
	check(s, "tag", "", "")
	must(t, s, func(tx *Tx) error {
		c, _ := accounts.Get(tx, "c")
		c.Owner, c.Tags = "p", []string{"y", "z"}
		return errors.Join(accounts.Put(tx, c), accounts.Delete(tx, "a"))
	})
	check(s, "", "", "b c")
	check(s, "owner", "o", "")
	check(s, "owner", "p", "b c")
	check(s, "tag", "x", "")
	check(s, "tag", "z", "c")
	must(t, s, func(tx *Tx) error {
		check(tx, "owner", "p", "b c")
		check(tx, "owner", "o", "")
		return nil
	})
}

// testOverlay: a transaction sees its own writes, as those before it in its
// group, and what it gets are copies of its own.
func testOverlay(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	must(t, s, func(tx *Tx) error {
		return errors.Join(accounts.Create(tx, &account{ID: "a", Owner: "o", Name: "a"}),
			accounts.Create(tx, &account{ID: "b", Owner: "o", Name: "b"}))
	})
	q := Query{Index: "owner", Value: "o"}
	must(t, s, func(tx *Tx) error {
		a, _ := accounts.Get(tx, "a")
		a.Owner = "changed, but not put"
		if again, _ := accounts.Get(tx, "a"); again.Owner != "o" {
			t.Error("a change of a copy shows in another")
		}
		err := errors.Join(accounts.Delete(tx, "a"), accounts.Create(tx, &account{ID: "c", Owner: "o", Name: "a"}))
		list, next, _ := accounts.List(tx, Query{Index: "owner", Value: "o", Limit: 1})
		if n, _ := accounts.Count(tx, q); ids(list) != "b" || next != "b" || n != 2 {
			t.Errorf("first page %q, token %q, count %d", ids(list), next, n)
		}
		if list, next, _ := accounts.List(tx, Query{Index: "owner", Value: "o", Limit: 1, After: next}); ids(list) != "c" || next != "" {
			t.Errorf("second page %q, token %q", ids(list), next)
		}
		if _, gone := accounts.Get(tx, "a"); !errors.Is(gone, ErrNotFound) {
			t.Errorf("deleted in the same transaction: %v", gone)
		}
		c, _ := accounts.Get(tx, "c")
		c.Owner = "p"
		err = errors.Join(err, accounts.Put(tx, c))
		if n, _ := accounts.Count(tx, q); n != 1 {
			t.Errorf("count after a move: %d", n)
		}
		return err
	})
	if list, _, _ := accounts.List(s, q); ids(list) != "b" {
		t.Errorf("committed: %q", ids(list))
	}
	// Put of what is there already is no write: watchers are not woken for nothing.
	before := must(t, s, func(tx *Tx) error { return accounts.Put(tx, &account{ID: "d"}) })
	must(t, s, func(tx *Tx) error { return accounts.Put(tx, &account{ID: "d"}) })
	if s.Revision() != before {
		t.Errorf("an equal Put made revision %d of %d", s.Revision(), before)
	}
}

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
