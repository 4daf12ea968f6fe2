package lxdhost

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sweep removes what a dead or disobedient daemon left on the machine. All of it
// is found by the directory or the bridge it belongs to.
// cables are network interfaces of its containers, as they were before the daemon was stopped.
func sweep(ctx context.Context, c Config, cables []string) error {
	containers, err := containerNames(c.lxdDir())
	if err != nil {
		return err
	}
	if err := stopProcesses(ctx, c.lxdDir()); err != nil {
		return err
	}
	removeCgroups(containers)
	var failed []error
	for _, name := range cables {
		failed = append(failed, deleteLink(ctx, name))
	}
	if c.CreateBridge {
		failed = append(failed, deleteLink(ctx, c.Bridge), removeRules(ctx, c.Bridge))
	}
	failed = append(failed, unmountAll(c.Dir), detachLoops(c.Dir))
	return errors.Join(failed...)
}

// stopProcesses ends the daemon, its helpers, and containers with their monitors.
func stopProcesses(ctx context.Context, lxdDir string) error {
	processes, err := processesOf(lxdDir)
	if err != nil {
		return err
	}
	var failed []error
	for _, p := range processes {
		// A monitor's child is the container's first process, with which all in it end. Killing the
		// monitor alone would leave it running.
		for _, child := range p.Children() {
			failed = append(failed, child.Stop(ctx, syscall.SIGKILL, 5*time.Second))
		}
		failed = append(failed, p.Stop(ctx, syscall.SIGTERM, 2*time.Second))
	}
	return errors.Join(failed...)
}

func containerNames(lxdDir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(lxdDir, "containers"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// removeCgroups removes the groups of killed containers. The kernel refuses to remove
// a group that has processes, so another LXD's container of the same name is safe;
// what it refuses costs nothing and is left.
func removeCgroups(containers []string) {
	for _, name := range containers {
		removeGroups("lxc.*." + name)
	}
}

// removeGroups removes groups by pattern, in every hierarchy of control groups.
func removeGroups(pattern string) {
	for _, root := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		groups, err := filepath.Glob(root + pattern)
		if err != nil {
			continue
		}
		for _, g := range groups {
			removeGroup(g)
		}
	}
}

func removeGroup(root string) {
	var dirs []string
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		_ = syscall.Rmdir(d)
	}
}

// cablesOf lists the ends on our side of the virtual cables on a bridge. Those of a
// container that failed to start stay behind when it and the bridge are gone.
func cablesOf(bridge string) []string {
	ends, err := filepath.Glob("/sys/class/net/" + bridge + "/brif/veth*")
	if err != nil {
		return nil
	}
	for i := range ends {
		ends[i] = filepath.Base(ends[i])
	}
	return ends
}

// deleteLink removes a network interface; one that is gone is no error.
func deleteLink(ctx context.Context, name string) error {
	if _, err := net.InterfaceByName(name); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "ip", "link", "delete", name).CombinedOutput(); err != nil {
		if _, gone := net.InterfaceByName(name); gone != nil {
			return nil
		}
		return fmt.Errorf("delete interface %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// mountsUnder lists mount points at or below a directory, in the order they were mounted.
func mountsUnder(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	octal := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var found []string
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 5 {
			continue
		}
		at := octal.Replace(fields[4])
		if at == dir || strings.HasPrefix(at, dir+"/") {
			found = append(found, at)
		}
	}
	return found, scanner.Err()
}

func unmountAll(dir string) error {
	// Mounts can be stacked and propagate; each round removes what it sees.
	const rounds = 5
	for range rounds {
		mounts, err := mountsUnder(dir)
		if err != nil || len(mounts) == 0 {
			return err
		}
		for _, at := range slices.Backward(mounts) {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("unmount %s: %w", at, err)
			}
		}
	}
	return fmt.Errorf("mounts below %s come back", dir)
}

// detachLoops frees loop devices whose file is in the directory.
func detachLoops(dir string) error {
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	for _, b := range backing {
		data, err := os.ReadFile(b)
		if err != nil || !strings.HasPrefix(string(data), dir+"/") {
			continue
		}
		device := filepath.Join("/dev", strings.Split(b, "/")[3])
		f, err := os.Open(device)
		if err != nil {
			return err
		}
		_, err = unix.IoctlRetInt(int(f.Fd()), unix.LOOP_CLR_FD)
		f.Close()
		if err != nil && !errors.Is(err, unix.ENXIO) {
			return fmt.Errorf("detach %s: %w", device, err)
		}
	}
	return nil
}
