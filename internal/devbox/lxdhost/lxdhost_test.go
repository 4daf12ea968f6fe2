package lxdhost_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pleiad/pleiad/internal/devbox/lxdhost"
	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/hypervisor/lxd"
	"github.com/pleiad/pleiad/internal/hypervisor/lxd/lxdtest"
	"github.com/pleiad/pleiad/internal/model"
)

// TestUpAndDown brings two daemons up on one bridge, with a container on each, and takes them down
// again: nothing of them is left.
func TestUpAndDown(t *testing.T) {
	image := lxdtest.BuildImage(t)
	shared := shared(t)
	first := lxdtest.StartHost(t, "100.64.212.1/24")
	if !first.Started || first.Fingerprint == "" || first.PoolDriver == "" {
		t.Errorf("started: %+v", first.Daemon)
	}

	start := time.Now()
	again, err := lxdhost.Up(t.Context(), first.Config, nil)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("finding it running took %s", took)
	}
	if again.Started || again.PID != first.PID || again.Fingerprint != first.Fingerprint {
		t.Errorf("second start: %+v, first: %+v", again, first.Daemon)
	}
	if found, err := lxdhost.Find(t.Context(), first.Config.Dir); err != nil || found.PID != first.PID {
		t.Errorf("find: %+v, %v", found, err)
	}
	other := first.Config
	other.HTTPSAddress = "127.0.0.1:1"
	if _, err := lxdhost.Up(t.Context(), other, nil); err == nil || !strings.Contains(err.Error(), "other settings") {
		t.Errorf("start with other settings: %v", err)
	}
	overlapping := first.Config
	overlapping.Dir, overlapping.Bridge = t.TempDir(), "pltestx"
	if _, err := lxdhost.Up(t.Context(), overlapping, nil); err == nil || !strings.Contains(err.Error(), "overlaps") {
		t.Errorf("start with a network that overlaps: %v", err)
	}

	second := lxdtest.StartSecond(t, first)
	a := runVM(t, first, image, "100.64.212.10")
	b := runVM(t, second, image, "")
	reach(t, a)
	reach(t, b)

	// The first goes while the second still has a container on its bridge.
	for _, h := range []lxdtest.Host{first, second} {
		traces := watch(t, h)
		if err := lxdhost.Down(t.Context(), h.Config.Dir, nil); err != nil {
			t.Fatal(err)
		}
		traces(t)
		if err := lxdhost.Down(t.Context(), h.Config.Dir, nil); err != nil {
			t.Errorf("down again: %v", err)
		}
		if _, err := lxdhost.Find(t.Context(), h.Config.Dir); !errors.Is(err, lxdhost.ErrNotRunning) {
			t.Errorf("find after down: %v", err)
		}
	}
	shared(t)
}

// TestCrash kills the daemon: the container goes on, the daemon comes back to it, and when
// it is killed again, Down removes all of it without its help.
func TestCrash(t *testing.T) {
	image := lxdtest.BuildImage(t)
	shared := shared(t)
	host := lxdtest.StartHost(t, "100.64.213.1/24")
	address := runVM(t, host, image, "100.64.213.10")
	kill(t, host.Daemon)
	if _, err := lxdhost.Find(t.Context(), host.Config.Dir); !errors.Is(err, lxdhost.ErrNotRunning) {
		t.Errorf("find after a crash: %v", err)
	}
	again, err := lxdhost.Up(t.Context(), host.Config, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	if !again.Started || again.PID == host.PID || again.Fingerprint != host.Fingerprint {
		t.Errorf("started again: %+v, before: %+v", again, host.Daemon)
	}
	reach(t, address)
	kill(t, again)
	traces := watch(t, host)
	if err := lxdhost.Down(t.Context(), host.Config.Dir, nil); err != nil {
		t.Fatal(err)
	}
	traces(t)
	shared(t)
}

// TestDownIsCareful has Down refuse what it cannot know to be ours.
func TestDownIsCareful(t *testing.T) {
	dir := t.TempDir()
	if err := lxdhost.Down(t.Context(), filepath.Join(dir, "nothing"), nil); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "lxd"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := lxdhost.Down(t.Context(), dir, nil); err == nil {
		t.Error("a directory without state was taken for ours")
	}
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(`{"config":{"Dir":"/elsewhere"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := lxdhost.Down(t.Context(), dir, nil); err == nil {
		t.Error("a directory with the state of another was taken for ours")
	}
	if _, err := os.Stat(filepath.Join(dir, "lxd")); err != nil {
		t.Errorf("what was refused was touched: %v", err)
	}
}

// runVM runs a container and returns the address it got.
func runVM(t *testing.T, h lxdtest.Host, image lxdtest.Image, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, _, err := lxd.Connector{}.Connect(ctx, hypervisor.Target{Address: "unix:" + h.Socket})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	part := func(b []byte) hypervisor.Part {
		return hypervisor.Part{Reader: bytes.NewReader(b), Size: int64(len(b))}
	}
	id := uuid.NewString()
	err = d.EnsureImage(ctx, hypervisor.Image{ID: id, SHA256: image.SHA256}, func() (hypervisor.Payload, error) {
		return hypervisor.Payload{Parts: map[string]hypervisor.Part{"lxd-metadata": part(image.Metadata), "lxd-squashfs": part(image.Squashfs)}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	spec := hypervisor.VMSpec{ID: id, Name: "box", ImageID: id, Networks: []model.VMNetwork{{Network: h.Config.Bridge, IPAddress: address}}}
	if _, err := d.CreateVM(ctx, spec); err != nil {
		t.Fatal(err)
	}
	if err := d.StartVM(ctx, id); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		vm, err := d.VM(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if len(vm.Addresses) > 0 {
			return vm.Addresses[0]
		}
		select {
		case <-ctx.Done():
			t.Fatal("the container got no address")
		case <-tick.C:
		}
	}
}

// reach makes sure that a container answers this machine: a port nobody listens on refuses.
func reach(t *testing.T, address string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, "9"), 10*time.Second)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("container at %s does not answer: %v", address, err)
	}
}

func kill(t *testing.T, d *lxdhost.Daemon) {
	t.Helper()
	p, err := os.FindProcess(d.PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	// It is our child here, and would stay as a zombie.
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
}

// watch notes what belongs to a host, makes sure that it sees it, and returns a test that none of it is left.
// It looks at that host's things alone: other tests and people may use LXD on this machine at the same time.
func watch(t *testing.T, h lxdtest.Host) func(t *testing.T) {
	t.Helper()
	dir := h.Config.Dir
	names, err := os.ReadDir(filepath.Join(dir, "lxd", "containers"))
	if err != nil {
		t.Fatal(err)
	}
	cables := cables(t, h.Config.Bridge)
	look := func() map[string][]string {
		found := map[string][]string{}
		found["mounts"], err = lxdhost.MountsUnder(dir)
		if err != nil {
			t.Fatal(err)
		}
		found["processes"] = grepFiles(t, "/proc/[0-9]*/cmdline", dir+"/")
		found["loop devices"] = grepFiles(t, "/sys/block/loop*/loop/backing_file", dir+"/")
		if _, err := os.Stat(dir); err == nil {
			found["files"] = []string{dir}
		}
		for _, n := range names {
			groups, err := filepath.Glob("/sys/fs/cgroup/*/lxc.*." + n.Name())
			if err != nil {
				t.Fatal(err)
			}
			found["control groups"] = append(found["control groups"], groups...)
		}
		if h.Config.CreateBridge {
			rules, err := exec.Command("nft", "list", "ruleset").Output()
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(rules)) {
				if strings.Contains(line, h.Config.Bridge) {
					found["firewall rules"] = append(found["firewall rules"], line)
				}
			}
			interfaces := append([]string{h.Config.Bridge}, cables...)
			for _, name := range interfaces {
				if _, err := net.InterfaceByName(name); err == nil {
					found["interfaces"] = append(found["interfaces"], name)
				}
			}
		}
		return found
	}
	if before := look(); len(before["mounts"]) == 0 || len(before["processes"]) == 0 || len(before["files"]) == 0 ||
		(h.Config.CreateBridge && (len(before["firewall rules"]) == 0 || len(before["interfaces"]) < 2)) {
		t.Fatalf("the test does not see what it is to look for: %v", before)
	}
	return func(t *testing.T) {
		t.Helper()
		for what, list := range look() {
			if len(list) > 0 {
				t.Errorf("%s left: %q", what, list)
			}
		}
	}
}

func cables(t *testing.T, bridge string) []string {
	t.Helper()
	ends, err := filepath.Glob("/sys/class/net/" + bridge + "/brif/*")
	if err != nil {
		t.Fatal(err)
	}
	for i := range ends {
		ends[i] = filepath.Base(ends[i])
	}
	return ends
}

func grepFiles(t *testing.T, pattern, text string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(f string) bool {
		data, err := os.ReadFile(f)
		return err != nil || !bytes.Contains(data, []byte(text))
	})
}

// shared notes what daemons on a machine share, and returns a test that it is as before. It says
// something only where nobody else has, or had, a daemon or a bridge.
func shared(t *testing.T) func(t *testing.T) {
	t.Helper()
	look := func() (state string, alone bool) {
		if _, err := os.Stat(lxdhost.MachineDir); err == nil || lxdhost.OthersHere() != "" {
			return "", false
		}
		mounts, err := lxdhost.MountsUnder("/var/lib/lxcfs")
		if err != nil {
			t.Fatal(err)
		}
		state = fmt.Sprint(mounts)
		for _, f := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/fs/inotify/max_user_instances"} {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			state += fmt.Sprintf(" %s=%s", f, bytes.TrimSpace(data))
		}
		return state, true
	}
	before, alone := look()
	return func(t *testing.T) {
		t.Helper()
		if after, still := look(); alone && still && after != before {
			t.Errorf("the machine was %s and is %s", before, after)
		}
	}
}

// TestJoinNothing has the second host's bridge missing.
func TestJoinNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("needs LXD")
	}
	dir, err := os.MkdirTemp("", "pllxd")
	if err != nil {
		t.Fatal(err)
	}
	c := lxdhost.Config{Dir: dir, Bridge: "plnothere", Address: netip.Prefix{}}
	if _, err := lxdhost.Up(t.Context(), c, nil); err == nil || !strings.Contains(err.Error(), "no bridge plnothere") {
		t.Errorf("error %v", err)
	}
	// What came up half-way goes down like the rest.
	if err := lxdhost.Down(t.Context(), dir, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left", dir)
	}
}
