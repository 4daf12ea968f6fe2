package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/pleiad/pleiad/internal/model"
)

const (
	embeddedTxnOps = 16384
	externalTxnOps = 128 // etcd's own default
	// Bytes of a transaction, with room for what etcd wraps them in: a cluster of a
	// thousand nodes is 2 MB. An external etcd accepts 1.5 MB unless told otherwise.
	embeddedTxnBytes = 8 << 20
	externalTxnBytes = 1 << 20
	quotaBytes       = 8 << 30
)

// engine is an etcd server in this process. It listens on no socket.
type engine struct {
	etcd *embed.Etcd
	lock *os.File
	dead atomic.Bool // a goroutine of etcd's is held by haltForever
}

// startEngine starts etcd in dir and returns once it serves. died is called,
// at any later time, with the reason why the engine cannot go on.
func startEngine(ctx context.Context, dir string, o Options, ready *atomic.Bool, died func(error)) (*engine, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name = "pleiad"
	cfg.Dir = filepath.Join(dir, "etcd")
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	// Members need names for their URLs even if nothing listens there.
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:2380"}}
	cfg.AdvertiseClientUrls = nil
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// A single member elects itself after one election timeout: small ticks
	// make that a tenth of a second, and there is no network to be patient with.
	cfg.TickMs, cfg.ElectionMs = 20, 100
	cfg.MaxTxnOps = embeddedTxnOps
	cfg.MaxRequestBytes = embeddedTxnBytes + 1<<20
	cfg.QuotaBackendBytes = quotaBytes
	// Nobody reads old revisions but a watch that was cut off for a moment.
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	cfg.UnsafeNoFsync = o.UnsafeNoFsync
	e := &engine{lock: lock}
	core := &etcdLog{log: o.Logger.With("component", "etcd"), ready: ready, died: func(err error) {
		e.dead.Store(true)
		died(err)
	}}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(core, zap.WithFatalHook(haltForever{})))

	done := make(chan error, 1)
	go func() {
		// etcd panics, or ends its goroutine by way of the hook, when the disk
		// fails under its first writes: the caller must hear of it all the same.
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("%v", p)
			}
		}()
		etcd, err := embed.StartEtcd(cfg)
		if err == nil {
			e.etcd = etcd
			select {
			case <-etcd.Server.ReadyNotify():
			case <-etcd.Server.StopNotify():
				err = errors.New("stopped while starting")
			}
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			lock.Close()
			return nil, fmt.Errorf("store: etcd does not start in %s: %w", cfg.Dir, err)
		}
		return e, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("store: etcd does not start in %s: %w", cfg.Dir, context.Cause(ctx))
	}
}

// lockDir keeps two processes out of one data directory: etcd itself would
// wait in silence for the first to end.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("store: data directory %s is in use by another process: %w", dir, err)
	}
	return f, nil
}

func (e *engine) client() *clientv3.Client { return v3client.New(e.etcd.Server) }

func (e *engine) stop() error {
	if e.dead.Load() {
		return nil // it cannot be stopped, but with the process
	}
	e.etcd.Close()
	return e.lock.Close()
}

// dial makes a client of an external cluster. It does not wait for an answer.
func dial(endpoints []string, o Options, ready *atomic.Bool) (*clientv3.Client, error) {
	core := &etcdLog{log: o.Logger.With("component", "etcd client"), ready: ready, died: func(error) {}}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		TLS:                  o.TLS,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.New(core),
	})
	if err != nil {
		return nil, fmt.Errorf("store: etcd endpoints: %w", err)
	}
	return client, nil
}

// acceptedOps asks an external etcd whether it was set to accept as many
// operations in one transaction as the embedded one.
func acceptedOps(ctx context.Context, c *clientv3.Client, prefix string) (int, error) {
	look := make([]clientv3.Op, embeddedTxnOps)
	for i := range look {
		look[i] = clientv3.OpGet(prefix, clientv3.WithCountOnly(), clientv3.WithSerializable())
	}
	_, err := c.Txn(ctx).Then(look...).Commit()
	switch {
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return externalTxnOps, nil
	case err != nil:
		return 0, fmt.Errorf("store: etcd does not answer: %w", err)
	}
	return embeddedTxnOps, nil
}

// checkSpace refuses to go below min free bytes where dir is. etcd cannot
// survive a full disk: better to refuse a write than to die of it.
func checkSpace(dir string, min uint64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("store: data directory: %w", err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < min {
		return model.Errorf(model.CodeStorageFull,
			"the disk of the server's data directory has %d MB free, less than the %d MB it must keep", free>>20, min>>20).
			With("free", strconv.FormatUint(free, 10)).With("required", strconv.FormatUint(min, 10)).
			Do("free space on the server's disk")
	}
	return nil
}

// etcdLog passes etcd's warnings and errors on to a slog.Logger; as debugging
// output until ready, since a healthy start brings some, and Open returns its errors.
type etcdLog struct {
	log   *slog.Logger
	with  []zapcore.Field
	ready *atomic.Bool
	died  func(error) // called on what etcd cannot survive
}

func (l *etcdLog) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (l *etcdLog) With(fields []zapcore.Field) zapcore.Core {
	return &etcdLog{l.log, append(l.with[:len(l.with):len(l.with)], fields...), l.ready, l.died}
}

func (l *etcdLog) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if l.Enabled(e.Level) {
		return c.AddCore(e, l)
	}
	return c
}

func (l *etcdLog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	var cause error
	for _, f := range append(l.with[:len(l.with):len(l.with)], fields...) {
		f.AddTo(enc)
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			cause = err
		}
	}
	attrs := make([]any, 0, 2*len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, k, v)
	}
	level := slog.LevelError
	switch {
	case e.Level > zapcore.ErrorLevel:
	case !l.ready.Load():
		level = slog.LevelDebug
	case e.Level < zapcore.ErrorLevel:
		level = slog.LevelWarn
	}
	l.log.Log(context.Background(), level, e.Message, attrs...)
	if e.Level > zapcore.ErrorLevel {
		err := fmt.Errorf("store: etcd: %s", e.Message)
		if cause != nil {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		l.died(err)
	}
	return nil
}

func (l *etcdLog) Sync() error { return nil }

// haltForever holds the goroutine in which etcd met a fatal error. etcd would
// end the process there and then; ended alone, the goroutine would run
// deferred calls that panic. The store's Failed channel tells the process to
// stop, in order.
type haltForever struct{}

func (haltForever) OnWrite(*zapcore.CheckedEntry, []zapcore.Field) { select {} }
