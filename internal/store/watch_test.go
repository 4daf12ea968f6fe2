package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// show writes an event as "id:old>new", by the accounts' Used, with "-" for none.
func show(e Event[account]) string {
	used := func(a *account) string {
		if a == nil {
			return "-"
		}
		return fmt.Sprint(a.Used)
	}
	return e.ID + ":" + used(e.Old) + ">" + used(e.New)
}

// expect takes as many events as are wanted.
func expect(t *testing.T, next func() (Event[account], bool), want ...string) {
	t.Helper()
	for i, w := range want {
		e, ok := next()
		if !ok {
			t.Fatalf("the watch ended before event %d, %s", i, w)
		}
		if got := show(e); got != w {
			t.Fatalf("event %d is %s, want %s", i, got, w)
		}
	}
}

func pull(t *testing.T, seq iter.Seq[Event[account]]) func() (Event[account], bool) {
	next, stop := iter.Pull(seq)
	t.Cleanup(stop)
	return next
}

func put(t *testing.T, s *Store, id string, used int) Revision {
	return must(t, s, func(tx *Tx) error { return accounts.Put(tx, &account{ID: id, Used: used}) })
}

func remove(t *testing.T, s *Store, id string) Revision {
	return must(t, s, func(tx *Tx) error { return accounts.Delete(tx, id) })
}

func testWatch(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	put(t, s, "b", 1)
	put(t, s, "a", 2)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	all := pull(t, accounts.Watch(ctx, s, WatchOptions{Present: true}))
	fromNow := pull(t, accounts.Watch(ctx, s, WatchOptions{}))
	only := pull(t, accounts.Watch(ctx, s, WatchOptions{ID: "b", Present: true}))
	expect(t, all, "a:->2", "b:->1")
	must(t, s, func(tx *Tx) error { return bookings.Put(tx, &booking{ID: "another collection"}) })
	rev := put(t, s, "b", 3)
	e, _ := fromNow()
	if show(e) != "b:1>3" || e.Revision != rev {
		t.Fatalf("event %s at %d, want it at %d", show(e), e.Revision, rev)
	}
	expect(t, all, "b:1>3")
	remove(t, s, "a")
	put(t, s, "c", 4)
	expect(t, fromNow, "a:2>-", "c:->4")
	expect(t, all, "a:2>-", "c:->4")
	expect(t, only, "b:->3")
	cancel()
	if e, ok := all(); ok {
		t.Fatalf("%s after the end of the context", show(e))
	}
}

// testWatchSlow: a watcher that takes nothing holds up nobody, and then gets
// each object's latest state once.
func testWatchSlow(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	put(t, s, "kept", 0)
	put(t, s, "gone", 0)
	put(t, s, "remade", 1)
	next := pull(t, accounts.Watch(testContext(t), s, WatchOptions{}))
	for i := range 50 {
		put(t, s, "kept", i+1)
	}
	put(t, s, "gone", 1)
	remove(t, s, "gone")
	put(t, s, "unseen", 1)
	remove(t, s, "unseen")
	remove(t, s, "remade")
	put(t, s, "remade", 2)
	put(t, s, "last", 1)
	expect(t, next, "kept:0>50", "gone:0>-", "remade:1>2", "last:->1")
}

// testWatchCompacted: a replica that was cut off while etcd forgot what
// happened reads everything again, and its watchers miss nothing.
func testWatchCompacted(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	put(t, s, "same", 1)
	put(t, s, "changed", 1)
	put(t, s, "gone", 1)
	r, start := replica(t, s)
	next := pull(t, accounts.Watch(testContext(t), r, WatchOptions{}))
	put(t, s, "changed", 2)
	remove(t, s, "gone")
	rev := put(t, s, "new", 3)
	if _, err := s.client.Compact(testContext(t), int64(rev), clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Get(testContext(t), "x", clientv3.WithRev(int64(r.Revision()))); err == nil {
		t.Fatal("nothing was compacted")
	}
	start()
	if err := r.WaitFor(testContext(t), rev); err != nil {
		t.Fatal(err)
	}
	expect(t, next, "gone:1>-", "changed:1>2", "new:->3")
	list, _, err := accounts.List(r, Query{})
	if err != nil || ids(list) != "changed new same" {
		t.Fatalf("after reading again: %q, %v", ids(list), err)
	}
	put(t, s, "new", 4)
	expect(t, next, "new:3>4")
}

// TestUndecodable: a value that cannot be read ends the store, by watch as by Open.
func TestUndecodable(t *testing.T) {
	for name, value := range map[string]func(s *Store, key string) ([]byte, error){
		"garbage": func(*Store, string) ([]byte, error) { return []byte("garbage"), nil },
		"moved": func(s *Store, key string) ([]byte, error) {
			return seal(s.sealer, key+"x", 1, []byte(`{"ID":"a"}`))
		},
		"newer":    func(s *Store, key string) ([]byte, error) { return seal(s.sealer, key, 3, []byte(`{"ID":"a"}`)) },
		"not JSON": func(s *Store, key string) ([]byte, error) { return seal(s.sealer, key, 2, []byte(`{`)) },
	} {
		t.Run(name, func(t *testing.T) {
			o := embedded(t)
			s := open(t, o)
			key := "o/test-accounts/a"
			raw, err := value(s, key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.client.Put(testContext(t), s.prefix+key, string(raw)); err != nil {
				t.Fatal(err)
			}
			select {
			case err = <-s.Failed():
			case <-testContext(t).Done():
				t.Fatal("the watch did not notice")
			}
			if _, err2 := s.Update(testContext(t), "", func(*Tx) error { return nil }); !errors.Is(err2, err) {
				t.Errorf("an update after the failure: %v, the failure: %v", err2, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(testContext(t), o); err == nil {
				t.Fatal("opened a store with an unreadable value")
			} else {
				t.Log(err)
			}
		})
	}
}

// TestOlderVersion: values of an older binary are upgraded as they are read,
// and written in the new form; collections of a newer one are left alone.
func TestOlderVersion(t *testing.T) {
	o := embedded(t)
	s := open(t, o)
	for key, plain := range map[string]string{"o/test-accounts/a": `{"ID":"a","Holder":"o"}`, "o/from-the-future/x": `{}`} {
		raw, err := seal(s.sealer, key, 1, []byte(plain))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.client.Put(testContext(t), s.prefix+key, string(raw)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, "z", 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	if list, _, err := accounts.List(s, Query{Index: "owner", Value: "o"}); err != nil || ids(list) != "a" {
		t.Fatalf("an old value: %q, %v", ids(list), err)
	}
	must(t, s, func(tx *Tx) error {
		a, err := accounts.Get(tx, "a")
		if err != nil {
			return err
		}
		a.Used = 7
		return accounts.Put(tx, a)
	})
	resp, err := s.client.Get(testContext(t), s.prefix+"o/test-accounts/a")
	if err != nil {
		t.Fatal(err)
	}
	if version, _, err := unseal(s.sealer, "o/test-accounts/a", resp.Kvs[0].Value); err != nil || version != 2 {
		t.Fatalf("rewritten with version %d, %v", version, err)
	}
	resp, err = s.client.Get(testContext(t), s.prefix+"o/from-the-future/x")
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("the unknown collection's object: %v, %v", resp, err)
	}
}
