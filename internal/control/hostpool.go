package control

import (
	"context"
	"sync"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// hostPool keeps one session with each host. Opening one host's session holds
// up no other host's.
type hostPool struct {
	connectors hypervisor.Connectors
	mu         sync.Mutex
	sessions   map[string]*session
}

// session ends when its host is dropped, which also cuts an attempt to connect short.
type session struct {
	life   context.Context
	end    context.CancelFunc
	turn   chan struct{} // holds one token, taken while driver is set or used to connect
	driver hypervisor.Driver
}

// connecting waits for the session's turn and returns ctx, cut short by the
// session's end, and what gives the turn back.
func (s *session) connecting(ctx context.Context) (context.Context, func(), error) {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() { stop(); cancel(); s.turn <- struct{}{} }, nil
}

func newHostPool(connectors hypervisor.Connectors) *hostPool {
	return &hostPool{connectors: connectors, sessions: map[string]*session{}}
}

// answers reports whether a host is registered and, when last asked, answered.
func answers(h *model.Host) bool {
	return h != nil && h.State == model.HostReady && unreachable(h) == nil
}

// unreachable is why a host did not answer when it was last asked; nil if it did.
func unreachable(h *model.Host) *model.Error {
	for _, cond := range h.Conditions {
		if cond.Type == conditionReachable && cond.Reason == string(model.CodeHostUnreachable) {
			return model.Errorf(model.CodeHostUnreachable, "%s", cond.Message)
		}
	}
	return nil
}

// reach returns the session with a host that answers. One that does not is not
// tried again by everybody who wants something of it, each with a patience of
// minutes: the looks at the host find out when it is back, and wake who waits.
func (c *Controller) reach(ctx context.Context, h *model.Host) (hypervisor.Driver, error) {
	if err := unreachable(h); err != nil {
		return nil, err
	}
	return c.driver(ctx, h)
}

// driver returns the session with a host, connecting if there is none.
func (c *Controller) driver(ctx context.Context, h *model.Host) (hypervisor.Driver, error) {
	s := c.hosts.session(h.ID)
	ctx, done, err := s.connecting(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if s.driver != nil {
		return s.driver, nil
	}
	d, _, err := c.dial(ctx, h)
	if err != nil {
		return nil, err
	}
	s.driver = d
	return d, nil
}

// connect opens a new session with a host and asks for its facts.
func (p *hostPool) connect(ctx context.Context, c *Controller, h *model.Host) (fingerprint string, facts model.HostFacts, err error) {
	s := p.session(h.ID)
	ctx, done, err := s.connecting(ctx)
	if err != nil {
		return "", facts, err
	}
	defer done()
	d, fingerprint, err := c.dial(ctx, h)
	if err != nil {
		return "", facts, err
	}
	facts, err = d.Facts(ctx)
	if err != nil {
		_ = d.Close() // the cause is err; the session is of no use
		return "", facts, err
	}
	s.driver = d
	return fingerprint, facts, nil
}

func (c *Controller) dial(ctx context.Context, h *model.Host) (hypervisor.Driver, string, error) {
	secret, err := store.Secrets.Get(c.Store, h.ID)
	if err != nil {
		return nil, "", err
	}
	connector := c.Connectors[h.Driver]
	if connector == nil {
		return nil, "", model.Errorf(model.CodeHostDriver, "this server has no driver %q", h.Driver)
	}
	return connector.Connect(ctx, hypervisor.Target{
		Address: h.Address, Fingerprint: h.Fingerprint, Username: h.Username, Metadata: h.Metadata,
		Certificate: c.Identity.HostCertificate, Key: c.Identity.HostKey,
		Password: string(secret.Values["password"]),
	})
}

func (p *hostPool) session(id string) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[id]
	if s == nil {
		s = &session{turn: make(chan struct{}, 1)}
		s.turn <- struct{}{}
		s.life, s.end = context.WithCancel(context.Background())
		p.sessions[id] = s
	}
	return s
}

// drop closes a host's session; the next use opens another.
func (p *hostPool) drop(id string) {
	p.mu.Lock()
	s := p.sessions[id]
	delete(p.sessions, id)
	p.mu.Unlock()
	if s != nil {
		s.close()
	}
}

func (p *hostPool) close() {
	p.mu.Lock()
	all := p.sessions
	p.sessions = map[string]*session{}
	p.mu.Unlock()
	for _, s := range all {
		s.close()
	}
}

func (s *session) close() {
	s.end() // whoever connects gives up
	<-s.turn
	defer func() { s.turn <- struct{}{} }()
	if s.driver != nil {
		_ = s.driver.Close() // nothing hangs on the answer to a goodbye
		s.driver = nil
	}
}
