package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pleiad/pleiad/internal/plan"
)

// Runner runs programs. It returns once the program has ended, or, when ctx
// ended first, once the program and all its children are gone; the error is
// then ctx's. A program that ran and failed is an *exec.ExitError.
type Runner interface {
	Run(ctx context.Context, c Cmd) (Output, error)
}

// Cmd is one run of a program, without a shell.
type Cmd struct {
	Argv []string
	// Env is added to the agent's own environment.
	Env   []string
	Stdin []byte
}

// Output is what a program printed, each part cut to its limit.
type Output struct {
	// Stdout is the beginning of the standard output, at most plan.MaxOutput bytes.
	Stdout string
	// Tail is the end of standard output and standard error as they came, at
	// most plan.MaxLogTail bytes.
	Tail string
}

const (
	// stopGrace is how long a program may take to end after SIGTERM before it is killed.
	stopGrace = 5 * time.Second
	// outputGrace is how long to wait, once a program has ended, for a child of
	// it that holds its output open, e.g. a daemon it started.
	outputGrace = time.Second
)

// processes is the Runner of the real world. Each program leads a process
// group of its own, so that its children can be stopped with it.
type processes struct{}

func (processes) Run(ctx context.Context, c Cmd) (Output, error) {
	if err := ctx.Err(); err != nil {
		return Output{}, err
	}
	stdout := &head{limit: plan.MaxOutput}
	all := &tail{limit: plan.MaxLogTail}
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env = append(os.Environ(), c.Env...)
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	cmd.Stdout = io.MultiWriter(stdout, all)
	cmd.Stderr = all
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = outputGrace
	if err := cmd.Start(); err != nil {
		return Output{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		stopGroup(cmd.Process.Pid, ended)
		err = ctx.Err()
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it exited with 0; a daemon of its own lives on
	}
	return Output{Stdout: stdout.String(), Tail: all.String()}, err
}

// stopGroup ends a process group, kindly first, and waits for its leader.
func stopGroup(pgid int, ended <-chan error) {
	_ = syscall.Kill(-pgid, syscall.SIGTERM) // an error means that it is gone
	t := time.NewTimer(stopGrace)
	defer t.Stop()
	select {
	case <-ended:
		_ = syscall.Kill(-pgid, syscall.SIGKILL) // children that outlived their leader
	case <-t.C:
		_ = syscall.Kill(-pgid, syscall.SIGKILL)
		<-ended
	}
}

// head keeps the first bytes written to it.
type head struct {
	limit int
	buf   []byte
}

func (h *head) Write(p []byte) (int, error) {
	h.buf = append(h.buf, p[:min(len(p), h.limit-len(h.buf))]...)
	return len(p), nil
}

func (h *head) String() string { return clean(h.buf, h.limit) }

// tail keeps the last bytes written to it; standard output and standard error
// write to it at once.
type tail struct {
	limit int
	mu    sync.Mutex
	buf   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	// Cutting only when it is twice too long keeps copying rare.
	if len(t.buf) > 2*t.limit {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.limit:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return lastBytes(clean(t.buf, len(t.buf)), t.limit)
}

// clean makes printable UTF-8 of at most limit bytes out of what a program
// wrote. Control characters would grow sixfold in JSON, and could play tricks
// on a reader's terminal.
func clean(b []byte, limit int) string {
	s := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || (r >= ' ' && r != 0x7f) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(string(b), "?"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}

// lastBytes cuts s from the front to at most limit bytes, at a line where it can.
func lastBytes(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	s = s[len(s)-limit:]
	if i := strings.IndexByte(s, '\n'); i >= 0 && i < len(s)-1 {
		return s[i+1:]
	}
	return strings.ToValidUTF8(s, "")
}
