package kubernetes

import (
	"fmt"
	"time"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/plan"
)

// When a node is given up, so that somebody is told.
const (
	// maxAttempts of one step. The agent waits longer after each.
	maxAttempts = 5
	// maxSilence of a node that is started and not finished.
	maxSilence = 5 * time.Minute
)

// failure is why the cluster cannot go on by itself, and the operation it ends.
type failure struct {
	operation string
	err       *model.Error
}

// failure returns the first cause, the leader's before a worker's; nil while there is hope.
func (s *situation) failure() *failure {
	for _, m := range s.members {
		if m.node == nil || m.allDone() {
			continue
		}
		if err := m.failure(s); err != nil {
			return &failure{m.operation(), err}
		}
	}
	return nil
}

func (m member) failure(s *situation) *model.Error {
	name, vm := m.spec.Name, m.node.VM
	if vm.State == model.VMError {
		cause := vm.Error
		if cause == nil {
			cause = model.Errorf(model.CodeHypervisorError, "the hypervisor gave no reason")
		}
		err := *cause
		err.Message = fmt.Sprintf("node %s: %s", name, cause.Message)
		return &err
	}
	if silence := m.silence(s.view.Now); vm.State == model.VMStarted && silence >= maxSilence {
		what := "has not been heard of for"
		if m.node.Report == nil {
			what = "is started, but has not reported for"
		}
		return model.Errorf(model.CodeNodeNotReporting, "node %s %s %s", name, what, inWords(silence)).
			With("node", name).
			Do("look at the console of VM %s on host %s: can it reach this server at the server's advertised address?", vm.ID, vm.Host)
	}
	res := m.failedStep()
	if res == nil || res.Attempts < maxAttempts {
		return nil
	}
	next := "delete the cluster and create it again"
	switch {
	case m.operation() == opRemove:
		next = "resize the cluster again; --force does not ask disruption budgets"
	case s.view.Cluster.State == model.ClusterResizing:
		next = "resize the cluster again"
	}
	return m.node.Report.Failure(name, m.plan).
		Do("%d attempts failed; see the log for the cause, mend it, then %s", res.Attempts, next)
}

// silence is how long nothing was heard of the node: never longer than it is there.
func (m member) silence(now int64) time.Duration {
	return time.Duration(min(m.node.Silent, now-m.node.VM.CreatedTime)) * time.Millisecond
}

// failedStep is the result of the step the node is at, if that failed and does
// not run again yet; else nil.
func (m member) failedStep() *plan.StepResult {
	i := m.undone()
	if i < 0 {
		return nil
	}
	if r := m.result(i); r != nil && r.State == plan.StepFailed {
		return r
	}
	return nil
}

// operation is the one that the node works on.
func (m member) operation() string {
	switch at := m.undone(); {
	case m.spec.Role == RoleMaster && !m.done(stepInit):
		return opMaster
	case m.spec.Role == RoleMaster && at >= 0 && m.plan.Steps[at].ID != stepToken && m.done(stepDNS):
		return opRemove
	case m.spec.Role == RoleWorker && !m.joined():
		return opWorkers
	default:
		return opNetwork
	}
}

// progress tells of each operation. All follows from the view, so it is the same
// however often and by whomever it is asked.
func (s *situation) progress(published bool, failed *failure) map[string]kind.Progress {
	created := s.count(func(m member) bool { return m.address().IsValid() })
	joined, workers := s.count(member.joined), len(s.members)-1
	ready, dns, all := s.count(member.ready), s.count(member.dns), len(s.members)

	progress := map[string]kind.Progress{
		opInitiate: inStages(true, created == all && len(s.missing) == 0,
			fmt.Sprintf("%d of %d nodes have an address", created, all)),
		opMaster: inStages(s.members[0].node != nil, s.apiUp(), s.control()),
		opWorkers: inStages(created > 1 || s.apiUp(), s.apiUp() && joined == workers,
			s.details(opWorkers, fmt.Sprintf("%d of %d workers joined", joined, workers))),
		opNetwork: inStages(s.apiUp(), s.apiUp() && ready == all && dns == all,
			s.details(opNetwork, fmt.Sprintf("%d of %d nodes Ready, DNS answers on %d", ready, all, dns))),
		opPublish: inStages(s.apiUp(), published, ""),
		opRemove:  inStages(true, len(s.surplus) == 0, s.departure()),
	}
	if failed != nil {
		p := progress[failed.operation]
		p.State, p.Error = model.TaskError, failed.err
		progress[failed.operation] = p
	}
	return progress
}

func inStages(started, done bool, message string) kind.Progress {
	switch {
	case done:
		return kind.Progress{State: model.TaskCompleted, Message: message}
	case started:
		return kind.Progress{State: model.TaskStarted, Message: message}
	default:
		return kind.Progress{State: model.TaskQueued}
	}
}

// doing says in words what a node is at.
func (m member) doing() string {
	switch {
	case m.node == nil:
		return m.spec.Name + " is not there yet"
	case m.node.VM.State != model.VMStarted:
		return m.spec.Name + " is being started"
	case m.node.Report == nil:
		return m.spec.Name + " has not reported yet"
	case len(m.plan.Steps) == 0:
		return m.spec.Name + " waits for its plan"
	}
	i := m.undone()
	if i < 0 {
		return m.spec.Name + " is done"
	}
	at := m.spec.Name + ": " + m.plan.Steps[i].Title
	if r := m.failedStep(); r != nil {
		return fmt.Sprintf("%s: attempt %d of %d failed: %s", at, r.Attempts, maxAttempts, r.Error)
	}
	return at
}

// control says in words how far the control plane is.
func (s *situation) control() string {
	if s.apiUp() {
		return "the API answers at " + endpointURL(s.endpoint)
	}
	return s.members[0].doing()
}

// departure says in words how far the nodes are that are to go.
func (s *situation) departure() string {
	if len(s.surplus) == 0 {
		return "all are gone"
	}
	left := fmt.Sprintf("%d workers left to remove", len(s.surplus))
	if m := s.members[0]; m.undone() >= 0 {
		return left + "; " + m.doing()
	}
	return left
}

// details adds to a summary what the first node with trouble in that operation says.
func (s *situation) details(operation, summary string) string {
	for _, m := range s.members {
		if m.node != nil && m.operation() == operation && m.failedStep() != nil {
			return summary + "; " + m.doing()
		}
	}
	return summary
}

// conditions say what is true of the cluster as it is.
func (s *situation) conditions() []model.Condition {
	all, ready, dns := len(s.members), s.count(member.ready), s.count(member.dns)
	api := model.Condition{Type: "ControlPlaneReady", Status: "False", Reason: "Starting", Message: s.control()}
	if s.apiUp() {
		api.Status, api.Reason = "True", "Initialised"
	}
	nodes := counted("NodesReady", ready, all, "nodes are Ready")
	for _, m := range s.members {
		if m.node == nil || m.node.Report == nil {
			continue
		}
		if silence := m.silence(s.view.Now); silence >= maxSilence {
			nodes.Status, nodes.Reason = "Unknown", "NodeSilent"
			nodes.Message = fmt.Sprintf("node %s has not been heard of for %s", m.spec.Name, inWords(silence))
			break
		}
	}
	out := []model.Condition{api, nodes, counted("DNSReady", dns, all, "nodes resolve names through the cluster's DNS")}
	for i := range out {
		out[i].Time = s.view.Now
	}
	return out
}

func counted(kind string, n, of int, what string) model.Condition {
	c := model.Condition{Type: kind, Status: "False", Reason: "Waiting", Message: fmt.Sprintf("%d of %d %s", n, of, what)}
	if n == of {
		c.Status, c.Reason = "True", "AllNodes"
	}
	return c
}

// inWords is a duration of minutes in words.
func inWords(d time.Duration) string {
	if n := int(d.Minutes()); n != 1 {
		return fmt.Sprintf("%d minutes", n)
	}
	return "1 minute"
}
