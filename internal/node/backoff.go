package node

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// backoff grows from base to max, doubling; each delay is drawn between half
// and the whole of it, so that many nodes do not return at one moment.
type backoff struct {
	base, max time.Duration
	tries     int
}

// newBackoff is for requests to controllers.
func newBackoff() *backoff { return &backoff{base: 100 * time.Millisecond, max: 5 * time.Second} }

func (b *backoff) next() time.Duration {
	b.tries++
	return jitter(doubled(b.base, b.max, b.tries))
}

func (b *backoff) reset() { b.tries = 0 }

// doubled is base doubled for each try after the first, at most limit.
func doubled(base, limit time.Duration, try int) time.Duration {
	for d := base; ; d *= 2 {
		if d >= limit {
			return limit
		}
		if try <= 1 {
			return d
		}
		try--
	}
}

// jitter draws between half and the whole of d.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1)
}

// pause waits for d; it returns false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outage logs something that keeps failing: the first time, when the reason
// changes, once a minute, and when it is over.
type outage struct {
	log  *slog.Logger
	what string

	since, said time.Time
	last        string
}

func (o *outage) failed(err error) {
	now := time.Now()
	if o.since.IsZero() {
		o.since = now
	}
	if s := err.Error(); s != o.last || now.Sub(o.said) >= time.Minute {
		o.last, o.said = s, now
		o.log.Warn(o.what+" failed, trying again", "error", err, "for", now.Sub(o.since).Round(time.Second))
	}
}

func (o *outage) over() {
	if !o.since.IsZero() {
		o.log.Info(o.what+" works again", "after", time.Since(o.since).Round(time.Millisecond))
	}
	o.since, o.said, o.last = time.Time{}, time.Time{}, ""
}
