// Package lxdtest gives tests a real LXD and an image that boots in a moment.
//
// Both need root and Debian's lxd, squashfs-tools and nftables. They are real
// prerequisites of the tests that use them: where they lack, the test fails;
// only -short skips it.
package lxdtest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/pleiad/pleiad/internal/devbox/lxdhost"
)

// Image is a LXD image in its two parts.
type Image struct {
	Metadata, Squashfs []byte
	// SHA256 of both, hexadecimal.
	SHA256 string
}

// BuildImage builds the image whose only program is tinyinit.
func BuildImage(t testing.TB) Image {
	t.Helper()
	if testing.Short() {
		t.Skip("needs LXD")
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "etc", "sbin"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(root, "sbin", "init"),
		"github.com/pleiad/pleiad/internal/hypervisor/lxd/lxdtest/tinyinit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	run(t, build)
	squashfs := filepath.Join(dir, "root.squashfs")
	run(t, exec.Command("mksquashfs", root, squashfs, "-comp", "gzip", "-Xcompression-level", "1", "-all-root", "-no-progress"))
	data, err := os.ReadFile(squashfs)
	if err != nil {
		t.Fatal(err)
	}
	image := Image{Metadata: metadata(t), Squashfs: data}
	sum := sha256.Sum256(append(bytes.Clone(image.Metadata), data...))
	image.SHA256 = hex.EncodeToString(sum[:])
	return image
}

func metadata(t testing.TB) []byte {
	t.Helper()
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	// Two tests that run at once must not share an image by chance: the name makes it theirs.
	content := fmt.Sprintf("architecture: %s\ncreation_date: 1\nproperties:\n  description: %s\n", machine, t.Name())
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Name: "metadata.yaml", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Host is a daemon started for a test.
type Host struct {
	*lxdhost.Daemon
	Config lxdhost.Config
}

// StartHost starts a daemon with a bridge of its own and takes it down when the
// test ends. bridge is the network's address, e.g. 100.64.210.1/24; tests that can
// run at once use different ones.
func StartHost(t testing.TB, bridge string) Host {
	t.Helper()
	prefix := netip.MustParsePrefix(bridge)
	a := prefix.Addr().As4()
	return start(t, lxdhost.Config{Bridge: fmt.Sprintf("pltest%d", a[2]), CreateBridge: true, Address: prefix})
}

// StartSecond starts a daemon that joins the bridge of another.
func StartSecond(t testing.TB, first Host) Host {
	t.Helper()
	return start(t, lxdhost.Config{Bridge: first.Config.Bridge})
}

func start(t testing.TB, c lxdhost.Config) Host {
	t.Helper()
	if testing.Short() {
		t.Skip("needs LXD")
	}
	// Not t.TempDir: its paths are too long for sockets.
	dir, err := os.MkdirTemp("", "pllxd")
	if err != nil {
		t.Fatal(err)
	}
	c.Dir, c.HTTPSAddress, c.PoolSize = dir, FreeAddress(t), 2<<30
	t.Cleanup(func() {
		// The test's own context has ended by now.
		if err := lxdhost.Down(context.Background(), dir, nil); err != nil {
			t.Errorf("take the LXD of the test down: %v", err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	d, err := lxdhost.Up(t.Context(), c, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatalf("start LXD: %v", err)
	}
	return Host{Daemon: d, Config: c}
}

// FreeAddress returns a loopback address with a port that nobody uses.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}
