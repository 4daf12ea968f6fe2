package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pleiad/pleiad/internal/plan"
)

// Deadlines of what a step does.
const (
	defaultTimeout = 60 * time.Second  // a command or probe that sets none
	serviceTimeout = 120 * time.Second // longer than systemd's own, so that its reason is heard
	guardTimeout   = 30 * time.Second  // a command's Unless
	systemctlQuick = 30 * time.Second  // daemon-reload, enable
)

// unitDirs are where unit files lie; a change there must be told to systemd.
var unitDirs = []string{"/etc/systemd/system/", "/run/systemd/system/", "/usr/local/lib/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/"}

// executor is the performer of the real world. Paths in plans are taken below
// root; programs are not.
type executor struct {
	root   string
	runner Runner
}

func (x *executor) perform(ctx context.Context, s plan.Step, cleanup bool) outcome {
	var o outcome
	switch {
	case s.Files != nil:
		o.err = x.files(ctx, s.Files)
	case s.Command != nil:
		o = x.command(ctx, s.Command, cleanup)
	case s.Service != nil:
		o = x.service(ctx, s.Service)
	case s.Probe != nil:
		o.err = x.probe(ctx, s.Probe)
	}
	if o.err == nil {
		return o
	}
	if ctx.Err() != nil {
		return outcome{err: errCutOff}
	}
	o.logTail = x.logs(ctx, s, o.logTail)
	return o
}

func (x *executor) path(p string) string { return filepath.Join(x.root, p) }

func (x *executor) files(ctx context.Context, files []plan.File) error {
	units := false
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		mode, err := strconv.ParseUint(f.Mode, 8, 32)
		if err != nil {
			return fmt.Errorf("%s: mode: %w", f.Path, err)
		}
		if _, err := writeFile(x.path(f.Path), f.Content, fileMode(mode)); err != nil {
			return err
		}
		for _, dir := range unitDirs {
			units = units || strings.HasPrefix(f.Path, dir)
		}
	}
	if !units {
		return nil
	}
	// Even when nothing changed: a crash may have come between the change and this.
	_, err := x.run(ctx, systemctlQuick, Cmd{Argv: []string{"systemctl", "daemon-reload"}})
	return err
}

// command runs a command unless a guard says that it is done. Guards are asked
// before the cleanup: a run that was cut off after it had done its work is done.
func (x *executor) command(ctx context.Context, c *plan.Command, cleanup bool) outcome {
	if c.Creates != "" {
		if _, err := os.Lstat(x.path(c.Creates)); err == nil {
			return outcome{}
		}
	}
	if len(c.Unless) > 0 {
		// Any failure of the guard means "not done"; the command says what is wrong.
		if _, err := x.run(ctx, guardTimeout, Cmd{Argv: c.Unless, Env: c.Env}); err == nil {
			return outcome{}
		} else if ctx.Err() != nil {
			return outcome{err: ctx.Err()}
		}
	}
	timeout := seconds(c.TimeoutSeconds)
	if cleanup && len(c.Cleanup) > 0 {
		out, err := x.run(ctx, timeout, Cmd{Argv: c.Cleanup, Env: c.Env})
		if err != nil {
			return outcome{err: fmt.Errorf("cleanup before another try: %w", err), detail: lastLine(out.Tail), logTail: out.Tail}
		}
	}
	out, err := x.run(ctx, timeout, Cmd{Argv: c.Argv, Env: c.Env, Stdin: c.Stdin})
	if err != nil {
		return outcome{err: err, detail: lastLine(out.Tail), logTail: out.Tail}
	}
	var o outcome
	if c.Report {
		o.output = out.Stdout
	}
	return o
}

func (x *executor) service(ctx context.Context, v *plan.Service) outcome {
	if v.Enable {
		if out, err := x.run(ctx, systemctlQuick, Cmd{Argv: []string{"systemctl", "enable", v.Unit}}); err != nil {
			return outcome{err: err, detail: lastLine(out.Tail), logTail: out.Tail}
		}
	}
	action := map[string]string{"started": "start", "restarted": "restart", "stopped": "stop"}[v.State]
	out, err := x.run(ctx, serviceTimeout, Cmd{Argv: []string{"systemctl", action, v.Unit}})
	if err != nil {
		return outcome{err: err, detail: lastLine(out.Tail), logTail: out.Tail}
	}
	return outcome{}
}

// run runs a program with a deadline. Its error names the program, no more of
// its command line.
func (x *executor) run(ctx context.Context, timeout time.Duration, c Cmd) (Output, error) {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out, err := x.runner.Run(limited, c)
	if err == nil {
		return out, nil
	}
	name := filepath.Base(c.Argv[0])
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return out, fmt.Errorf("%s: not done after %s, stopped", name, timeout)
	}
	return out, fmt.Errorf("%s: %w", name, err)
}

func seconds(n int) time.Duration {
	if n == 0 {
		return defaultTimeout
	}
	return time.Duration(n) * time.Second
}

// lastLine is the last line that says something: most often the reason.
func lastLine(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = strings.TrimSpace(s[i+1:])
	}
	const limit = 300
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
