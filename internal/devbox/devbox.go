// Package devbox makes one machine a whole Pleiad: LXD daemons of its own as
// hosts, a server, and, through the command line as anybody would, what an
// operator and a tenant set up, down to a running cluster.
//
// Everything lives below one directory and is found there again: Up changes
// only what is not right yet, also after an Up that failed or was interrupted
// anywhere, and Down removes all of it. Both are for one caller at a time; the
// processes they start outlive them.
package devbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/pleiad/pleiad/internal/devbox/lxdhost"
	"github.com/pleiad/pleiad/internal/devbox/process"
)

// Options say what devbox there should be.
type Options struct {
	// Dir holds all of it. It is absolute and short: LXD's sockets are below it.
	Dir string
	// Exe is the pleiad program.
	Exe string
	// Hosts is how many LXD daemons there are; 1 if 0.
	Hosts int
	// Bridge is the network of the hosts, and Address its own address.
	Bridge  string
	Address netip.Prefix
	// Port is where the server listens, on the bridge's address.
	Port int
	// Image is the node image's file.
	Image string
	// Cluster is the name of the cluster to make; empty makes none.
	Cluster string
	Workers int
	// Out shows what is done.
	Out io.Writer
}

// poolSize is what each host may give to nodes, in bytes. The file behind it is
// sparse, and nodes share most of their blocks with their image.
const poolSize = 100 << 30

// state is what Up leaves for the next Up, for Env and for Down.
type state struct {
	Server process.Process `json:"server"`
	// Exe is the SHA-256 of the program the server runs: another one restarts it.
	Exe     string `json:"exe"`
	URL     string `json:"url"`
	Hosts   int    `json:"hosts"`
	Cluster string `json:"cluster"`
}

func (o *Options) path(elem ...string) string {
	return filepath.Join(append([]string{o.Dir}, elem...)...)
}

func (o *Options) hostDir(i int) string { return o.path("h" + strconv.Itoa(i)) }

// say prints one line of progress.
func (o *Options) say(format string, args ...any) { fmt.Fprintf(o.Out, format+"\n", args...) }

// Up makes everything there that is not, and tells what it does.
func Up(ctx context.Context, o Options) error {
	if o.Hosts == 0 {
		o.Hosts = 1
	}
	// Unprivileged containers must get through to their roots; what is secret
	// below has modes of its own.
	if err := os.MkdirAll(o.Dir, 0o711); err != nil {
		return err
	}
	if err := os.Chmod(o.Dir, 0o711); err != nil {
		return err
	}
	start := time.Now()
	st, err := readState(o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if st.Hosts > 0 && st.Hosts != o.Hosts {
		return fmt.Errorf("%s has %d hosts, not %d: take it down first", o.Dir, st.Hosts, o.Hosts)
	}
	st.Hosts, st.Cluster = o.Hosts, o.Cluster
	// Before there is anything to remove: Down must know of what a failure leaves.
	if err := writeState(o.Dir, st); err != nil {
		return err
	}
	daemons := make([]*lxdhost.Daemon, o.Hosts)
	for i := range o.Hosts {
		if daemons[i], err = o.host(ctx, i); err != nil {
			return fmt.Errorf("LXD daemon %d: %w", i+1, err)
		}
	}
	if err := o.server(ctx, &st); err != nil {
		return err
	}
	if err := writeState(o.Dir, st); err != nil {
		return err
	}
	if err := o.setUp(ctx, st, daemons); err != nil {
		return err
	}
	o.say("\ndevbox is up (%.0f s)", time.Since(start).Seconds())
	return nil
}

// host makes one LXD daemon run. The first has the bridge, the others join it.
func (o *Options) host(ctx context.Context, i int) (*lxdhost.Daemon, error) {
	c := lxdhost.Config{
		Dir: o.hostDir(i), Bridge: o.Bridge,
		HTTPSAddress:     netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(o.Port+1+i)).String(),
		InotifyInstances: 1024,
		PoolSize:         poolSize,
	}
	if i == 0 {
		c.CreateBridge, c.Address = true, o.Address
	}
	began := time.Now()
	d, err := lxdhost.Up(ctx, c, func(s string) { o.say("  %s", s) })
	if err == nil && d.Started {
		o.say("LXD daemon %d of %d started (%.1f s)", i+1, o.Hosts, time.Since(began).Seconds())
	}
	return d, err
}

// server makes the server run, with the present program.
func (o *Options) server(ctx context.Context, st *state) error {
	sum, err := fileSum(o.Exe)
	if err != nil {
		return err
	}
	listen := netip.AddrPortFrom(o.Address.Addr(), uint16(o.Port)).String()
	st.URL = "https://" + listen
	if st.Server.Alive() && st.Exe == sum {
		return o.serverReady(ctx, st)
	}
	if st.Server.Alive() {
		o.say("the program has changed: restarting the server")
		if err := st.Server.Stop(ctx, syscall.SIGTERM, 30*time.Second); err != nil {
			return err
		}
	}
	began := time.Now()
	ready := o.readyFile()
	if err := os.Remove(ready); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	st.Server, err = process.Start(o.path("server.log"), nil, o.Exe, "server",
		"--data-dir", o.path("server"), "--listen", listen, "--advertise", o.Address.Addr().String(), "--ready-file", ready)
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	st.Exe = sum
	if err := writeState(o.Dir, *st); err != nil {
		return err
	}
	if err := o.serverReady(ctx, st); err != nil {
		return err
	}
	o.say("server started at %s (%.1f s)", st.URL, time.Since(began).Seconds())
	return nil
}

// serverReady waits until the server answers.
func (o *Options) serverReady(ctx context.Context, st *state) error {
	return process.WaitFor(ctx, "the server", time.Minute, func() (bool, error) {
		if !st.Server.Alive() {
			return false, fmt.Errorf("the server ended; its log is %s", o.path("server.log"))
		}
		_, err := os.Stat(o.readyFile())
		return err == nil, nil
	})
}

// readyFile is where the server writes the SHA-256 of its CA once it answers.
func (o *Options) readyFile() string { return o.path("server.ready") }

// Down removes everything Up made. It goes on past what fails, and says so.
func Down(ctx context.Context, dir string, out io.Writer) error {
	st, err := readState(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	say := func(s string) { fmt.Fprintln(out, "  "+s) }
	var errs []error
	if st.Server.Alive() {
		fmt.Fprintln(out, "stopping the server")
		errs = append(errs, st.Server.Stop(ctx, syscall.SIGTERM, 30*time.Second))
	}
	// The first host has the bridge the others are on: it goes last.
	o := Options{Dir: dir}
	for i := max(st.Hosts, 1) - 1; i >= 0; i-- {
		if _, err := os.Stat(o.hostDir(i)); err != nil {
			continue
		}
		fmt.Fprintf(out, "removing LXD daemon %d\n", i+1)
		errs = append(errs, lxdhost.Down(ctx, o.hostDir(i), say))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// Env returns shell commands that point kubectl's and pleiad's users at the devbox.
func Env(dir, exe string) (string, error) {
	if _, err := readState(dir); err != nil {
		return "", fmt.Errorf("there is no devbox in %s: %w", dir, err)
	}
	return fmt.Sprintf("export PLEIAD_CONFIG=%q\nexport PATH=%q:%q:\"$PATH\"\n",
		configFile(dir), filepath.Dir(exe), filepath.Join(dir, "bin")), nil
}

func configFile(dir string) string { return filepath.Join(dir, "config.json") }

func readState(dir string) (st state, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return st, fmt.Errorf("state of the devbox in %s: %w", dir, err)
	}
	return st, nil
}

func writeState(dir string, st state) error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "state.json.new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "state.json"))
}

func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
