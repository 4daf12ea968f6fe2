package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/model"
)

// checkSnapshot verifies the checksum etcd puts at the end of a snapshot, and
// that no plain text of a value is in it.
func checkSnapshot(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || len(data) < sha256.Size {
		t.Fatalf("snapshot of %d bytes, %v", len(data), err)
	}
	body := data[:len(data)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], data[len(body):]) {
		t.Fatal("the checksum of the snapshot is wrong")
	}
	if bytes.Contains(body, []byte("hidden in plain sight")) || !bytes.Contains(body, []byte("o/secrets/s")) {
		t.Fatal("the snapshot has no such value, or in plain text")
	}
}

func TestDataDirInUse(t *testing.T) {
	o := embedded(t)
	open(t, o)
	if _, err := Open(testContext(t), o); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Fatalf("opened twice: %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	good := embedded(t)
	for name, spoil := range map[string]func(*Options){
		"no sealer":    func(o *Options) { o.Sealer = nil },
		"no place":     func(o *Options) { o.DataDir = "" },
		"prefix":       func(o *Options) { o.Prefix = "/x" },
		"data dir":     func(o *Options) { o.DataDir = filepath.Join(o.DataDir, "key", "x") },
		"bad endpoint": func(o *Options) { o.Endpoints = []string{"http://a b:1"} },
	} {
		o := good
		if err := os.WriteFile(filepath.Join(o.DataDir, "key"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		spoil(&o)
		ctx, cancel := context.WithTimeout(testContext(t), time.Second)
		if _, err := Open(ctx, o); err == nil {
			t.Errorf("%s: opened", name)
		}
		cancel()
	}
}

// TestNoSocket: the embedded engine listens nowhere.
func TestNoSocket(t *testing.T) {
	before := listening(t)
	open(t, embedded(t))
	if after := listening(t); after != before {
		t.Fatalf("sockets that listen: %d before, %d now", before, after)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if listening(t) != before+1 {
		t.Fatal("the test does not see sockets that listen")
	}
}

// listening counts the sockets this process listens on.
func listening(t *testing.T) (n int) {
	listens := map[string]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Skip(err)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" {
				listens["socket:["+f[9]+"]"] = true
			}
		}
	}
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 6 && f[3] == "00010000" {
			listens["socket:["+f[6]+"]"] = true
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && listens[target] {
			n++
		}
	}
	return n
}

// TestMinFree: writes are refused before the disk is full; reads go on.
func TestMinFree(t *testing.T) {
	s := open(t, embedded(t))
	put(t, s, "a", 1)
	s.minFree = 1 << 60
	for _, group := range []string{"", "g"} {
		_, err := s.Update(testContext(t), group, func(tx *Tx) error { return accounts.Put(tx, &account{ID: "b"}) })
		if !errors.Is(err, model.ErrorOf(model.CodeStorageFull)) {
			t.Fatalf("no space: %v", err)
		}
	}
	must(t, s, func(tx *Tx) error {
		_, err := accounts.Get(tx, "a")
		return err
	})
}

// TestMinFreeForWhatFrees: on a disk with too little space for anything new,
// what leads to space being freed goes on.
func TestMinFreeForWhatFrees(t *testing.T) {
	s := open(t, embedded(t))
	put(t, s, "a", 1)
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.dataDir, &fs); err != nil {
		t.Fatal(err)
	}
	s.minFree = 2 * fs.Bavail * uint64(fs.Bsize)
	lead, err := s.Campaign(testContext(t), "test", "me", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	change := func(tx *Tx) error { return accounts.Put(tx, &account{ID: "a", Limit: 2}) }
	if _, err := s.Update(testContext(t), "", change); !errors.Is(err, model.ErrorOf(model.CodeStorageFull)) {
		t.Errorf("too little space: %v", err)
	}
	if _, err := s.Fenced(lead).Update(testContext(t), "", change); err != nil {
		t.Errorf("a leader's change: %v", err)
	}
	must(t, s, func(tx *Tx) error {
		tx.Frees()
		return accounts.Put(tx, &account{ID: "a", Limit: 3})
	})
	must(t, s, func(tx *Tx) error { return accounts.Delete(tx, "a") })
}

// TestQuota: an etcd over its quota raises an alarm, and the store says what that means.
func TestQuota(t *testing.T) {
	s := open(t, startExternal(t, 1, 1<<20).options(t))
	load := strings.Repeat("x", 200<<10)
	var err error
	for i := 0; err == nil && i < 500; i++ {
		_, err = s.Update(testContext(t), "", func(tx *Tx) error {
			return accounts.Create(tx, &account{ID: fmt.Sprint(i), Owner: load})
		})
	}
	if !errors.Is(err, model.ErrorOf(model.CodeStorageFull)) {
		t.Fatalf("over etcd's quota: %v", err)
	}
	if n, _ := accounts.Count(s, Query{}); n == 0 {
		t.Fatal("reads do not go on")
	}
}

// smallDisk mounts a disk of that size, in tmpfs' notation.
func smallDisk(t *testing.T, size string) string {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs to mount a small disk: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// TestOpenDiskFull: a disk too small for etcd's log is an error, not the end of the process.
func TestOpenDiskFull(t *testing.T) {
	o := embedded(t)
	o.DataDir = smallDisk(t, "1m")
	if _, err := Open(testContext(t), o); !errors.Is(err, model.ErrorOf(model.CodeStorageFull)) {
		t.Fatal(err)
	}
}

// TestDiskFull: on a disk that fills up under etcd, the store fails with
// StorageFull; etcd does not take the process with it, and what was
// acknowledged is there when there is space again.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, "130m")
	o := embedded(t)
	o.DataDir = dir
	s, err := Open(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	load := strings.Repeat("x", 900<<10)
	stored := 0
	for ; err == nil; stored++ {
		_, err = s.Update(testContext(t), "", func(tx *Tx) error {
			return accounts.Create(tx, &account{ID: fmt.Sprint(stored), Owner: load})
		})
	}
	if !errors.Is(err, model.ErrorOf(model.CodeStorageFull)) {
		t.Fatalf("the disk is full: %v", err)
	}
	select {
	case err := <-s.Failed():
		if !errors.Is(err, model.ErrorOf(model.CodeStorageFull)) {
			t.Fatalf("Failed: %v", err)
		}
	default:
		t.Fatal("the store has not failed")
	}
	t.Logf("%d objects of 900 kB: %v", stored-1, err)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// What was acknowledged is there, on a disk with space.
	o.DataDir = t.TempDir()
	if err := os.CopyFS(o.DataDir, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	for i := range stored - 1 {
		if _, err := accounts.Get(s, fmt.Sprint(i)); err != nil {
			t.Error(err)
		}
	}
}
