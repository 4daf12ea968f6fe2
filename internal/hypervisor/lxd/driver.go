package lxd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	incus "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
)

// Deadlines of calls; the caller's is kept if it is earlier.
const (
	queryTimeout  = 30 * time.Second
	changeTimeout = 2 * time.Minute
	createTimeout = 10 * time.Minute // the first one on a pool unpacks the image
	uploadTimeout = 30 * time.Minute
)

type client = incus.InstanceServer

// Driver speaks to one daemon.
type Driver struct {
	http  *http.Client
	name  string // the host's address, for messages
	local bool   // the daemon may be on this machine

	uploads   *keyedMutex // by image id
	creations *keyedMutex // by VM id

	mu       sync.Mutex
	consoles map[string]string // by VM id
}

var _ hypervisor.Driver = (*Driver)(nil)

// Close implements hypervisor.Driver.
func (d *Driver) Close() error {
	d.http.CloseIdleConnections()
	return nil
}

// call runs f with a client whose requests all end with the context, and explains its error.
// what completes "host X did not …".
func (d *Driver) call(ctx context.Context, what string, timeout time.Duration, f func(context.Context, client) error) error {
	own, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// The client keeps its context for good, so each call has one of its own; the connections are in d.http.
	c, err := incus.ConnectIncusHTTPWithContext(own, &incus.ConnectionArgs{SkipGetServer: true, SkipGetEvents: true}, d.http)
	if err != nil {
		return err
	}
	err = f(own, c)
	switch {
	case err == nil:
		return nil
	case ended(ctx):
		return fmt.Errorf("host %s did not %s in time: %w", d.name, what, causeOf(ctx))
	case ended(own):
		return model.Errorf(model.CodeHostUnreachable, "host %s did not %s within %s", d.name, what, timeout).
			With("address", d.name).Do("check that the host runs and is not overloaded")
	}
	return d.explain(what, err)
}

// ended reports whether a context is over, or is just about to say so: a connection can
// notice the deadline before the context's own timer does.
func ended(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || (ok && !time.Now().Before(deadline))
}

func causeOf(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return context.DeadlineExceeded
}

// explain turns errors of the client into those a user can act on.
func (d *Driver) explain(what string, err error) error {
	var known *model.Error
	if errors.As(err, &known) || errors.Is(err, hypervisor.ErrNotFound) {
		return err
	}
	var source *sourceError
	if errors.As(err, &source) {
		return source.err
	}
	var pinned *pinError
	if errors.As(err, &pinned) {
		return model.Errorf(model.CodeHostCertificate, "host %s showed another certificate than expected: its SHA-256 is %s, not %s", d.name, pinned.got, pinned.want).
			With("address", d.name).With("fingerprint", pinned.got).With("expected", pinned.want).
			Do("if the host's certificate was renewed, register the host with the new fingerprint; if not, somebody is in between")
	}
	var notTLS tls.RecordHeaderError
	var alert tls.AlertError
	if errors.As(err, &notTLS) || errors.As(err, &alert) || errors.Is(err, http.ErrSchemeMismatch) {
		return d.notLXD()
	}
	if !isAnswer(err) {
		return model.Errorf(model.CodeHostUnreachable, "host %s did not %s: %v", d.name, what, withoutURL(err)).
			With("address", d.name).Do("check that the host runs, and its address and port")
	}
	if _, ok := api.StatusErrorMatch(err, http.StatusForbidden, http.StatusUnauthorized); ok {
		return d.unauthorized("it no longer trusts our certificate, or allows it less than it needs")
	}
	return model.Errorf(model.CodeHypervisorError, "host %s could not %s: %v", d.name, what, err).With("address", d.name)
}

// isAnswer reports whether an error is something the host said, rather than that nothing was heard.
func isAnswer(err error) bool {
	var transport *url.Error
	return err != nil && !errors.As(err, &transport)
}

// withoutURL strips the request's URL, which has no meaning to a user.
func withoutURL(err error) error {
	var transport *url.Error
	if errors.As(err, &transport) {
		return transport.Err
	}
	return err
}

// wait waits for an operation to end and returns it. The client's own Wait is not used: it
// takes an operation that goes on when the time is over for one that succeeded.
func wait(c client, op incus.Operation) (api.Operation, error) {
	return waitID(c, op.Get().ID)
}

func waitID(c client, id string) (api.Operation, error) {
	resp, _, err := c.RawQuery(http.MethodGet, "/1.0/operations/"+url.PathEscape(id)+"/wait?timeout=-1", nil, "")
	if err != nil {
		return api.Operation{}, err
	}
	op, err := resp.MetadataAsOperation()
	if err != nil {
		return api.Operation{}, err
	}
	if op.StatusCode != api.Success {
		return *op, errors.New(op.Err)
	}
	return *op, nil
}

// keyedMutex is a lock per key whose waiters give up with their context.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]*keyedLock
}

type keyedLock struct {
	token chan struct{}
	users int
}

func newKeyedMutex() *keyedMutex { return &keyedMutex{held: map[string]*keyedLock{}} }

// lock returns the function that unlocks.
func (m *keyedMutex) lock(ctx context.Context, key string) (func(), error) {
	m.mu.Lock()
	l := m.held[key]
	if l == nil {
		l = &keyedLock{token: make(chan struct{}, 1)}
		m.held[key] = l
	}
	l.users++
	m.mu.Unlock()
	leave := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(m.held, key)
		}
	}
	select {
	case l.token <- struct{}{}:
		return func() { <-l.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
