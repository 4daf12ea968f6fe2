package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/plan"
)

// stateDir is where the agent keeps what it must not forget.
const stateDir = "/var/lib/pleiad"

// Files of the state directory, all of mode 0600.
const (
	fileLock      = "lock"
	fileBootstrap = "bootstrap.json"
	fileKey       = "node.key"
	fileCert      = "node.crt"
	fileCA        = "ca.crt"
	filePlan      = "plan.json"
	fileResults   = "results.json"
)

// state is the agent's directory. Each write is whole and on disk when it
// returns. Writes are made by one goroutine at a time for each file.
type state struct {
	dir  string
	lock *os.File
}

// openState makes the directory, and locks it: two agents would run the same
// steps at once.
func openState(dir string) (*state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, fileLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another agent works in %s: %w", dir, err), f.Close())
	}
	return &state{dir: dir, lock: f}, nil
}

func (s *state) close() error { return s.lock.Close() }

// read returns nil for a file that is not there.
func (s *state) read(name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (s *state) write(name string, content []byte) error {
	_, err := writeFile(filepath.Join(s.dir, name), content, 0o600)
	return err
}

// forget removes everything but the lock. What says whose the state is goes
// last, so that a crash in between is noticed and this is done again.
func (s *state) forget() error {
	for _, name := range []string{filePlan, fileResults, fileCert, fileCA, fileKey, fileBootstrap} {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(s.dir)
}

// bootstrap returns the document saved before; ok is false when there is none.
func (s *state) bootstrap() (b bootstrap.Bootstrap, ok bool, err error) {
	raw, err := s.read(fileBootstrap)
	if err != nil || raw == nil {
		return b, false, err
	}
	if b, err = bootstrap.Parse(raw); err != nil {
		return b, false, fmt.Errorf("%s: %w", filepath.Join(s.dir, fileBootstrap), err)
	}
	return b, true, nil
}

func (s *state) saveBootstrap(b bootstrap.Bootstrap) error {
	raw, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return s.write(fileBootstrap, raw)
}

// loadPlan returns the plan and the results saved last; the plan is nil before
// the first. A plan that this version of the agent cannot read counts as none:
// the controller has it, while the results are ours alone.
func (s *state) loadPlan(log *slog.Logger) (*plan.Plan, []plan.StepResult, error) {
	raw, err := s.read(fileResults)
	if err != nil {
		return nil, nil, err
	}
	var results []plan.StepResult
	if raw != nil {
		if err := json.Unmarshal(raw, &results); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", filepath.Join(s.dir, fileResults), err)
		}
	}
	if raw, err = s.read(filePlan); err != nil || raw == nil {
		return nil, results, err
	}
	p, err := plan.Parse(raw)
	if err != nil {
		log.Warn("the saved plan cannot be used, waiting for the controller's", "error", err)
		return nil, results, nil
	}
	return &p, results, nil
}

func (s *state) savePlan(p plan.Plan) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return s.write(filePlan, raw)
}

func (s *state) saveResults(r []plan.StepResult) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.write(fileResults, raw)
}
