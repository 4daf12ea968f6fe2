package control

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/pki"
	"github.com/pleiad/pleiad/internal/plan"
	"github.com/pleiad/pleiad/internal/store"
)

// nodeTracker knows when each node was last heard of, and who waits for a plan.
// It is memory only: heartbeats of thousands of nodes are not worth a commit,
// and after a restart every node has been silent since the start at the most.
type nodeTracker struct {
	mu      sync.Mutex
	started int64
	heard   map[string]int64
	waiting map[string]chan struct{} // closed when the node's plan changed
}

func newNodeTracker(now int64) *nodeTracker {
	return &nodeTracker{started: now, heard: map[string]int64{}, waiting: map[string]chan struct{}{}}
}

func (t *nodeTracker) hear(id string, now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heard[id] = now
}

func (t *nodeTracker) forget(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.heard, id)
}

// silent is how long nothing was heard of a node, in milliseconds.
func (t *nodeTracker) silent(id string, now int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(0, now-max(t.heard[id], t.started))
}

// changed returns a channel that is closed when the node's plan changes next.
func (t *nodeTracker) changed(id string) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	ch := t.waiting[id]
	if ch == nil {
		ch = make(chan struct{})
		t.waiting[id] = ch
	}
	return ch
}

func (t *nodeTracker) notify(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ch := t.waiting[id]; ch != nil {
		close(ch)
		delete(t.waiting, id)
	}
}

// followPlans wakes nodes that wait for a plan.
func (c *Controller) followPlans(ctx context.Context) {
	for e := range plans.Watch(ctx, c.Store, store.WatchOptions{}) {
		c.nodes.notify(e.ID)
		if e.New == nil {
			c.nodes.forget(e.ID)
		}
	}
}

// Register gives a node its certificate. The token is good for one key: the
// same request again, after a lost answer, gets the same certificate.
func (c *Controller) Register(ctx context.Context, token string, csrPEM []byte) (certificate, ca []byte, err error) {
	claims, err := c.Identity.Tokens.Verify(token, pki.AudienceNode)
	switch {
	case errors.Is(err, pki.ErrTokenExpired):
		return nil, nil, model.Errorf(model.CodeExpiredAuthToken, "the node's token has expired").
			Do("delete the VM; a new one gets a new token")
	case err != nil:
		return nil, nil, model.Errorf(model.CodeInvalidAuthToken, "the node's token is not good: %v", err)
	}
	id := claims.Subject
	signed, keyHash, err := c.signNode(csrPEM, id)
	if err != nil {
		return nil, nil, err
	}
	err = c.update(ctx, func(tx *store.Tx) error {
		v, err := get(tx, store.VMs, id, model.CodeVMNotFound)
		if err != nil {
			return err
		}
		if v.Deleting {
			return model.Errorf(model.CodeInvalidVMState, "VM %s is being deleted", id).With("id", id)
		}
		known, err := enrollments.Get(tx, id)
		switch {
		case err == nil && known.KeyHash != keyHash:
			return model.Errorf(model.CodeInvalidRegistered, "the token of node %s was used before, with another key", id).With("id", id)
		case err == nil:
			signed = known.Certificate
			return nil
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		return enrollments.Put(tx, &plan.Enrollment{NodeID: id, KeyHash: keyHash, Certificate: signed, Time: c.now()})
	})
	if err != nil {
		return nil, nil, err
	}
	c.nodes.hear(id, c.now())
	c.log.Info("node registered", "node", id)
	return signed, c.Identity.CA.Certificate(), nil
}

// signNode signs a node's certificate, in the name we know it by, and returns
// the hash of its public key.
func (c *Controller) signNode(csrPEM []byte, id string) (certificate []byte, keyHash string, err error) {
	signed, err := c.Identity.CA.SignRequest(csrPEM, pki.Leaf{
		CommonName: id, Organization: []string{NodeOrganization}, Client: true,
	}, c.Clock(), rand.Reader)
	if err != nil {
		return nil, "", model.Errorf(model.CodeInvalidEntity, "csr: %v", err)
	}
	parsed, err := pki.ParseCertificate(signed)
	if err != nil {
		return nil, "", err
	}
	return signed, pki.Fingerprint(parsed.RawSubjectPublicKeyInfo), nil
}

// NodeOrganization marks certificates of nodes, so that no other certificate
// of the CA passes for one.
const NodeOrganization = "pleiad:nodes"

// Renew gives a registered node its next certificate.
func (c *Controller) Renew(ctx context.Context, id string, csrPEM []byte) (certificate, ca []byte, err error) {
	if _, err := get(c.Store, enrollments, id, model.CodeVMNotFound); err != nil {
		return nil, nil, err
	}
	signed, _, err := c.signNode(csrPEM, id)
	if err != nil {
		return nil, nil, err
	}
	return signed, c.Identity.CA.Certificate(), nil
}

// Plan returns the node's plan as soon as it differs from hash; nil if it does not within wait.
func (c *Controller) Plan(ctx context.Context, id, hash string, wait time.Duration) (*plan.Plan, error) {
	if err := c.Heartbeat(ctx, id); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		changed := c.nodes.changed(id) // before the look, so that no change is missed
		if _, err := get(c.Store, store.VMs, id, model.CodeVMNotFound); err != nil {
			return nil, err
		}
		p, err := c.planFor(id)
		if err != nil {
			return nil, err
		}
		if p != nil && p.Hash() != hash {
			return p, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// Report records what a node says of itself.
func (c *Controller) Report(ctx context.Context, id string, r plan.Report) error {
	if err := c.Heartbeat(ctx, id); err != nil {
		return err
	}
	r.NodeID = id
	return c.update(ctx, func(tx *store.Tx) error {
		v, err := get(tx, store.VMs, id, model.CodeVMNotFound)
		if err != nil {
			return err
		}
		if v.Deleting {
			return nil
		}
		return reports.Put(tx, &r)
	})
}

// Heartbeat notes that a node lives.
func (c *Controller) Heartbeat(_ context.Context, id string) error {
	if _, err := get(c.Store, store.VMs, id, model.CodeVMNotFound); err != nil {
		return err
	}
	c.nodes.hear(id, c.now())
	return nil
}
