package nodeimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// killDelay is how long a cancelled program may take to clean up (mmdebstrap
	// has mounts to undo) before it is killed.
	killDelay = 15 * time.Second
	// tailLines of a failed program's output become part of the error.
	tailLines = 20
)

// command is a program to run.
type command struct {
	name  string
	args  []string
	dir   string
	env   []string // added to the process's own
	stdin io.Reader
	// stdout, if set, receives standard output; standard error, and otherwise
	// standard output too, go to line and to the tail of an error.
	stdout io.Writer
	line   func(string)
}

// run runs the program and all that it starts in a process group of their own,
// which does not outlive a cancelled ctx.
func (c command) run(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, c.name, c.args...)
	cmd.Dir, cmd.Stdin = c.dir, c.stdin
	cmd.Env = append(os.Environ(), c.env...)
	out := &lines{each: c.line}
	cmd.Stdout, cmd.Stderr = out, out
	if c.stdout != nil {
		cmd.Stdout = c.stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killDelay
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(c.name), err)
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		// What ignored SIGTERM, or was started after it, goes now. There being
		// nobody left is the good case.
		if kerr := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); kerr != nil && !errors.Is(kerr, syscall.ESRCH) {
			return fmt.Errorf("%s: %w", filepath.Base(c.name), errors.Join(context.Cause(ctx), kerr))
		}
		cause := context.Cause(ctx)
		var exit *exec.ExitError
		if errors.As(err, &exit) { // it did not end well, as opposed to: as it was told
			cause = errors.Join(cause, exit)
		}
		return fmt.Errorf("%s: %w", filepath.Base(c.name), cause)
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(c.name), err, out.tail())
	}
	return nil
}

// output runs the program and returns its trimmed standard output.
func (c command) output(ctx context.Context) (string, error) {
	var buf bytes.Buffer
	c.stdout = &buf
	err := c.run(ctx)
	return strings.TrimSpace(buf.String()), err
}

// lines cuts a program's output into lines, hands on each, and keeps the last.
type lines struct {
	each func(string)

	mu      sync.Mutex
	partial []byte
	kept    []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		i := bytes.IndexAny(l.partial, "\n\r")
		if i < 0 {
			return len(p), nil
		}
		line := strings.TrimSpace(string(l.partial[:i]))
		l.partial = l.partial[i+1:]
		if line == "" {
			continue
		}
		l.kept = append(l.kept, line)
		if len(l.kept) > tailLines {
			l.kept = l.kept[1:]
		}
		if l.each != nil {
			l.each(line)
		}
	}
}

func (l *lines) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.kept
	if rest := strings.TrimSpace(string(l.partial)); rest != "" {
		kept = append(kept[:len(kept):len(kept)], rest)
	}
	return strings.Join(kept, "\n")
}
