package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// box is a devbox of the tests' own, beside any other on the machine.
type box struct {
	dir, pleiad, image string
}

const (
	boxBridge  = "ple2e0"
	boxAddress = "100.64.40.1/24"
	boxPort    = "19443"
)

// env reads what `make e2e` built; without it there is nothing to test.
func env(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is not set: run these tests with `make e2e`", name)
	}
	return v
}

// newBox brings up two hosts and a server with all an operator sets up, and no cluster.
func newBox(t *testing.T) *box {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "pl") // short: LXD's sockets are below it
	if err != nil {
		t.Fatal(err)
	}
	b := &box{
		dir: dir, pleiad: env(t, "PLEIAD"), image: env(t, "PLEIAD_NODE_IMAGE"),
	}
	t.Cleanup(func() {
		if t.Failed() {
			if log, err := os.ReadFile(filepath.Join(dir, "server.log")); err == nil {
				t.Logf("end of the server's log:\n%s", tail(log, 4000))
			}
		}
		b.down(t)
	})
	b.up(t)
	return b
}

func (b *box) up(t *testing.T) string {
	t.Helper()
	return b.run(t, 10*time.Minute, "devbox", "up", "--dir", b.dir, "--hosts", "2", "--bridge", boxBridge,
		"--address", boxAddress, "--port", boxPort, "--image", b.image, "--cluster", "")
}

func (b *box) down(t *testing.T) {
	t.Helper()
	b.run(t, 5*time.Minute, "devbox", "down", "--dir", b.dir)
	if _, err := os.Stat(b.dir); err == nil {
		t.Errorf("devbox down left %s", b.dir)
	}
	if out, err := exec.Command("ip", "link", "show", boxBridge).CombinedOutput(); err == nil {
		t.Errorf("devbox down left the bridge: %s", out)
	}
}

// try runs a command of ours and returns what it printed.
func (b *box) try(t *testing.T, timeout time.Duration, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	if t.Context().Err() != nil { // cleaning up
		ctx, cancel = context.WithTimeout(context.Background(), timeout)
	}
	defer cancel()
	asked := args
	if args[0] != "devbox" && !slices.Contains(args, "-o") {
		asked = append([]string{"-n"}, args...) // nobody is there to answer questions
	}
	cmd := exec.CommandContext(ctx, b.pleiad, asked...)
	cmd.Env = append(os.Environ(), "PLEIAD_CONFIG="+filepath.Join(b.dir, "config.json"))
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	began := time.Now()
	err = cmd.Run()
	t.Logf("pleiad %s: %.1f s", strings.Join(args, " "), time.Since(began).Seconds())
	return out.String(), errOut.String(), err
}

func (b *box) run(t *testing.T, timeout time.Duration, args ...string) string {
	t.Helper()
	stdout, stderr, err := b.try(t, timeout, args...)
	if err != nil {
		t.Fatalf("pleiad %s: %v\n%s\n%s", strings.Join(args, " "), err, tail([]byte(stdout), 4000), stderr)
	}
	return stdout
}

// refuse runs a command that must fail and say why.
func (b *box) refuse(t *testing.T, says string, args ...string) {
	t.Helper()
	stdout, stderr, err := b.try(t, 2*time.Minute, args...)
	if err == nil {
		t.Errorf("pleiad %s succeeded:\n%s", strings.Join(args, " "), stdout)
	} else if !strings.Contains(stderr, says) {
		t.Errorf("pleiad %s says:\n%s\nwant %q in it", strings.Join(args, " "), stderr, says)
	}
}

// get decodes a command's JSON.
func get[T any](t *testing.T, b *box, args ...string) T {
	t.Helper()
	var v T
	out := b.run(t, time.Minute, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("pleiad %s: %v in\n%s", strings.Join(args, " "), err, out)
	}
	return v
}

// kube runs kubectl against a cluster.
func (b *box) kube(t *testing.T, kubeconfig string, args ...string) string {
	t.Helper()
	out, err := b.tryKube(t, kubeconfig, "", args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (b *box) tryKube(t *testing.T, kubeconfig, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, "bin", "kubectl"), append([]string{"--kubeconfig", kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// eventually asks again until ok says yes; what it waits for has no event to await from outside.
func eventually(t *testing.T, what string, timeout time.Duration, ok func() (bool, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		done, state := ok()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %s; at last: %s", what, timeout, state)
		}
	}
}

func tail(b []byte, n int) string {
	if len(b) > n {
		return fmt.Sprintf("…%s", b[len(b)-n:])
	}
	return string(b)
}
