package nodeimage

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCommand(t *testing.T) {
	var got []string
	err := command{
		name: "sh", args: []string{"-c", `cat; echo "$X"; printf 'a\rb' >&2`},
		env: []string{"X=y"}, stdin: strings.NewReader("in\n\n"),
		line: func(s string) { got = append(got, s) },
	}.run(t.Context())
	if err != nil || !slices.Equal(got, []string{"in", "y", "a"}) {
		t.Errorf("lines %q, %v", got, err)
	}
	out, err := command{name: "sh", args: []string{"-c", "echo out; echo err >&2"}}.output(t.Context())
	if err != nil || out != "out" {
		t.Errorf("output %q, %v", out, err)
	}
	err = command{name: "sh", args: []string{"-c", "seq 100; echo why >&2; exit 3"}}.run(t.Context())
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("error %v", err)
	}
	if s := err.Error(); !strings.Contains(s, "why") || !strings.Contains(s, "100") || strings.Contains(s, "\n50\n") {
		t.Errorf("the error's tail is %q", s)
	}
	if err := (command{name: "no-such-program"}).run(t.Context()); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("error %v", err)
	}
}

// Cancelling ends the program and the children that it started.
func TestCommandCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	child := -1 // a pidfd, which becomes readable when its process ends
	err := command{
		name: "sh", args: []string{"-c", "sleep 1000 & echo $!; wait"},
		line: func(s string) {
			defer cancel()
			pid, err := strconv.Atoi(s)
			if err == nil {
				child, err = unix.PidfdOpen(pid, 0)
			}
			if err != nil {
				t.Error(err)
			}
		},
	}.run(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if child < 0 {
		t.Fatal("the child was not seen")
	}
	defer unix.Close(child)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(child), Events: unix.POLLIN}}, 5000); n != 1 || err != nil {
		t.Errorf("the child lives (%v)", err)
	}
}

func TestFeed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	var n int
	c := command{name: "wc", args: []string{"-c"}, line: func(s string) { n, _ = strconv.Atoi(s) }}
	if err := feed(t.Context(), c, dir); err != nil || n <= 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	// A reader that leaves early must not leave the writer hanging.
	if err := feed(t.Context(), command{name: "false"}, dir); err == nil {
		t.Error("no error")
	}
	if err := tarDirectory(io.Discard, dir+"/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func TestMountsUnder(t *testing.T) {
	const info = `22 1 8:1 / / rw - ext4 /dev/vda rw
30 22 0:5 / /cache/tmp/a/rootfs/proc rw - proc proc rw
31 22 0:6 / /cache/tmp/a/rootfs/dev\040x rw - devtmpfs devtmpfs rw
32 22 0:7 / /cache/tmp/ab rw - tmpfs tmpfs rw
broken
`
	got := mountsUnder(info, "/cache/tmp/a")
	want := []string{"/cache/tmp/a/rootfs/dev x", "/cache/tmp/a/rootfs/proc"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPackages(t *testing.T) {
	got := Packages()
	if !slices.IsSorted(got) || !slices.Contains(got, "mmdebstrap") || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("packages %v", got)
	}
}
