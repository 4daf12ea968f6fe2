package imagefile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/nodeimage/archive"
)

// upload makes a small archive with an LXD image in it.
func upload(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "lxd"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := &archive.Manifest{
		FormatVersion: archive.FormatVersion, Kind: "KUBERNETES", Version: "v1.2.3", Architecture: "amd64",
		Created: time.Unix(0, 0).UTC(), Components: map[string]string{"etcd": "v3.7.0"},
		Images: map[string]string{"pause": "pleiad.local/pause:3.10.2"},
	}
	for name, format := range map[string]archive.Format{"lxd/metadata.tar.gz": archive.LXDMetadata, "lxd/rootfs.squashfs": archive.LXDSquashfs} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Repeat([]byte(name), 1000), 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := archive.Describe(path, name, format)
		if err != nil {
			t.Fatal(err)
		}
		m.Payloads = append(m.Payloads, p)
	}
	var b bytes.Buffer
	if err := archive.Write(&b, m, dir); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSaveAndRead(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	b := upload(t)
	f, err := s.Save(t.Context(), "one", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if f.Size != int64(len(b)) || len(f.SHA256) != 64 {
		t.Errorf("stored %d bytes with digest %q, want %d", f.Size, f.SHA256, len(b))
	}
	s = open(t, dir) // a restart keeps it
	p, err := s.OpenPayload("one", archive.LXDSquashfs)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got, err := io.ReadAll(p)
	if err != nil || !bytes.Equal(got, bytes.Repeat([]byte("lxd/rootfs.squashfs"), 1000)) {
		t.Errorf("payload has %d bytes, %v", len(got), err)
	}
	if _, err := s.OpenPayload("one", archive.OVA); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing format: %v", err)
	}
	for range 2 {
		if err := s.Delete("one"); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Describe("one"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted image: %v", err)
	}
}

func TestBadUploadLeavesNothing(t *testing.T) {
	whole := upload(t)
	flipped := bytes.Clone(whole)
	flipped[bytes.LastIndex(flipped, []byte("lxd/rootfs.squashfs"))] ^= 1 // in a payload, not in padding
	for name, tc := range map[string]struct {
		r    io.Reader
		code model.Code
	}{
		"empty":        {bytes.NewReader(nil), model.CodeUnsupportedImageFileType},
		"not an image": {bytes.NewReader(bytes.Repeat([]byte("text "), 1000)), model.CodeUnsupportedImageFileType},
		"truncated":    {bytes.NewReader(whole[:len(whole)/2]), model.CodeImageUploadError},
		"changed":      {bytes.NewReader(flipped), model.CodeImageUploadError},
		"cut off": {io.MultiReader(bytes.NewReader(whole[:len(whole)/2]), iotest.ErrReader(io.ErrUnexpectedEOF)),
			model.CodeImageUploadError},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			_, err := s.Save(t.Context(), "bad", tc.r)
			if !errors.Is(err, model.ErrorOf(tc.code)) {
				t.Errorf("got %v, want %s", err, tc.code)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestOpenRemovesUnfinishedUploads(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, partial+"x", "lxd"), 0o700); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestPrune: what a crash left between an image and its record goes, and nothing else.
func TestPrune(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, id := range []string{"recorded", "lost"} {
		if _, err := s.Save(t.Context(), id, bytes.NewReader(upload(t))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	pruned, err := s.Prune(func(id string) bool { return id == "recorded" })
	if err != nil || len(pruned) != 1 || pruned[0] != "lost" {
		t.Errorf("pruned %v, %v", pruned, err)
	}
	if _, err := s.OpenPayload("recorded", archive.LXDSquashfs); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// TestDeletionCutOff: an image whose deletion a crash cut off is no image any more.
func TestDeletionCutOff(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.Save(t.Context(), "one", bytes.NewReader(upload(t))); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "one"), filepath.Join(dir, partial+"one")); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete("one"); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
