package store

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Revision is a point in the history of the store; each commit makes a new one.
type Revision int64

// Options say where the store is. Either DataDir or Endpoints is required, and Sealer.
type Options struct {
	// DataDir is where the embedded etcd keeps its files.
	DataDir string
	// Endpoints are the client URLs of an external etcd; with them, nothing is
	// embedded and DataDir is not used. Its compaction and quota are its operator's.
	Endpoints []string
	TLS       *tls.Config // for Endpoints; nil without TLS
	Sealer    Sealer
	Logger    *slog.Logger // nil discards
	// Prefix of all keys; "/pleiad/" if empty. It must end with a slash.
	Prefix string
	// MaxTxnOps is how many operations etcd accepts in one transaction; 0 is what
	// the embedded one is set to (16,384), which an external one is asked for; if it
	// declines, 128, etcd's default.
	MaxTxnOps int
	// MinFree is how many bytes must stay free on DataDir's disk: below, writes
	// are refused (model.CodeStorageFull), but for those that lead to space being
	// freed, which need a quarter of it. 0 is 256 MiB, four segments of etcd's log.
	MinFree uint64
	// UnsafeNoFsync makes the embedded etcd forget commits in a crash. For tests only.
	UnsafeNoFsync bool
}

const (
	requestTimeout = 5 * time.Second // one request to etcd
	sendTimeout    = 2 * time.Second // one sending of a transaction: as long as electing a leader takes
	openTimeout    = time.Minute
	updateTimeout  = 30 * time.Second // an Update, all its attempts
)

// Store is an open store.
type Store struct {
	log      *slog.Logger
	client   *clientv3.Client
	dial     func(endpoints ...string) (*clientv3.Client, error) // nil with an embedded etcd
	engine   *engine                                             // nil with an external etcd
	sealer   Sealer
	cache    *cache
	prefix   string
	dataDir  string // empty with an external etcd
	minFree  uint64
	maxOps   int
	maxBytes int

	// ctx ends when the store is closed or has failed; its cause says which.
	ctx    context.Context
	cancel context.CancelCauseFunc
	failed chan error
	ready  atomic.Bool    // Open has succeeded
	follow sync.WaitGroup // the goroutines that keep the cache and watch the engine

	mu      sync.Mutex
	closed  bool
	closing chan struct{}
	groups  map[groupKey]*group
	updates sync.WaitGroup // updates under way
}

// Open opens the store and reads it into memory, within a minute or what ctx
// allows; ctx does not bound the store's life. The error wraps ErrKeyMissing if the Sealer lacks the key of
// what is stored, and ErrCorrupt if a value cannot be read.
func Open(ctx context.Context, o Options) (*Store, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if o.Sealer == nil {
		return nil, errors.New("store: no Sealer given")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Prefix == "" {
		o.Prefix = "/pleiad/"
	}
	if !strings.HasSuffix(o.Prefix, "/") {
		return nil, fmt.Errorf("store: prefix %q does not end with a slash", o.Prefix)
	}
	s := &Store{
		log: o.Logger, sealer: o.Sealer, prefix: o.Prefix, maxOps: o.MaxTxnOps, minFree: o.MinFree,
		cache:  newCache(),
		failed: make(chan error, 1), closing: make(chan struct{}), groups: map[groupKey]*group{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if err := s.connect(ctx, o); err != nil {
		s.cancel(err)
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.ready.Store(true)
	s.follow.Go(s.run)
	return s, nil
}

func (s *Store) connect(ctx context.Context, o Options) error {
	if len(o.Endpoints) > 0 {
		s.maxBytes = externalTxnBytes
		s.dial = func(endpoints ...string) (*clientv3.Client, error) { return dial(endpoints, o, &s.ready) }
		var err error
		s.client, err = s.dial(o.Endpoints...)
		return err
	}
	if o.DataDir == "" {
		return errors.New("store: neither a data directory nor etcd endpoints given")
	}
	s.dataDir, s.maxBytes = o.DataDir, embeddedTxnBytes
	if s.maxOps == 0 {
		s.maxOps = embeddedTxnOps
	}
	if s.minFree == 0 {
		s.minFree = 256 << 20
	}
	// Starting is to stop when the engine dies of it.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	died := func(err error) {
		s.fail(err)
		cancel(context.Cause(s.ctx))
	}
	var err error
	if s.engine, err = startEngine(ctx, o.DataDir, o, &s.ready, died); err != nil {
		return s.outage(err)
	}
	s.client = s.engine.client()
	s.follow.Go(func() {
		select {
		case <-s.engine.etcd.Server.StopNotify():
			s.fail(errors.New("store: etcd stopped"))
		case <-s.ctx.Done():
		}
	})
	return nil
}

// prepare checks the sealing key before anything else is read or written, and
// loads the cache.
func (s *Store) prepare(ctx context.Context) error {
	if s.engine != nil {
		// Whoever led before is dead: its data directory is ours. Its leases need not run out.
		if _, err := s.client.Delete(ctx, s.prefix+"l/", clientv3.WithPrefix()); err != nil {
			return s.outage(fmt.Errorf("store: %w", err))
		}
	}
	if err := s.checkKey(ctx); err != nil {
		return s.outage(err)
	}
	if s.maxOps == 0 {
		var err error
		if s.maxOps, err = acceptedOps(ctx, s.client, s.prefix); err != nil {
			return s.outage(err)
		}
	}
	tables, rev, err := s.load(ctx)
	if err != nil {
		return s.outage(err)
	}
	s.cache.replace(tables, rev)
	return nil
}

// checkKey opens a value sealed when the store was first used, or, if this is
// the first use, lets the Sealer make its key and seals one.
func (s *Store) checkKey(ctx context.Context) error {
	const name, text = "seal", "pleiad"
	key := s.prefix + name
	resp, err := s.client.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("store: etcd does not answer: %w", err)
	}
	kvs := resp.Kvs
	if len(kvs) == 0 {
		if err := s.sealer.Init(); err != nil {
			return err
		}
		value, err := seal(s.sealer, name, 1, []byte(text))
		if err != nil {
			return err
		}
		resp, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, string(value))).Else(clientv3.OpGet(key)).Commit()
		if err != nil {
			return fmt.Errorf("store: etcd does not answer: %w", err)
		}
		if resp.Succeeded {
			return nil
		}
		kvs = resp.Responses[0].GetResponseRange().Kvs // another replica was first
	}
	_, plain, err := unseal(s.sealer, name, kvs[0].Value)
	if err != nil {
		return err
	}
	if !bytes.Equal(plain, []byte(text)) {
		return fmt.Errorf("%w: %s", ErrCorrupt, key)
	}
	return nil
}

// Close lets the updates under way end, refuses new ones, and stops the engine,
// unless that has died.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	s.mu.Unlock()
	s.updates.Wait()
	s.cancel(ErrClosed)
	s.follow.Wait()
	err := s.client.Close()
	if errors.Is(err, context.Canceled) {
		err = nil // how a client reports that it was closed
	}
	if s.engine != nil {
		err = errors.Join(err, s.engine.stop())
	}
	return err
}

// Failed yields one error when the store cannot go on: the embedded engine
// died, or a value cannot be read. The process must stop then.
func (s *Store) Failed() <-chan error { return s.failed }

func (s *Store) fail(err error) {
	if full := storageFull(err); full != nil {
		err = full
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	s.log.Error("the store has failed", "error", err)
	s.cancel(err)
	s.failed <- err
}

// outage says why a request failed: the store's own end explains it better
// than the context error it caused.
func (s *Store) outage(err error) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if full := storageFull(err); full != nil {
		return full
	}
	return err
}

// Revision returns the revision the in-memory copy is at.
func (s *Store) Revision() Revision {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	return Revision(s.cache.rev)
}

// WaitFor returns once reads with s show revision r and all before it. A client
// that wrote by one replica and passes the revision on reads its own writes at any other.
func (s *Store) WaitFor(ctx context.Context, r Revision) error {
	reached := s.cache.reached(int64(r))
	defer s.cache.forget(reached) // r may never come: it is for others to say
	// Revisions of others who use the same etcd pass our watch by: when the
	// wait gets long, ask how far it is.
	ask := time.NewTimer(20 * time.Millisecond)
	defer ask.Stop()
	for {
		select {
		case <-reached:
			return nil
		case <-ask.C:
			s.requestProgress()
			ask.Reset(200 * time.Millisecond)
		case <-ctx.Done():
			return fmt.Errorf("store: waiting for revision %d: %w", r, ctx.Err())
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}

// Snapshot writes a backup: etcd's snapshot of the whole store at one revision,
// with its checksum, as etcdutl restores it. It has everything that was committed
// before. Values in it are sealed; the keys are not in it.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	member, done, err := s.upToDate(ctx)
	if err != nil {
		return s.outage(fmt.Errorf("store: snapshot: %w", err))
	}
	defer done()
	r, err := member.Snapshot(ctx)
	if err != nil {
		return s.outage(fmt.Errorf("store: snapshot: %w", err))
	}
	_, err = io.Copy(w, r)
	if err = errors.Join(err, r.Close()); err != nil {
		return s.outage(fmt.Errorf("store: snapshot: %w", err))
	}
	return nil
}

// upToDate returns a client of one member of etcd that has everything committed
// before: a member's snapshot is of what it happens to know. done ends its use.
func (s *Store) upToDate(ctx context.Context) (member *clientv3.Client, done func(), err error) {
	if s.dial == nil {
		return s.client, func() {}, nil // the only member there is
	}
	for _, endpoint := range s.client.Endpoints() {
		c, derr := s.dial(endpoint)
		if derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		// A linearizable read waits until the member has caught up.
		ask, cancel := context.WithTimeout(ctx, requestTimeout)
		_, gerr := c.Get(ask, s.prefix, clientv3.WithCountOnly())
		cancel()
		if gerr == nil {
			return c, func() { _ = c.Close() }, nil // it was only read from
		}
		err = errors.Join(err, gerr, c.Close())
	}
	return nil, nil, err
}
