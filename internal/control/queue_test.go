package control

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// working is a queue with n workers that run do. It ends with the bubble's test.
func working(t *testing.T, n int, do func(ctx context.Context, k key) (time.Duration, error)) *queue {
	t.Helper()
	q := newQueue(do, "vm", "cluster")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { q.serve(ctx, n); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return q
}

// A key that is asked for while it runs runs once more, and never beside itself.
func TestQueueRunsAKeyOnceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := key{"cluster", "a"}
		runs, inside := 0, 0
		gate := make(chan struct{})
		q := working(t, 4, func(context.Context, key) (time.Duration, error) {
			runs++
			if inside++; inside > 1 {
				t.Error("a key runs beside itself")
			}
			<-gate
			inside--
			return 0, nil
		})
		q.add(k)
		synctest.Wait()
		for range 5 {
			q.add(k)
		}
		gate <- struct{}{}
		synctest.Wait()
		gate <- struct{}{}
		synctest.Wait()
		if runs != 2 {
			t.Errorf("it ran %d times, want twice", runs)
		}
		if len(q.state) != 0 {
			t.Errorf("the queue still knows %v", q.state)
		}
	})
}

func TestQueueRunsKeysBesideEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		inside := make(chan key, 10)
		q := working(t, 3, func(_ context.Context, k key) (time.Duration, error) {
			inside <- k
			<-gate
			return 0, nil
		})
		for _, id := range []string{"a", "b", "c", "d"} {
			q.add(key{"vm", id})
		}
		synctest.Wait()
		if len(inside) != 3 {
			t.Errorf("%d run at once, want as many as there are workers, 3", len(inside))
		}
		close(gate)
		synctest.Wait()
		if len(inside) != 4 {
			t.Errorf("%d ran, want 4", len(inside))
		}
	})
}

// Failures are tried again, later each time up to a limit, and at once when
// something has changed; a success forgets them.
func TestQueueBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		fail := true
		q := working(t, 1, func(context.Context, key) (time.Duration, error) {
			at = append(at, time.Now())
			if fail {
				return 0, errors.New("the host does not answer")
			}
			return 0, nil
		})
		k := key{"vm", "a"}
		q.add(k)
		elapse(10 * time.Minute)
		for i := 1; i < len(at); i++ {
			least, most := min(minBackoff<<(min(i, 9)-1), maxBackoff)/2, min(minBackoff<<(min(i, 9)-1), maxBackoff)
			if pause := at[i].Sub(at[i-1]); pause < least || pause > most {
				t.Errorf("pause %d was %s, want %s to %s", i, pause, least, most)
			}
		}
		if len(at) < 20 {
			t.Fatalf("only %d tries in ten minutes", len(at))
		}
		tries := len(at)
		fail = false
		q.add(k)
		synctest.Wait()
		if len(at) != tries+1 {
			t.Error("what changed did not cut the backoff short")
		}
		elapse(time.Hour)
		if len(at) != tries+1 {
			t.Error("what succeeded was tried again")
		}
	})
}

// A key that asks to be run again is, until it does not; the end stops all timers.
func TestQueueRunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		q := newQueue(func(context.Context, key) (time.Duration, error) {
			at = append(at, time.Since(began))
			return time.Minute, nil
		}, "host")
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { q.serve(ctx, 1); close(done) }()
		q.add(key{"host", "a"})
		elapse(150 * time.Second)
		cancel()
		<-done
		q.add(key{"host", "b"})
		elapse(time.Hour)
		if want := []time.Duration{0, time.Minute, 2 * time.Minute}; !slices.Equal(at, want) {
			t.Errorf("it ran at %v, want %v", at, want)
		}
	})
}

// What is no longer wanted is cut short; other nouns' keys do not wait for it.
func TestQueueRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran []string
		wanted := false
		q := working(t, 1, func(ctx context.Context, k key) (time.Duration, error) {
			if k.noun == "vm" && !wanted {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			ran = append(ran, k.noun)
			return 0, nil
		})
		q.add(key{"vm", "a"})
		synctest.Wait()
		q.add(key{"cluster", "a"})
		synctest.Wait()
		if !slices.Equal(ran, []string{"cluster"}) {
			t.Errorf("beside a VM that hangs, %v ran", ran)
		}
		wanted = true
		q.restart(key{"vm", "a"})
		synctest.Wait()
		if !slices.Equal(ran, []string{"cluster", "vm"}) {
			t.Errorf("after the restart, %v ran", ran)
		}
	})
}

// elapse has d of the bubble's time pass, and all that is due in it happen.
func elapse(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
