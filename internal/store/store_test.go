package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
	r = &Store{log: s.log, client: s.client, sealer: s.sealer, prefix: s.prefix, maxOps: s.maxOps, maxBytes: s.maxBytes, cache: newCache(),
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
