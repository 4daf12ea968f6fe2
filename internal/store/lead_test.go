package store

import (
	"context"
	"errors"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func wait(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-testContext(t).Done():
		t.Fatalf("%s did not come", what)
	}
}

func testLeadership(t *testing.T, options func(testing.TB) Options) {
	s := open(t, options(t))
	ctx := testContext(t)
	first, err := s.Campaign(ctx, "shard", "one", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	// Another name has another leader; a campaign can be given up.
	other, err := s.Campaign(ctx, "other", "one", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := s.Campaign(soon, "shard", "two", 5*time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a second leader: %v", err)
	}

	write := func(id string) func(tx *Tx) error {
		return func(tx *Tx) error { return accounts.Create(tx, &account{ID: id}) }
	}
	for _, group := range []string{"", "g"} {
		if _, err := s.Fenced(first).Update(ctx, group, write("by the first "+group)); err != nil {
			t.Fatal(err)
		}
	}
	second := make(chan *Leadership)
	elected := func() {
		l, err := s.Campaign(ctx, "shard", "two", 5*time.Second)
		if err != nil {
			t.Error(err)
		}
		second <- l
	}
	go elected()
	start := time.Now()
	if err := first.Resign(ctx); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the first leadership", first.Done())
	l := <-second
	t.Logf("after a resignation the next leads in %v", time.Since(start).Round(time.Millisecond))

	// The first is deposed: neither its writes nor its refusals count.
	for _, group := range []string{"", "g"} {
		if _, err := s.Fenced(first).Update(ctx, group, write("too late")); !errors.Is(err, ErrFenced) {
			t.Fatalf("a deposed leader's write: %v", err)
		}
		_, err := s.Fenced(first).Update(ctx, group, func(*Tx) error { return errOverLimit })
		if !errors.Is(err, ErrFenced) {
			t.Fatalf("a deposed leader's refusal: %v", err)
		}
	}
	if _, err := accounts.Get(s, "too late"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("what a deposed leader wrote: %v", err)
	}
	if _, err := s.Fenced(l).Update(ctx, "", write("by the second")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fenced(other).Update(ctx, "", write("by the other")); err != nil {
		t.Fatal(err)
	}

	// The second stops without a word, as a killed process does: its lease runs out.
	third := make(chan *Leadership)
	go func() {
		l, err := s.Campaign(ctx, "shard", "three", 5*time.Second)
		if err != nil {
			t.Error(err)
		}
		third <- l
	}()
	start = time.Now()
	l.session.Orphan()
	l3 := <-third
	t.Logf("after a death the next leads in %v", time.Since(start).Round(time.Millisecond))
	if _, err := s.Fenced(l).Update(ctx, "", write("by a ghost")); !errors.Is(err, ErrFenced) {
		t.Fatalf("a dead leader's write: %v", err)
	}
	if _, err := s.Fenced(l3).Update(ctx, "", write("by the third")); err != nil {
		t.Fatal(err)
	}
}

// TestLeaderKeyLost: a leadership whose key is taken away while an update of
// its is on the way loses that update.
func TestLeaderKeyLost(t *testing.T) {
	s := open(t, embedded(t))
	ctx := testContext(t)
	l, err := s.Campaign(ctx, "shard", "one", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Fenced(l).Update(ctx, "", func(tx *Tx) error {
		if _, err := s.client.Delete(ctx, l.key); err != nil {
			return err
		}
		return accounts.Create(tx, &account{ID: "a"})
	})
	if !errors.Is(err, ErrFenced) {
		t.Fatalf("%v", err)
	}
}

// TestLeadershipAfterCrash: a restarted process does not wait for its own former lease.
func TestLeadershipAfterCrash(t *testing.T) {
	o := embedded(t)
	s := open(t, o)
	if _, err := s.Campaign(testContext(t), "shard", "one", time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	resp, err := s.client.Get(testContext(t), s.prefix+"l/", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 0 {
		t.Fatalf("leaders left over: %v, %v", resp, err)
	}
	if _, err := s.Campaign(testContext(t), "shard", "two", time.Minute); err != nil {
		t.Fatal(err)
	}
}
