package nodeimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// importTimeout bounds what containerd may take to start and stop.
const importTimeout = time.Minute

// importConfig is containerd's configuration while it serves the build: its
// store and nothing around it.
const importConfig = `version = 3
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox",
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.restart",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.native",
  "io.containerd.snapshotter.v1.zfs",
]
[plugins."io.containerd.server.v1.grpc"]
  address = %q
[plugins."io.containerd.server.v1.ttrpc"]
  address = %q
`

// preload composes the container images and imports them into the store of the
// containerd of the node at root, unpacked, by running that containerd here.
func (b *builder) preload(ctx context.Context, base, root string, binaries map[string]string, step *step) (err error) {
	images, err := b.cache.temp("images-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeTree(images)) }()
	if err := b.composeImages(ctx, base, images, binaries, step); err != nil {
		return err
	}

	// Sockets have short paths only, which a cache directory need not have.
	run, err := os.MkdirTemp("", "pleiad-image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeTree(run)) }()
	store := filepath.Join(root, "var/lib/containerd")
	socket := filepath.Join(run, "containerd.sock")
	stop, err := startContainerd(ctx, binaries, run, store, socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	ctr := func(args ...string) command {
		return command{name: binaries["ctr"], args: append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)}
	}
	step.progress("import the images")
	load := ctr("images", "import", "--local", "--discard-unpacked-layers", "--snapshotter", "overlayfs", "-")
	if err := feed(ctx, load, images); err != nil {
		return err
	}
	var want []string
	for _, ref := range b.release.references() {
		want = append(want, ref)
		// kubelet sees managed images only, and removes pinned ones never: a
		// node cannot get them again.
		if err := ctr("images", "label", ref, "io.cri-containerd.image=managed", "io.cri-containerd.pinned=pinned").run(ctx); err != nil {
			return err
		}
	}
	// Packed layers go when the store is next swept, and removing something
	// synchronously waits for that.
	scratch := want[0] + "-sweep"
	if err := ctr("images", "tag", want[0], scratch).run(ctx); err != nil {
		return err
	}
	if err := ctr("images", "rm", "--sync", scratch).run(ctx); err != nil {
		return err
	}
	list, err := ctr("images", "ls", "--quiet").output(ctx)
	if err != nil {
		return err
	}
	have := strings.Fields(list)
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		return fmt.Errorf("containerd has the images %v, expected %v", have, want)
	}
	if err := stop(); err != nil {
		return err
	}
	// What would make all nodes the same instance, and what is empty now.
	for _, left := range []string{"io.containerd.grpc.v1.introspection", "tmpmounts"} {
		if err := removeTree(filepath.Join(store, left)); err != nil {
			return err
		}
	}
	return nil
}

// feed runs a program whose standard input is a tar of the files under dir.
func feed(ctx context.Context, c command, dir string) error {
	r, w := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.CloseWithError(tarDirectory(w, dir))
	}()
	c.stdin = r
	err := c.run(ctx)
	r.Close() // ends the writer, should the program have left early
	<-written
	return err
}

// startContainerd starts containerd and returns when it is ready. stop ends it
// and waits; it must be called.
func startContainerd(ctx context.Context, binaries map[string]string, run, store, socket string) (stop func() error, err error) {
	config := filepath.Join(run, "config.toml")
	text := fmt.Sprintf(importConfig, store, filepath.Join(run, "state"), socket, socket+".ttrpc")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	// It tells when it is ready as it tells systemd.
	notify := filepath.Join(run, "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()

	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	var failure error
	go func() {
		defer close(ended)
		failure = command{
			name: binaries["containerd"], args: []string{"--config", config},
			env: []string{"NOTIFY_SOCKET=" + notify},
		}.run(ctx)
	}()
	stop = func() error {
		cancel()
		<-ended
		var exit *exec.ExitError
		if errors.Is(failure, context.Canceled) && !errors.As(failure, &exit) {
			return nil // as it was told, its store closed
		}
		return failure
	}
	ready := make(chan error, 1)
	go func() { ready <- awaitReady(conn) }()
	select {
	case err = <-ready:
	case <-ended:
		err = fmt.Errorf("containerd ended: %w", failure)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// awaitReady reads sd_notify messages until one says ready.
func awaitReady(conn *net.UnixConn) error {
	if err := conn.SetReadDeadline(time.Now().Add(importTimeout)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return fmt.Errorf("containerd did not become ready: %w", err)
		}
		if slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1") {
			return nil
		}
	}
}
