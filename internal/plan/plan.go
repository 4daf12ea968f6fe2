// Package plan is the vocabulary in which the controller says what a node
// should be, and the node says how far it is.
//
// A Plan is a list of steps, applied in order. Each step has an id and a hash
// of its content; the agent runs a step at most once for each hash, so a plan
// can be sent again after a crash, extended at its end, or changed in the
// middle (then that step runs again, and the ones behind it only if they
// changed too). A step that fails stops the plan there until the agent's next
// try; a Report says which step, why, and shows the log tail.
//
// The package is pure: it does no I/O, reads no clock, starts no goroutine.
// A plan may carry private keys: it is stored sealed, sent only to its own
// node, and must never be logged.
package plan

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

// Plan is what one node should be.
type Plan struct {
	// NodeID is the id of the VM the plan is for.
	NodeID string `json:"nodeId"`
	Steps  []Step `json:"steps"`
}

// Step is one thing to do. Exactly one of Files, Command, Service and Probe is set.
type Step struct {
	// ID names the step within its plan; it stays the same when the content changes.
	ID string `json:"id"`
	// Title says in words what the step does, for people who watch.
	Title   string   `json:"title,omitempty"`
	Files   []File   `json:"files,omitempty"`
	Command *Command `json:"command,omitempty"`
	Service *Service `json:"service,omitempty"`
	Probe   *Probe   `json:"probe,omitempty"`
	// LogUnits are systemd units whose journal explains a failure; their last
	// lines are sent with it.
	LogUnits []string `json:"logUnits,omitempty"`
	// LogFiles are files, by glob pattern, whose last lines are sent with a failure.
	LogFiles []string `json:"logFiles,omitempty"`
}

// File is written whole, atomically, when its content or mode differs.
type File struct {
	Path string `json:"path"`
	// Mode in octal digits, e.g. "0600".
	Mode    string `json:"mode"`
	Content []byte `json:"content"`
}

// Command runs a program, without a shell.
type Command struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
	// Stdin is given to the program; secrets go here or into files, never into Argv.
	Stdin []byte `json:"stdin,omitempty"`
	// Creates is a path: when it exists the command has been done and is not run.
	Creates string `json:"creates,omitempty"`
	// Unless is a command: when it exits with 0, the step is done and Argv is not run.
	Unless []string `json:"unless,omitempty"`
	// Cleanup runs before a second try of a command that failed or was cut off.
	Cleanup []string `json:"cleanup,omitempty"`
	// TimeoutSeconds bounds one run; 0 means 60.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`
	// Report asks for the program's standard output (at most MaxOutput bytes) in the result.
	Report bool `json:"report,omitempty"`
}

// Service sets a systemd unit's state.
type Service struct {
	Unit string `json:"unit"`
	// State is started, restarted or stopped.
	State  string `json:"state"`
	Enable bool   `json:"enable,omitempty"`
}

// Probe waits until something is true. Exactly one of HTTP, TCP, DNS and Exec is set.
type Probe struct {
	HTTP *HTTPProbe `json:"http,omitempty"`
	TCP  string     `json:"tcp,omitempty"`
	DNS  *DNSProbe  `json:"dns,omitempty"`
	Exec []string   `json:"exec,omitempty"`
	// IntervalMillis between looks; 0 means 200.
	IntervalMillis int `json:"intervalMillis,omitempty"`
	// TimeoutSeconds until the step fails; 0 means 60.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`
}

// HTTPProbe succeeds on a status of 200 to 299.
type HTTPProbe struct {
	URL string `json:"url"`
	// CAFile verifies the server; empty means the system's trust.
	CAFile string `json:"caFile,omitempty"`
	// CertFile and KeyFile authenticate the node.
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
}

// DNSProbe succeeds when Server answers Name with at least one address.
type DNSProbe struct {
	Server string `json:"server"`
	Name   string `json:"name"`
}

// Limits of what a node sends back.
const (
	MaxOutput  = 16 << 10 // bytes of a command's output
	MaxLogTail = 16 << 10 // bytes of a log tail
	MaxSteps   = 200      // steps in a plan
	MaxPlan    = 4 << 20  // bytes of a plan, as JSON
)

// Hash identifies a step's content.
func (s Step) Hash() string {
	b, err := json.Marshal(s)
	if err != nil { // a Step has no type that JSON cannot carry
		panic(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// Hash identifies a plan's content.
func (p Plan) Hash() string {
	h := sha256.New()
	fmt.Fprintln(h, p.NodeID)
	for _, s := range p.Steps {
		fmt.Fprintln(h, s.ID, s.Hash())
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Parse reads and checks a plan. It refuses unknown fields: a node that ignored
// what it does not know would do something else than asked, and its hash of the
// step would never be the controller's.
func Parse(data []byte) (Plan, error) {
	if len(data) > MaxPlan {
		return Plan{}, fmt.Errorf("plan is over %d bytes", MaxPlan)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var p Plan
	if err := d.Decode(&p); err != nil {
		return Plan{}, fmt.Errorf("plan: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Plan{}, errors.New("plan: something follows the document")
	}
	if err := p.Validate(); err != nil {
		return Plan{}, err
	}
	return p, nil
}

// Validate checks that a plan can be applied: ids present and unique, one
// action in each step, absolute paths, known states, within the limits.
func (p Plan) Validate() error {
	if len(p.Steps) > MaxSteps {
		return fmt.Errorf("plan has %d steps, at most %d are allowed", len(p.Steps), MaxSteps)
	}
	seen := make(map[string]bool, len(p.Steps))
	for _, s := range p.Steps {
		if s.ID == "" || seen[s.ID] {
			return fmt.Errorf("step id %q is empty or not unique", s.ID)
		}
		seen[s.ID] = true
		if err := s.validate(); err != nil {
			return fmt.Errorf("step %s: %w", s.ID, err)
		}
	}
	return nil
}

func (s Step) validate() error {
	actions := 0
	if len(s.Files) > 0 {
		actions++
		for _, f := range s.Files {
			if !isFilePath(f.Path) {
				return fmt.Errorf("file path %q is not absolute and clean", f.Path)
			}
			if mode, err := strconv.ParseUint(f.Mode, 8, 32); err != nil || mode > 0o7777 {
				return fmt.Errorf("mode %q of %s is not octal", f.Mode, f.Path)
			}
		}
	}
	if c := s.Command; c != nil {
		actions++
		if len(c.Argv) == 0 || c.Argv[0] == "" {
			return fmt.Errorf("command is empty")
		}
		if c.Creates != "" && !isFilePath(c.Creates) {
			return fmt.Errorf("creates %q is not an absolute and clean path", c.Creates)
		}
		if err := checkTimeout(c.TimeoutSeconds); err != nil {
			return err
		}
	}
	if v := s.Service; v != nil {
		actions++
		if v.Unit == "" || (v.State != "started" && v.State != "restarted" && v.State != "stopped") {
			return fmt.Errorf("service %q: state %q is not started, restarted or stopped", v.Unit, v.State)
		}
	}
	if b := s.Probe; b != nil {
		actions++
		n := 0
		for _, set := range []bool{b.HTTP != nil, b.TCP != "", b.DNS != nil, len(b.Exec) > 0} {
			if set {
				n++
			}
		}
		if n != 1 {
			return fmt.Errorf("a probe looks at exactly one thing, not %d", n)
		}
		if b.IntervalMillis < 0 {
			return fmt.Errorf("intervalMillis %d is negative", b.IntervalMillis)
		}
		if err := checkTimeout(b.TimeoutSeconds); err != nil {
			return err
		}
	}
	if actions != 1 {
		return fmt.Errorf("a step has exactly one action, not %d", actions)
	}
	return nil
}

// checkTimeout refuses what cannot be meant; a day also keeps durations from overflowing.
func checkTimeout(seconds int) error {
	if seconds < 0 || seconds > 24*60*60 {
		return fmt.Errorf("timeoutSeconds %d is not 0 to 86400", seconds)
	}
	return nil
}

// isFilePath accepts the one spelling of an absolute path of a file, so that
// two steps cannot name the same file differently.
func isFilePath(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && p != "/" && !strings.ContainsRune(p, 0)
}
