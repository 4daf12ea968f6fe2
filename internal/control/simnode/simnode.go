// Package simnode is the program inside simulated nodes: what the node agent
// is to a real VM, Nodes is to those of hypervisor/sim. Tests and benchmarks
// give Nodes.Run to a fleet as its Agent, and every VM that starts finds who it
// is in its user data, registers, asks for its plan and reports its steps done.
//
// It speaks to a controller by plain calls, without HTTP, keeps no time, and
// does nothing of what a plan says: a node costs a goroutine and its results. A
// test makes nodes silent, slow or failing by the hooks of Nodes.
//
// A Nodes may serve any number of VMs at once. What a VM has done is kept, as
// on a disk, for when it is started again.
package simnode

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/pki"
	"github.com/pleiad/pleiad/internal/plan"
)

// Controller is what a node asks its controller for.
type Controller interface {
	Register(ctx context.Context, token string, csrPEM []byte) (certificate, ca []byte, err error)
	Plan(ctx context.Context, id, hash string, wait time.Duration) (*plan.Plan, error)
	Report(ctx context.Context, id string, r plan.Report) error
}

// Attempts is how often a failing step is tried, each time at once. After that
// the node waits for another plan.
const Attempts = 5

const (
	pollWait = 30 * time.Second
	// retryPause is between calls that fail: a controller that is not there must not be hammered.
	retryPause = 5 * time.Millisecond
)

// Nodes are the programs inside a fleet's VMs. Its fields are set before the
// first VM starts.
type Nodes struct {
	// Dial returns the controller to speak to. It is asked before each call, so a
	// test may put another in its place; it may wait for one until ctx ends.
	Dial func(ctx context.Context) (Controller, error)
	// Boot, if any, runs before a node registers. The node is silent while it waits.
	Boot func(ctx context.Context, node bootstrap.Bootstrap)
	// Do, if any, does a step. Its error, best a *Failure, fails the step. A node
	// whose step waits is slow; what it has done before is reported by then.
	Do func(ctx context.Context, node bootstrap.Bootstrap, step plan.Step) error

	mu    sync.Mutex
	disks map[string]*disk
}

// Failure is why a step fails.
type Failure struct{ Cause, Log string }

func (f *Failure) Error() string { return f.Cause }

// disk is what a node keeps.
type disk struct {
	csr        []byte
	registered bool
	results    []plan.StepResult
}

// Run is one VM from its start until ctx ends: the Agent of a sim.Fleet.
func (n *Nodes) Run(ctx context.Context, _ string, spec hypervisor.VMSpec) {
	boot, err := bootstrap.ParseUserData(spec.UserData)
	if err != nil {
		return // a plain VM, with nothing of ours in it
	}
	if n.Boot != nil {
		n.Boot(ctx, boot)
	}
	d := n.disk(boot.NodeID)
	if !d.registered && !n.register(ctx, boot, d) {
		return
	}
	if !n.report(ctx, boot, d, "") { // tells that the node is there
		return
	}
	hash := ""
	for {
		var next *plan.Plan
		if !n.insist(ctx, func(c Controller) (err error) {
			next, err = c.Plan(ctx, boot.NodeID, hash, pollWait)
			return err
		}) {
			return
		}
		if next == nil {
			continue
		}
		hash = next.Hash()
		if !n.apply(ctx, boot, d, *next, hash) {
			return
		}
	}
}

func (n *Nodes) disk(id string) *disk {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.disks == nil {
		n.disks = map[string]*disk{}
	}
	d := n.disks[id]
	if d == nil {
		d = &disk{}
		n.disks[id] = d
	}
	return d
}

// register gets the node's certificate, with the same key however often it asks.
func (n *Nodes) register(ctx context.Context, boot bootstrap.Bootstrap, d *disk) bool {
	if d.csr == nil {
		csr, _, err := pki.NewRequest()
		if err != nil {
			return false
		}
		d.csr = csr
	}
	d.registered = n.insist(ctx, func(c Controller) error {
		_, _, err := c.Register(ctx, boot.Token, d.csr)
		return err
	})
	return d.registered
}

// apply does a plan's steps, in order, and reports. Without Do no step takes
// any time, so it reports once, as a real node does that has several steps done
// while a report is on its way. It returns false once there is nobody to report to.
func (n *Nodes) apply(ctx context.Context, boot bootstrap.Bootstrap, d *disk, p plan.Plan, hash string) bool {
	d.results = slices.DeleteFunc(d.results, func(r plan.StepResult) bool {
		return !slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.ID == r.ID && s.Hash() == r.Hash })
	})
	for _, s := range p.Steps {
		result := d.result(s)
		for result.State != plan.StepDone && result.Attempts < Attempts {
			result.Attempts++
			result.State, result.Error, result.LogTail = plan.StepDone, "", ""
			if n.Do == nil {
				break
			}
			if err := n.Do(ctx, boot, s); err != nil {
				result.State, result.Error = plan.StepFailed, err.Error()
				if f, ok := errors.AsType[*Failure](err); ok {
					result.LogTail = f.Log
				}
			}
			if ctx.Err() != nil || !n.report(ctx, boot, d, hash) {
				return false
			}
		}
		if result.State != plan.StepDone {
			break
		}
	}
	return n.report(ctx, boot, d, hash)
}

func (n *Nodes) report(ctx context.Context, boot bootstrap.Bootstrap, d *disk, hash string) bool {
	r := plan.Report{NodeID: boot.NodeID, PlanHash: hash, Results: slices.Clone(d.results),
		Facts: plan.Facts{AgentVersion: "sim", Hostname: boot.Hostname}}
	return n.insist(ctx, func(c Controller) error { return c.Report(ctx, boot.NodeID, r) })
}

// result returns the step's result, new if there is none. It is good until the next call.
func (d *disk) result(s plan.Step) *plan.StepResult {
	hash := s.Hash()
	i := slices.IndexFunc(d.results, func(r plan.StepResult) bool { return r.ID == s.ID })
	if i < 0 {
		i = len(d.results)
		d.results = append(d.results, plan.StepResult{ID: s.ID, Hash: hash})
	}
	return &d.results[i]
}

// insist calls a controller until it succeeds. It returns false once ctx has
// ended or the controller has said that the node is not to be.
func (n *Nodes) insist(ctx context.Context, call func(Controller) error) bool {
	for ctx.Err() == nil {
		c, err := n.Dial(ctx)
		if err == nil {
			err = call(c)
		}
		if err == nil {
			return true
		}
		for _, code := range []model.Code{
			model.CodeVMNotFound, model.CodeInvalidVMState, model.CodeInvalidRegistered,
			model.CodeExpiredAuthToken, model.CodeInvalidAuthToken,
		} {
			if errors.Is(err, model.ErrorOf(code)) {
				return false
			}
		}
		pause := time.NewTimer(retryPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
	return false
}
