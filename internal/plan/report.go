package plan

import "github.com/pleiad/pleiad/internal/model"

// StepState is how far a node is with a step.
type StepState string

// States of a step on a node.
const (
	StepRunning StepState = "RUNNING"
	StepDone    StepState = "DONE"
	StepFailed  StepState = "FAILED"
)

// StepResult is what a node says of one step. Times are milliseconds since the Unix epoch.
type StepResult struct {
	ID      string    `json:"id"`
	Hash    string    `json:"hash"`
	State   StepState `json:"state"`
	Started int64     `json:"started"`
	Ended   int64     `json:"ended,omitempty"`
	// Attempts counts runs of this hash, the present one included.
	Attempts int `json:"attempts"`
	// Error and LogTail are set when State is StepFailed.
	Error   string `json:"error,omitempty"`
	LogTail string `json:"logTail,omitempty"`
	// Output is what a Command with Report printed.
	Output string `json:"output,omitempty"`
}

// Facts are what a node finds out about itself.
type Facts struct {
	AgentVersion string   `json:"agentVersion"`
	BootID       string   `json:"bootId"`
	Hostname     string   `json:"hostname"`
	Kernel       string   `json:"kernel"`
	Addresses    []string `json:"addresses,omitempty"`
	CPUs         int      `json:"cpus"`
	Memory       int64    `json:"memory" doc:"Bytes."`
	// Features are what the node's kernel has of the things kinds ask about,
	// e.g. ip_vs, br_netfilter, overlay.
	Features []string `json:"features,omitempty"`
}

// Report is the state of a node as the node tells it; the controller keeps the latest.
type Report struct {
	NodeID string `json:"nodeId"`
	// PlanHash is the plan the node has now; Results are of its steps, in order.
	PlanHash string `json:"planHash,omitempty"`
	// Refused says why the node did not take the plan it was offered last; empty when it did.
	Refused string       `json:"refused,omitempty"`
	Facts   Facts        `json:"facts"`
	Results []StepResult `json:"results,omitempty"`
}

// Enrollment is the controller's record of a node's registration: it makes the
// token one-time. A second registration with the same key is a repeat and gets
// the certificate again; one with another key is refused.
type Enrollment struct {
	NodeID string `json:"nodeId"`
	// KeyHash is the SHA-256 of the node's public key, hexadecimal.
	KeyHash     string `json:"keyHash"`
	Certificate []byte `json:"certificate"`
	Time        int64  `json:"time"`
}

// Done reports whether the step with this id and content is done.
func (r *Report) Done(s Step) bool {
	res := r.Result(s.ID)
	return res != nil && res.State == StepDone && res.Hash == s.Hash()
}

// Result returns what the node said of a step, or nil. It is safe on a nil Report.
func (r *Report) Result(id string) *StepResult {
	if r == nil {
		return nil
	}
	for i := range r.Results {
		if r.Results[i].ID == id {
			return &r.Results[i]
		}
	}
	return nil
}

// AllDone reports whether every step of p is done.
func (r *Report) AllDone(p Plan) bool {
	for _, s := range p.Steps {
		if !r.Done(s) {
			return false
		}
	}
	return r != nil
}

// Failure returns an error for the first failed step of p, or nil. It carries
// the node's own words and log tail.
func (r *Report) Failure(node string, p Plan) *model.Error {
	for _, s := range p.Steps {
		res := r.Result(s.ID)
		if res == nil || res.State != StepFailed || res.Hash != s.Hash() {
			continue
		}
		title := s.Title
		if title == "" {
			title = s.ID
		}
		return model.Errorf(model.CodeNodeStepFailed, "node %s: %s: %s", node, title, res.Error).
			With("node", node).With("step", s.ID).With("log", res.LogTail)
	}
	return nil
}
