package lxdhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lxc/incus/v6/shared/api"
)

// Down removes the daemon of a directory and all it made: instances, bridge,
// firewall rules, mounts, loop device, processes, files. It tells through
// progress (which may be nil) what it does. It asks the daemon first, since LXD
// knows best how to undo its work; whatever remains, because the daemon is dead
// or refuses, is found and removed without it. A directory that is not there is no error.
func Down(ctx context.Context, dir string, progress func(string)) error {
	if progress == nil {
		progress = func(string) {}
	}
	dir = filepath.Clean(dir)
	st, err := readState(dir)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, "lxd")); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("%s has no state file: it is not known to be ours", dir)
	}
	if err != nil {
		return err
	}
	if st.Config.Dir != dir {
		return fmt.Errorf("%s holds the state of %s: it was moved", dir, st.Config.Dir)
	}
	var cables []string
	if st.Config.CreateBridge {
		cables = cablesOf(st.Config.Bridge)
	}
	if st.Daemon.Alive() {
		cables = append(cables, ownCables(ctx, st.Config)...)
		if err := empty(ctx, st.Config, progress); err != nil {
			progress(fmt.Sprintf("LXD could not undo everything, removing the rest without it: %v", err))
		}
		progress("stopping LXD in " + dir)
		if err := st.Daemon.Stop(ctx, syscall.SIGTERM, 20*time.Second); err != nil {
			return err
		}
	}
	if err := sweep(ctx, st.Config, cables); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return leave(ctx, dir, progress)
}

// empty asks the daemon to remove its instances and its network.
func empty(ctx context.Context, c Config, progress func(string)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	client, err := dial(ctx, c)
	if err != nil {
		return err
	}
	instances, err := client.GetInstances(api.InstanceTypeAny)
	if err != nil {
		return fmt.Errorf("list instances: %w", err)
	}
	if len(instances) > 0 {
		progress(fmt.Sprintf("removing %d instances", len(instances)))
	}
	const atOnce = 4
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	failed := make([]error, len(instances))
	for i, inst := range instances {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			failed[i] = remove(ctx, c, inst.Name, inst.StatusCode == api.Stopped)
		})
	}
	wg.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	if !c.CreateBridge {
		return nil
	}
	profile, etag, err := client.GetProfile("default")
	if err != nil {
		return fmt.Errorf("read the default profile: %w", err)
	}
	want := profile.Writable()
	want.Devices = nil // it holds on to the network
	if err := client.UpdateProfile("default", want, etag); err != nil {
		return fmt.Errorf("write the default profile: %w", err)
	}
	if err := client.DeleteNetwork(c.Bridge); err != nil {
		return fmt.Errorf("delete network %s: %w", c.Bridge, err)
	}
	return nil
}

// ownCables asks the daemon for its containers' cables: on a bridge of another daemon no one else can tell.
func ownCables(ctx context.Context, c Config) []string {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client, err := dial(ctx, c)
	if err != nil {
		return nil
	}
	instances, err := client.GetInstances(api.InstanceTypeAny)
	if err != nil {
		return nil // empty will say why
	}
	var cables []string
	for _, inst := range instances {
		for key, value := range inst.Config {
			if strings.HasPrefix(key, "volatile.") && strings.HasSuffix(key, ".host_name") && strings.HasPrefix(value, "veth") {
				cables = append(cables, value)
			}
		}
	}
	return cables
}

func remove(ctx context.Context, c Config, name string, stopped bool) error {
	// A client of its own: waiting for an operation changes the client's transport.
	client, err := dial(ctx, c)
	if err != nil {
		return err
	}
	if !stopped {
		op, err := client.UpdateInstanceState(name, api.InstanceStatePut{Action: "stop", Force: true, Timeout: -1}, "")
		if err == nil {
			err = op.WaitContext(ctx)
		}
		if err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	}
	op, err := client.DeleteInstance(name)
	if err == nil {
		err = op.WaitContext(ctx)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}
