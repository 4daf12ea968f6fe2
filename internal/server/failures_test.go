package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/nodeimage/archive"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// eventually looks again until ok says yes; what it waits for tells nobody.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// nodeImage is an archive with a payload of that many bytes.
func nodeImage(t *testing.T, size int) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rootfs"), bytes.Repeat([]byte{'x'}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := archive.Describe(filepath.Join(dir, "rootfs"), "rootfs", archive.LXDSquashfs)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = archive.Write(&out, &archive.Manifest{
		FormatVersion: archive.FormatVersion, Kind: "KUBERNETES", Version: "v9.8.7", Architecture: "amd64",
		Created: time.Unix(1_800_000_000, 0).UTC(), Components: map[string]string{}, Images: map[string]string{},
		Payloads: []archive.Payload{p},
	}, dir)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// imageFiles lists what the server has of images on its disk.
func (r *running) imageFiles(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(r.dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// halfUpload begins an upload on a connection of its own and returns that once
// the server has stored a part of it.
func (r *running) halfUpload(t *testing.T) *tls.Conn {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(r.dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	image := nodeImage(t, 4<<20)
	head := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"node\"\r\n\r\n"
	_, err = fmt.Fprintf(conn, "POST /v1/images HTTP/1.1\r\nHost: server\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n%s%s",
		bytes.TrimSpace(token), len(head)+len(image)+len("\r\n--b--\r\n"), head, image[:len(image)/2])
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a part of the upload on the disk", func() bool {
		var size int64
		_ = filepath.WalkDir(filepath.Join(r.dir, "images"), func(_ string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				if info, err := e.Info(); err == nil {
					size += info.Size()
				}
			}
			return nil
		})
		return size >= 1<<20
	})
	return conn
}

func TestUploadCutOff(t *testing.T) {
	r := start(t, Options{})
	if err := r.halfUpload(t).NetConn().Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing left of the upload", func() bool { return len(r.imageFiles(t)) == 0 })
	if images, err := r.client(t).Images(t.Context()); err != nil || len(images) != 0 {
		t.Errorf("images are recorded: %v, %v", images, err)
	}
	if _, err := r.client(t).CreateImage(t.Context(), "node", "ON_DEMAND", bytes.NewReader(nodeImage(t, 4<<20))); err != nil {
		t.Errorf("the next upload: %v", err)
	}
}

// TestImagesWithoutARecord: a server that crashed between storing an image's
// files and recording it deletes them when it starts again, and no others.
func TestImagesWithoutARecord(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{DataDir: dir})
	if _, err := r.client(t).CreateImage(t.Context(), "node", "ON_DEMAND", bytes.NewReader(nodeImage(t, 1000))); err != nil {
		t.Fatal(err)
	}
	recorded := r.imageFiles(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "images", "lost"), os.DirFS(filepath.Join(dir, "images", recorded[0]))); err != nil {
		t.Fatal(err)
	}
	r = start(t, Options{DataDir: dir})
	if left := r.imageFiles(t); len(left) != 1 || left[0] != recorded[0] {
		t.Errorf("after the start there are %v, want %v", left, recorded)
	}
}

// TestDiskFull: a server whose disk is full says so, and works again when there is space.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	resize := func(flags uintptr, size string) error {
		return syscall.Mount("tmpfs", dir, "tmpfs", flags, "size="+size)
	}
	if err := resize(0, "1g"); errors.Is(err, syscall.EPERM) {
		t.Skip("needs the right to mount a small disk")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	r := start(t, Options{DataDir: dir})
	c := r.client(t)
	image := nodeImage(t, 1<<20)
	// Less than the store must keep free.
	if err := resize(syscall.MS_REMOUNT, "256m"); err != nil {
		t.Fatal(err)
	}
	full := model.ErrorOf(model.CodeStorageFull)
	if _, err := c.CreateTenant(t.Context(), model.TenantCreateSpec{Name: "acme"}); !errors.Is(err, full) {
		t.Errorf("a tenant: %v", err)
	}
	if _, err := c.CreateImage(t.Context(), "node", "ON_DEMAND", bytes.NewReader(image)); !errors.Is(err, full) {
		t.Errorf("an image: %v", err)
	}
	if left := r.imageFiles(t); len(left) != 0 {
		t.Errorf("left of the image: %v", left)
	}
	if tenants, err := c.Tenants(t.Context()); err != nil || len(tenants) != 0 {
		t.Errorf("reading: %v, %v", tenants, err)
	}
	if err := resize(syscall.MS_REMOUNT, "1g"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateTenant(t.Context(), model.TenantCreateSpec{Name: "acme"}); err != nil {
		t.Errorf("a tenant, with space: %v", err)
	}
	if _, err := c.CreateImage(t.Context(), "node", "ON_DEMAND", bytes.NewReader(image)); err != nil {
		t.Errorf("an image, with space: %v", err)
	}
}

// TestStop: a server that is stopped ends what follows a task at once and an
// upload when its time is over, and leaves nothing of that.
func TestStop(t *testing.T) {
	const drain = time.Second
	fleet := sim.New()
	t.Cleanup(fleet.Close)
	fleet.AddHost("slow", sim.DefaultFacts(4, 8<<30, 1<<40))
	fleet.Hook = func(ctx context.Context, _ sim.Call, _ sim.Moment) error {
		<-ctx.Done() // the host answers nothing, so that its task goes on
		return ctx.Err()
	}
	r := startWith(t, fleet, Options{DrainTimeout: drain})
	c := r.client(t)
	task, err := c.CreateHost(t.Context(), "default", model.HostCreateSpec{Address: "slow", Driver: "sim", UsageTags: []string{"CLOUD"}})
	if err != nil {
		t.Fatal(err)
	}
	events := r.events(t, task.ID)
	r.halfUpload(t)

	began := time.Now()
	followed := make(chan time.Duration, 1)
	go func() {
		_, _ = io.Copy(io.Discard, events)
		followed <- time.Since(began)
	}()
	if err := r.stop(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	took := time.Since(began)
	if took < drain || took > drain+5*time.Second {
		t.Errorf("the server stopped after %s; an upload has %s", took, drain)
	}
	if end := <-followed; end >= drain {
		t.Errorf("the events ended after %s, not at once", end)
	}
	if left := r.imageFiles(t); len(left) != 0 {
		t.Errorf("left of the upload: %v", left)
	}
}

// events follows a task, and returns its stream once that has begun.
func (r *running) events(t *testing.T, taskID string) io.Reader {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(r.dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/v1/tasks/"+taskID+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(token)))
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if _, err := io.ReadFull(response.Body, make([]byte, len(": following"))); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("following the task: %s, %v", response.Status, err)
	}
	return response.Body
}
