package lxdhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pleiad/pleiad/internal/devbox/process"
)

// machineDir is gone after a reboot, like everything it tells of.
const machineDir = "/run/pleiad-lxdhost"

const (
	lxcfsMount       = "/var/lib/lxcfs"
	sysctlForward    = "net/ipv4/ip_forward" // LXD turns it on for a NAT bridge
	sysctlInotify    = "fs/inotify/max_user_instances"
	sysctlInotifyKey = "fs.inotify.max_user_instances"
)

// machine is what all daemons of ours on this machine share.
type machine struct {
	// Users are the directories of the daemons.
	Users []string `json:"users"`
	// LXCFS is the lxcfs we started; zero when the machine had one.
	LXCFS process.Process `json:"lxcfs"`
	// Before holds kernel settings as they were before the first of us.
	Before map[string]string `json:"before"`
	// Set holds those that we set ourselves, as we set them.
	Set map[string]string `json:"set"`
}

// withMachine runs change on the register, locked against other processes, and writes it back,
// whether change failed or not: what was done must be known to be undone.
func withMachine(change func(*machine) error) error {
	lock, err := lockMachine()
	if err != nil {
		return err
	}
	defer lock.Close()
	file := filepath.Join(machineDir, "machine.json")
	var m machine
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(data, &m); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	failed := change(&m)
	if len(m.Users) == 0 && m.LXCFS.PID == 0 && len(m.Before) == 0 {
		return errors.Join(failed, os.RemoveAll(machineDir))
	}
	return errors.Join(failed, writeJSON(file, m))
}

// lockMachine makes and locks the register's directory. The last to leave removes it, so
// whoever waited for the lock makes sure that it is still the one of that name.
func lockMachine() (*os.File, error) {
	for {
		if err := os.MkdirAll(machineDir, 0o700); err != nil {
			return nil, err
		}
		dir, err := os.Open(machineDir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", machineDir, err), dir.Close())
		}
		locked, err := dir.Stat()
		if err != nil {
			return nil, errors.Join(err, dir.Close())
		}
		if named, err := os.Stat(machineDir); err == nil && os.SameFile(locked, named) {
			return dir, nil
		}
		dir.Close()
	}
}

// join makes the machine ready for a daemon.
func join(ctx context.Context, c Config, progress func(string)) error {
	return withMachine(func(m *machine) error {
		if m.Before == nil {
			m.Before, m.Set = map[string]string{}, map[string]string{}
		}
		if !slices.Contains(m.Users, c.Dir) {
			m.Users = append(m.Users, c.Dir)
		}
		if err := m.remember(sysctlForward); err != nil {
			return err
		}
		if err := m.raiseInotify(c.InotifyInstances, progress); err != nil {
			return err
		}
		return m.startLXCFS(ctx, progress)
	})
}

// leave gives up a daemon's part, and puts everything back with the last one, as
// far as nobody else has come to rely on it.
func leave(ctx context.Context, dir string, progress func(string)) error {
	return withMachine(func(m *machine) error {
		m.Users = slices.DeleteFunc(m.Users, func(u string) bool { return u == dir })
		if len(m.Users) > 0 {
			return nil
		}
		if others := othersHere(); others != "" {
			progress("leaving lxcfs and kernel settings as they are: " + others + " on this machine may need them")
			*m = machine{}
			return nil
		}
		var failed []error
		for key, value := range m.Before {
			if err := m.restore(key, value); err != nil {
				failed = append(failed, err)
				continue
			}
			delete(m.Before, key)
		}
		if m.LXCFS.PID != 0 {
			failed = append(failed, m.stopLXCFS(ctx))
		}
		// LXC makes these once for all containers.
		removeGroups("lxc.pivot")
		return errors.Join(failed...)
	})
}

// othersHere says who else would suffer from our putting things back; empty if nobody.
func othersHere() string {
	if n := containerMonitors(); n > 0 {
		return fmt.Sprintf("%d other containers", n)
	}
	if bridges, err := filepath.Glob("/sys/class/net/*/bridge"); err == nil && len(bridges) > 0 {
		return "another bridge"
	}
	return ""
}

func (m *machine) remember(key string) error {
	if _, ok := m.Before[key]; ok {
		return nil
	}
	value, err := readSysctl(key)
	if err == nil {
		m.Before[key] = value
	}
	return err
}

// restore puts a setting back, unless somebody has set it to a value of his own since.
func (m *machine) restore(key, before string) error {
	now, err := readSysctl(key)
	if err != nil {
		return err
	}
	if ours, ok := m.Set[key]; ok && now != ours {
		return nil
	}
	return writeSysctl(key, before)
}

func (m *machine) raiseInotify(want int64, progress func(string)) error {
	now, err := readSysctl(sysctlInotify)
	if err != nil {
		return err
	}
	have, err := strconv.ParseInt(now, 10, 64)
	if err != nil {
		return fmt.Errorf("%s: %w", sysctlInotifyKey, err)
	}
	if have >= want {
		return nil
	}
	if err := m.remember(sysctlInotify); err != nil {
		return err
	}
	progress(fmt.Sprintf("raising %s of this machine from %d to %d, until the box is taken down", sysctlInotifyKey, have, want))
	m.Set[sysctlInotify] = strconv.FormatInt(want, 10)
	return writeSysctl(sysctlInotify, m.Set[sysctlInotify])
}

// startLXCFS runs lxcfs where the machine does not: it shows containers their own memory and CPUs.
func (m *machine) startLXCFS(ctx context.Context, progress func(string)) error {
	mounts, err := mountsUnder(lxcfsMount)
	if err != nil || (len(mounts) > 0 && (m.LXCFS.PID == 0 || m.LXCFS.Alive())) {
		return err
	}
	// One that was killed leaves a mount that answers nothing.
	for _, at := range mounts {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
	}
	if err := os.MkdirAll(lxcfsMount, 0o755); err != nil {
		return err
	}
	progress("starting lxcfs")
	log := filepath.Join(machineDir, "lxcfs.log")
	m.LXCFS, err = process.Start(log, nil, "lxcfs", "--foreground", "--pidfile="+filepath.Join(machineDir, "lxcfs.pid"), lxcfsMount)
	if err != nil {
		return fmt.Errorf("start lxcfs: %w", err)
	}
	return process.WaitFor(ctx, "lxcfs", 10*time.Second, func() (bool, error) {
		if !m.LXCFS.Alive() {
			return false, fmt.Errorf("lxcfs ended: %s", lastLines(log))
		}
		mounts, err := mountsUnder(lxcfsMount)
		return len(mounts) > 0, err
	})
}

func (m *machine) stopLXCFS(ctx context.Context) error {
	if err := m.LXCFS.Stop(ctx, unix.SIGTERM, 5*time.Second); err != nil {
		return err
	}
	m.LXCFS = process.Process{}
	mounts, err := mountsUnder(lxcfsMount)
	if err != nil {
		return err
	}
	for _, at := range mounts {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
	}
	return nil
}

// containerMonitors counts running containers of any LXC, LXD or Incus.
func containerMonitors() int {
	n := 0
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0
	}
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(data), "[lxc monitor]") {
			n++
		}
	}
	return n
}

func readSysctl(key string) (string, error) {
	data, err := os.ReadFile(filepath.Join("/proc/sys", key))
	return strings.TrimSpace(string(data)), err
}

func writeSysctl(key, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644)
}

// writeJSON replaces a file of mode 0600 as a whole.
func writeJSON(file string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
