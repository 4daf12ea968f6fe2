// Package process starts programs that outlive the command that starts them,
// and finds and stops them again by number, without ever taking another process
// for one of them.
//
// A Process is plain data that can be kept in a file. Its methods may be called
// from any goroutine.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is one process, however often its number is used again: the kernel's
// start time tells it from a later one.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// Start starts a program that outlives us, with its output appended to a file.
func Start(log string, env []string, argv ...string) (Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return Process{}, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = "/" // it must not hold on to the caller's directory
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Process{}, err
	}
	p := Process{PID: cmd.Process.Pid}
	_, p.Start, err = stat(p.PID)
	if err != nil {
		return Process{}, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return p, cmd.Process.Release()
}

// Find returns the process that has the number now.
func Find(pid int) (Process, error) {
	_, start, err := stat(pid)
	return Process{pid, start}, err
}

// stat returns state and start time from /proc/PID/stat.
func stat(pid int) (state byte, start uint64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The command's name may hold anything; what follows its bracket is regular.
	i := bytes.LastIndexByte(data, ')')
	fields := strings.Fields(string(data[i+1:]))
	if i < 0 || len(fields) < 20 {
		return 0, 0, fmt.Errorf("unexpected content of /proc/%d/stat", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], start, err
}

// Alive reports whether the process still runs; a zombie does not.
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	state, start, err := stat(p.PID)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

// Stop ends the process: with sig, and with SIGKILL once grace is over.
func (p Process) Stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	// The descriptor names one process for good; checking after opening rules out another with the same number.
	if !p.Alive() {
		p.reap()
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		grace = min(grace, time.Until(deadline)/2)
	}
	for _, try := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{sig, grace}, {syscall.SIGKILL, 10 * time.Second}} {
		if err := unix.PidfdSendSignal(fd, try.sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", p.PID, err)
		}
		if waitExit(fd, try.wait) {
			p.reap()
			return nil
		}
	}
	return fmt.Errorf("process %d does not end", p.PID)
}

// waitExit waits for the process of a pidfd to end.
func waitExit(fd int, timeout time.Duration) bool {
	for end := time.Now().Add(timeout); ; {
		left := max(time.Until(end), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if n > 0 {
			return true
		}
		if !errors.Is(err, unix.EINTR) || left == 0 {
			return false
		}
	}
}

// reap collects the process if it is a child of ours, so that no zombie stays while we live.
func (p Process) reap() {
	_, _ = syscall.Wait4(p.PID, nil, syscall.WNOHANG, nil)
}

// Children lists the direct children of a process.
func (p Process) Children() []Process {
	var found []Process
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.PID))
	if err != nil {
		return nil
	}
	for _, t := range tasks {
		data, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				continue
			}
			if _, start, err := stat(pid); err == nil {
				found = append(found, Process{pid, start})
			}
		}
	}
	return found
}

// WaitFor asks ready again and again until it says yes, fails, or the time is over.
func WaitFor(ctx context.Context, what string, timeout time.Duration, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}
