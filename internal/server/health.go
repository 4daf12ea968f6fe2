package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

const (
	// healthTimeout bounds one look at the store.
	healthTimeout = 2 * time.Second
	// healthLasts is how long an answer is good: anybody may ask, as often as they like.
	healthLasts = time.Second
)

// Codes that only /healthz answers.
const (
	codeStopping         model.Code = "Stopping"         // the server stops
	codeStoreUnavailable model.Code = "StoreUnavailable" // the store does not answer
)

// health tells whether this server can do its work, which it can as long as its
// store answers. It is safe for concurrent use: those who ask while the store is
// being asked wait for that answer.
type health struct {
	life  context.Context // the server's
	probe func(context.Context) error
	clock func() time.Time

	mu    sync.Mutex
	asked time.Time
	err   error
}

// probeStore is a read that etcd's members must agree on: it writes nothing,
// and fails where writes would for lack of an answer.
func probeStore(st *store.Store) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := st.Update(ctx, "", func(*store.Tx) error { return nil })
		return err
	}
}

// check returns nil or a *model.Error that wraps the cause. The answer is for
// all who ask, so it does not depend on the patience of the one whose ctx this is.
func (h *health) check(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.life.Err() != nil {
		return model.Errorf(codeStopping, "the server is stopping")
	}
	if now := h.clock(); h.asked.IsZero() || now.Sub(h.asked) >= healthLasts {
		ctx, cancel := context.WithTimeout(h.life, healthTimeout)
		defer cancel()
		h.err = h.probe(ctx)
		h.asked = h.clock()
	}
	var known *model.Error // e.g. that the store's disk is full
	if h.err == nil || errors.As(h.err, &known) {
		return h.err
	}
	return errors.Join(model.Errorf(codeStoreUnavailable, "the store does not answer"), h.err)
}
