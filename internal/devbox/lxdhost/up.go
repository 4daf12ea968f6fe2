package lxdhost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	incus "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"github.com/pleiad/pleiad/internal/devbox/process"
)

// ErrNotRunning is returned by Find where there is no daemon.
var ErrNotRunning = errors.New("no LXD daemon of ours runs there")

// Daemon is a running daemon.
type Daemon struct {
	// Socket is the path of its unix socket; hypervisor addresses write it unix:PATH.
	Socket string
	// HTTPSAddress is where it listens, empty if nowhere.
	HTTPSAddress string
	// Fingerprint is the SHA-256 of its certificate, hexadecimal.
	Fingerprint string
	// Pool and PoolDriver are its storage pool, e.g. "default" and "btrfs".
	Pool, PoolDriver string
	// PID of the process.
	PID int
	// Started says that Up had to start it.
	Started bool
}

// state is what Up leaves behind for the next Up and for Down.
type state struct {
	Config Config          `json:"config"`
	Daemon process.Process `json:"daemon"`
	// Ready says that the pool, the network and the profile were made once.
	Ready bool `json:"ready"`
}

// Up makes the daemon that c describes run, and tells through progress (which may
// be nil) what it does. One that runs already is left alone; one that was killed
// or lost to a reboot is started again on its old files.
func Up(ctx context.Context, c Config, progress func(string)) (*Daemon, error) {
	if progress == nil {
		progress = func(string) {}
	}
	c.Dir = filepath.Clean(c.Dir)
	if c.PoolSize == 0 {
		c.PoolSize = defaultPoolSize
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	st, err := readState(c.Dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		st = state{Config: c}
	case err != nil:
		return nil, err
	case st.Config != c:
		return nil, fmt.Errorf("%s holds a daemon with other settings: take it down first", c.Dir)
	case st.Ready && st.Daemon.Alive():
		if d, err := find(ctx, st); err == nil {
			// The machine's part may have been undone by hand; checking costs nothing.
			return d, errors.Join(join(ctx, c, progress), admitBridge(ctx, c))
		}
	}
	if err := checkMachine(); err != nil {
		return nil, err
	}
	if c.CreateBridge && !st.Ready {
		if err := c.checkFree(); err != nil && !st.Daemon.Alive() {
			return nil, err
		}
	}
	if err := makeDir(c); err != nil {
		return nil, err
	}
	if err := writeJSON(c.stateFile(), st); err != nil {
		return nil, err
	}
	if err := join(ctx, c, progress); err != nil {
		return nil, err
	}
	if !st.Daemon.Alive() {
		progress("starting LXD in " + c.Dir)
		// A log file in the arguments makes the process recognisable by its directory.
		st.Daemon, err = process.Start(c.log(), []string{"LXD_DIR=" + c.lxdDir()},
			"lxd", "--group", "root", "--logfile", filepath.Join(c.lxdDir(), "daemon.log"))
		if err != nil {
			return nil, fmt.Errorf("start LXD: %w", err)
		}
		if err := writeJSON(c.stateFile(), st); err != nil {
			return nil, err
		}
	}
	if err := waitReady(ctx, st); err != nil {
		return nil, err
	}
	if err := setUp(ctx, c, progress); err != nil {
		return nil, err
	}
	if err := admitBridge(ctx, c); err != nil {
		return nil, err
	}
	st.Ready = true
	if err := writeJSON(c.stateFile(), st); err != nil {
		return nil, err
	}
	d, err := find(ctx, st)
	if d != nil {
		d.Started = true
	}
	return d, err
}

// Find returns the daemon of a directory if it runs, and ErrNotRunning if not.
func Find(ctx context.Context, dir string) (*Daemon, error) {
	st, err := readState(filepath.Clean(dir))
	if errors.Is(err, os.ErrNotExist) || (err == nil && !(st.Ready && st.Daemon.Alive())) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	return find(ctx, st)
}

func find(ctx context.Context, st state) (*Daemon, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := st.Config
	client, err := dial(ctx, c)
	if err != nil {
		return nil, err
	}
	server, _, err := client.GetServer()
	if err != nil {
		return nil, fmt.Errorf("ask LXD in %s: %w", c.Dir, err)
	}
	pool, _, err := client.GetStoragePool(poolName)
	if err != nil {
		return nil, fmt.Errorf("ask LXD in %s for its pool: %w", c.Dir, err)
	}
	return &Daemon{
		Socket: c.socket(), HTTPSAddress: c.HTTPSAddress,
		Fingerprint: server.Environment.CertificateFingerprint,
		Pool:        poolName, PoolDriver: pool.Driver, PID: st.Daemon.PID,
	}, nil
}

// TrustToken makes a token with which one client, called name in the daemon's
// list, joins its trust. It can be used once.
func (d *Daemon) TrustToken(ctx context.Context, name string) (string, error) {
	client, err := dialSocket(ctx, d.Socket)
	if err != nil {
		return "", err
	}
	post := api.CertificatesPost{Token: true}
	post.Name, post.Type = name, api.CertificateTypeClient
	op, err := client.CreateCertificateToken(post)
	if err != nil {
		return "", fmt.Errorf("make a trust token: %w", err)
	}
	o := op.Get()
	token, err := o.ToCertificateAddToken()
	if err != nil {
		return "", fmt.Errorf("make a trust token: %w", err)
	}
	return token.String(), nil
}

// dial returns a client whose requests all end with ctx.
func dial(ctx context.Context, c Config) (incus.InstanceServer, error) {
	return dialSocket(ctx, c.socket())
}

func dialSocket(ctx context.Context, path string) (incus.InstanceServer, error) {
	return incus.ConnectIncusUnixWithContext(ctx, path, &incus.ConnectionArgs{SkipGetServer: true, SkipGetEvents: true})
}

// waitReady waits until the daemon has started all of its parts.
func waitReady(ctx context.Context, st state) error {
	err := process.WaitFor(ctx, "LXD", 90*time.Second, func() (bool, error) {
		if !st.Daemon.Alive() {
			return false, errors.New("LXD ended")
		}
		client, err := dial(ctx, st.Config)
		if err != nil {
			return false, nil // no socket yet
		}
		_, _, err = client.RawQuery("GET", "/internal/ready", nil, "")
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%w; the end of its log:\n%s", err, lastLines(st.Config.log()))
	}
	return nil
}

// checkMachine says what the machine lacks before anything is started.
func checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("LXD must be started as root")
	}
	for tool, pkg := range map[string]string{"lxd": "lxd", "lxcfs": "lxcfs", "nft": "nftables", "dnsmasq": "dnsmasq-base", "unsquashfs": "squashfs-tools"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing: install the package %s", tool, pkg)
		}
	}
	var fs syscall.Statfs_t
	const cgroup2Magic, tmpfsMagic = 0x63677270, 0x01021994
	if err := syscall.Statfs("/sys/fs/cgroup", &fs); err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	switch int64(fs.Type) {
	case cgroup2Magic:
	case tmpfsMagic: // version 1, alone or beside 2: the controllers LXC insists on, and systemd's tree for containers that run it
		for _, name := range []string{"devices", "freezer", "memory", "pids", "systemd"} {
			if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", name, "cgroup.procs")); err != nil {
				return fmt.Errorf("control group hierarchy %s is not mounted: %w", name, err)
			}
		}
	default:
		return errors.New("no control groups are mounted on /sys/fs/cgroup")
	}
	return nil
}

// makeDir makes the directory so that users of unprivileged containers get to their
// own files below it, and says where an ancestor keeps them out.
func makeDir(c Config) error {
	if err := os.MkdirAll(c.lxdDir(), 0o711); err != nil {
		return err
	}
	if err := os.Chmod(c.Dir, 0o711); err != nil {
		return err
	}
	for dir := c.Dir; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("unprivileged containers cannot get to %s: %s has mode %#o; choose a directory whose parents all can be entered by others (mode 0711)", c.Dir, dir, info.Mode().Perm())
		}
	}
	return nil
}

func readState(dir string) (state, error) {
	var st state
	data, err := os.ReadFile(Config{Dir: dir}.stateFile())
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(data, &st); err != nil {
		return st, fmt.Errorf("state of %s: %w", dir, err)
	}
	return st, nil
}

// lastLines returns the end of a log, for an error message.
func lastLines(file string) string {
	const most = 2000
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	if len(data) > most {
		data = data[len(data)-most:]
		data = data[bytes.IndexByte(data, '\n')+1:]
	}
	return strings.TrimSpace(string(data))
}
