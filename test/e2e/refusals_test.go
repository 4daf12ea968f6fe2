package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/devbox/process"
	"github.com/pleiad/pleiad/internal/model"
)

// refusals asks for what cannot be had; each is refused at once, says why, and leaves nothing.
func refusals(t *testing.T, b *box) {
	notImage := filepath.Join(t.TempDir(), "not-an-image")
	if err := os.WriteFile(notImage, []byte(strings.Repeat("not an image ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	truncated := filepath.Join(t.TempDir(), "truncated")
	whole, err := os.ReadFile(b.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(truncated, whole[:len(whole)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	whole = nil
	b.run(t, time.Minute, "flavor", "create", "-n", "huge", "-k", "vm", "-c", "vm.cpu 1 COUNT, vm.memory 4000 GB")
	b.run(t, time.Minute, "subnet", "create", "-n", "narrow", "-p", boxBridge, "--cidr", "100.64.41.0/24", "--range", "100.64.41.7-100.64.41.8")
	b.run(t, time.Minute, "resource-ticket", "create", "-n", "small", "-l", "vm.memory 6143 MB, vm.cpu 100 COUNT")
	b.run(t, time.Minute, "project", "create", "-n", "small", "-r", "small", "-p", "100")
	b.run(t, time.Minute, "resource-ticket", "create", "-n", "vast", "-l", "vm.memory 100000 GB")
	b.run(t, time.Minute, "project", "create", "-n", "vast", "-r", "vast", "-p", "100")

	create := func(args ...string) []string {
		return append([]string{"cluster", "create", "-n", "refused", "-k", "KUBERNETES"}, args...)
	}
	for name, tc := range map[string]struct {
		says string
		args []string
	}{
		"no control plane":                   {"control plane", create("--control-plane", "0")},
		"even control plane":                 {"must be 1, 3 or 5", create("--control-plane", "2")},
		"too many workers":                   {"1000", create("-c", "1001")},
		"unknown type":                       {"type must be one of", []string{"cluster", "create", "-n", "refused", "-k", "MAINFRAME"}},
		"unknown version":                    {"v9.9.9", create("--version", "v9.9.9")},
		"pods overlap services":              {"overlap", create("--pod-cidr", "10.96.0.0/16")},
		"pods overlap the subnet":            {"overlap", create("--pod-cidr", "100.64.0.0/16")},
		"bad name":                           {"must be 1 to 63 characters", []string{"cluster", "create", "-n", "9lives", "-k", "KUBERNETES"}},
		"quota by one MB":                    {"short of 1 MB", create("-c", "2", "-p", "small")},
		"fits no host":                       {"memory", create("-c", "1", "-p", "vast", "--worker-vm-flavor", "huge")},
		"unknown flavor":                     {"no flavor", create("--vm_flavor", "nonsuch")},
		"more addresses than the subnet has": {"2 free addresses of 2", create("-c", "2", "-w", "narrow")},
		"not an image":                       {"not a Pleiad node image", []string{"image", "create", notImage, "-n", "bad", "-i", "EAGER"}},
		"truncated image":                    {"truncated", []string{"image", "create", truncated, "-n", "bad", "-i", "EAGER"}},
		"host refuses":                       {"HostUnreachable", []string{"host", "create", "--address", "127.0.0.1:1", "--tag", "CLOUD"}},
		"host is no LXD":                     {"HostDriver", []string{"host", "create", "--address", strings.TrimPrefix(b.url(t), "https://"), "--tag", "CLOUD"}},
		"unknown cluster":                    {"nonsuch", []string{"cluster", "show", "nonsuch"}},
		"host with no name":                  {"address", []string{"host", "create", "--address", "no such host", "--tag", "CLOUD"}},
	} {
		t.Run(name, func(t *testing.T) { b.refuse(t, tc.says, tc.args...) })
	}
	if c := get[[]model.Cluster](t, b, "cluster", "list"); len(c) != 0 {
		t.Errorf("refused clusters were made: %v", c)
	}
	if h := get[[]model.Host](t, b, "host", "list"); len(h) != 2 {
		t.Errorf("there are %d hosts, want 2", len(h))
	}
	if i := get[[]model.Image](t, b, "image", "list"); len(i) != 1 {
		t.Errorf("there are %d images, want 1", len(i))
	}
	if left, err := filepath.Glob(filepath.Join(b.dir, "server", "images", ".partial-*")); err != nil || len(left) != 0 {
		t.Errorf("uploads left behind: %v %v", left, err)
	}
	t.Run("wrong token", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), b.pleiad, "tenant", "list")
		cmd.Env = append(os.Environ(), "PLEIAD_CONFIG="+filepath.Join(b.dir, "config.json"), "PLEIAD_TOKEN=eyJhbGciOiJub25lIn0.e30.")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "InvalidAuthToken") {
			t.Errorf("a wrong token: %v\n%s", err, out)
		}
	})
}

// url is where the box's server answers.
func (b *box) url(t *testing.T) string {
	t.Helper()
	return b.state(t).URL
}

type boxState struct {
	Server process.Process `json:"server"`
	URL    string          `json:"url"`
}

func (b *box) state(t *testing.T) (st boxState) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.dir, "state.json"))
	if err == nil {
		err = json.Unmarshal(raw, &st)
	}
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// restartServer kills the server without a word, and has it started again.
func (b *box) restartServer(t *testing.T) {
	t.Helper()
	if err := b.state(t).Server.Stop(t.Context(), syscall.SIGKILL, time.Minute); err != nil {
		t.Fatal(err)
	}
	b.up(t)
}

// instances lists what runs on a host, as the host has it.
func (b *box) instances(t *testing.T, host int) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "lxc", "list", "--format", "csv", "-c", "n")
	cmd.Env = append(os.Environ(), "LXD_DIR="+filepath.Join(b.dir, "h"+string(rune('0'+host)), "lxd"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("lxc list: %v", err)
	}
	return strings.TrimSpace(string(out))
}
