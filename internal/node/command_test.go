package node

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/plan"
)

func runNow(t *testing.T, c Cmd) (Output, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return processes{}.Run(ctx, c)
}

func shell(script string) Cmd { return Cmd{Argv: []string{"sh", "-c", script}} }

func TestProcessesAndTheirOutput(t *testing.T) {
	c := shell(`read line; echo "out $line $EXTRA"; echo err >&2; printf 'a\033[31mb\000\377c\n'`)
	c.Stdin, c.Env = []byte("input\n"), []string{"EXTRA=more"}
	out, err := runNow(t, c)
	if err != nil || out.Stdout != "out input more\na[31mb?c\n" || !strings.Contains(out.Tail, "err\n") {
		t.Errorf("%q, %v", out, err)
	}

	out, err = runNow(t, shell("echo why >&2; exit 3"))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || out.Stdout != "" || out.Tail != "why\n" {
		t.Errorf("%q, %v", out, err)
	}

	if _, err = runNow(t, Cmd{Argv: []string{"/no/such/program"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing program: %v", err)
	}

	// The beginning of the output is reported, the end explains a failure.
	out, err = runNow(t, shell(`i=0; while [ $i -lt 9000 ]; do echo "line $i"; i=$((i+1)); done`))
	if err != nil || len(out.Stdout) != plan.MaxOutput || len(out.Tail) > plan.MaxLogTail || len(out.Tail) < plan.MaxLogTail-20 {
		t.Fatalf("%d and %d bytes, %v", len(out.Stdout), len(out.Tail), err)
	}
	if !strings.HasPrefix(out.Stdout, "line 0\n") || !strings.HasSuffix(out.Tail, "line 8999\n") || !strings.HasPrefix(out.Tail, "line ") {
		t.Error("the wrong ends were kept")
	}
}

// A daemon that a command leaves behind holds its output open; the command has
// ended all the same.
func TestACommandThatStartsADaemonEnds(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	out, err := runNow(t, shell("sleep 60 & echo $! >"+pidFile+"; echo started"))
	if err != nil || out.Stdout != "started\n" {
		t.Errorf("%q, %v", out, err)
	}
	kill := "kill " + strings.TrimSpace(string(must(os.ReadFile(pidFile))(t)))
	if _, err := runNow(t, shell(kill)); err != nil {
		t.Errorf("the daemon did not live on: %v", err)
	}
}

// Stopping a command stops its children. All of them hold the writing end of a
// FIFO: it reads as ended when the last one is gone.
func TestStoppingACommandStopsItsChildren(t *testing.T) {
	for name, script := range map[string]string{
		"willing":   `(echo child >&3; sleep 1000) & echo parent >&3; wait`,
		"unwilling": `(trap "" TERM; echo child >&3; while :; do sleep 1000; done) & echo parent >&3; exec sleep 1000`,
	} {
		t.Run(name, func(t *testing.T) {
			fifo := filepath.Join(t.TempDir(), "fifo")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := processes{}.Run(ctx, shell("exec 3>"+fifo+"; "+script))
				ended <- err
			}()
			f := must(os.Open(fifo))(t) // waits for the writer
			defer f.Close()
			words := make([]byte, len("child\nparent\n"))
			if _, err := io.ReadFull(f, words); err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if rest, err := io.ReadAll(f); err != nil || len(rest) != 0 {
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

func TestNothingStartsAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mark := filepath.Join(t.TempDir(), "mark")
	if _, err := (processes{}).Run(ctx, shell("touch "+mark)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("it ran")
	}
}

func TestLastBytes(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"short", 10, "short"},
		{"one\ntwo\nthree", 9, "three"},
		{"no line at all", 6, "at all"},
		{"one\ntwo\n", 4, "two\n"},
		{"ééé", 3, "é"},
	} {
		if got := lastBytes(c.in, c.limit); got != c.want {
			t.Errorf("lastBytes(%q, %d) = %q", c.in, c.limit, got)
		}
	}
	if got := lastLine("a\n  why \n\n"); got != "why" {
		t.Errorf("lastLine = %q", got)
	}
	if got := lastLine(strings.Repeat("é", 1000)); len(got) > 310 || !strings.HasSuffix(got, "…") {
		t.Errorf("lastLine of a long one has %d bytes", len(got))
	}
}
