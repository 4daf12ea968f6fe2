package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const metadata, rootfs = "lxd/metadata.tar.gz", "lxd/rootfs.squashfs"

// sample writes an archive of two payloads and returns its bytes.
func sample(t testing.TB) ([]byte, *Manifest) {
	t.Helper()
	dir := t.TempDir()
	m := &Manifest{
		FormatVersion: FormatVersion, Kind: "KUBERNETES", Version: "v1.37.1", Architecture: "amd64",
		Created:    time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC),
		Components: map[string]string{"etcd": "v3.7.0"},
		Images:     map[string]string{"coredns": "pleiad.local/coredns:v1.14.6"},
	}
	for _, f := range []struct {
		path    string
		format  Format
		content string
	}{{metadata, LXDMetadata, "metadata"}, {rootfs, LXDSquashfs, strings.Repeat("root", 1000)}} {
		name := filepath.Join(dir, f.path)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(f.content), 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := Describe(name, f.path, f.format)
		if err != nil {
			t.Fatal(err)
		}
		m.Payloads = append(m.Payloads, p)
	}
	var buf bytes.Buffer
	if err := Write(&buf, m, dir); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), m
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRoundTrip(t *testing.T) {
	data, want := sample(t)
	again, _ := sample(t)
	if !bytes.Equal(data, again) {
		t.Error("the same input gave two different archives")
	}
	r, err := Open(iotest.HalfReader(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	m := r.Manifest()
	if m.Kind != "KUBERNETES" || m.Version != "v1.37.1" || m.Images["coredns"] != "pleiad.local/coredns:v1.14.6" || m.Size() != want.Size() {
		t.Errorf("manifest: %+v", m)
	}
	if p, ok := m.Payload(LXDSquashfs); !ok || p.Path != rootfs {
		t.Errorf("Payload(%s) = %+v, %t", LXDSquashfs, p, ok)
	}
	if _, ok := m.Payload(QCOW2); ok {
		t.Error("a qcow2 payload was found where there is none")
	}
	dir := t.TempDir()
	if err := r.Extract(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, metadata)); err != nil || string(got) != "metadata" {
		t.Errorf("metadata = %q, %v", got, err)
	}
	if n := len(files(t, dir)); n != 2 {
		t.Errorf("%d files extracted", n)
	}
	if err := r.Extract(t.Context(), t.TempDir()); err == nil {
		t.Error("a second Extract succeeded")
	}
}

// rewrite builds a tar from the sample's manifest, changed, and entries.
func rewrite(t *testing.T, change func(*Manifest), entries ...[2]string) []byte {
	t.Helper()
	_, m := sample(t)
	change(m)
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return makeTar(t, append([][2]string{{ManifestName, string(data)}}, entries...)...)
}

func makeTar(t *testing.T, entries ...[2]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := w.WriteHeader(&tar.Header{Name: e[0], Size: int64(len(e[1])), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestBadArchives(t *testing.T) {
	good, _ := sample(t)
	same := func(*Manifest) {}
	root := strings.Repeat("root", 1000)
	flipped := bytes.Clone(good)
	flipped[bytes.Index(flipped, []byte("rootroot"))] = 'R'
	tests := []struct {
		name string
		data []byte
		want error
	}{
		{"empty", nil, ErrNotImage},
		{"short text", []byte("hello"), ErrNotImage},
		{"long text", bytes.Repeat([]byte("hello "), 1000), ErrNotImage},
		{"zeros", make([]byte, 4096), ErrNotImage},
		{"squashfs", append([]byte("hsqs"), make([]byte, 4096)...), ErrNotImage},
		{"another tar", makeTar(t, [2]string{"metadata.yaml", "architecture: x86_64"}), ErrNotImage},
		{"manifest not JSON", makeTar(t, [2]string{ManifestName, "kind: KUBERNETES"}), ErrNotImage},
		{"manifest null", makeTar(t, [2]string{ManifestName, "null"}), ErrNotImage},
		{"manifest too large", makeTar(t, [2]string{ManifestName, strings.Repeat(" ", MaxManifestSize+1)}), ErrInvalid},
		{"future version", rewrite(t, func(m *Manifest) { m.FormatVersion = 2 }), ErrUnsupported},
		{"no kind", rewrite(t, func(m *Manifest) { m.Kind = "" }), ErrInvalid},
		{"escape in kind", rewrite(t, func(m *Manifest) { m.Kind = "\x1b[2J" }), ErrInvalid},
		{"no payloads", rewrite(t, func(m *Manifest) { m.Payloads = nil }), ErrInvalid},
		{"path up", rewrite(t, func(m *Manifest) { m.Payloads[0].Path = "../x" }), ErrInvalid},
		{"path absolute", rewrite(t, func(m *Manifest) { m.Payloads[0].Path = "/etc/x" }), ErrInvalid},
		{"path twice", rewrite(t, func(m *Manifest) { m.Payloads[0].Path = m.Payloads[1].Path }), ErrInvalid},
		{"path under another", rewrite(t, func(m *Manifest) { m.Payloads[0].Path = m.Payloads[1].Path + "/x" }), ErrInvalid},
		{"negative size", rewrite(t, func(m *Manifest) { m.Payloads[0].Size = -1 }), ErrInvalid},
		{"bad sha256", rewrite(t, func(m *Manifest) { m.Payloads[0].SHA256 = "00" }), ErrInvalid},
		{"no entries", rewrite(t, same), ErrTruncated},
		{"wrong order", rewrite(t, same, [2]string{rootfs, root}, [2]string{metadata, "metadata"}), ErrInvalid},
		{"wrong size", rewrite(t, same, [2]string{metadata, "meta"}, [2]string{rootfs, root}), ErrInvalid},
		{"entry too many", rewrite(t, same, [2]string{metadata, "metadata"}, [2]string{rootfs, root}, [2]string{"x", ""}), ErrInvalid},
		{"one missing", rewrite(t, same, [2]string{metadata, "metadata"}), ErrTruncated},
		{"bit flipped", flipped, ErrChecksum},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			r, err := Open(bytes.NewReader(tt.data))
			if err == nil {
				err = r.Extract(t.Context(), dir)
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if left := files(t, dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Wherever an upload is cut off before its last payload's end, it is refused.
func TestTruncatedAnywhere(t *testing.T) {
	data, _ := sample(t)
	end := bytes.LastIndex(data, []byte("root")) + len("root")
	for n := 0; n < end; n += 97 {
		r, err := Open(bytes.NewReader(data[:n]))
		if err == nil {
			err = r.Verify(t.Context())
		}
		if !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrNotImage) {
			t.Fatalf("cut at %d of %d: error %v", n, end, err)
		}
	}
}

func TestExtractErrors(t *testing.T) {
	data, _ := sample(t)
	t.Run("reader fails", func(t *testing.T) {
		boom := errors.New("connection reset")
		r, err := Open(io.MultiReader(bytes.NewReader(data[:4000]), iotest.ErrReader(boom)))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := r.Extract(t.Context(), dir); !errors.Is(err, boom) {
			t.Errorf("error %v, want %v", err, boom)
		}
		if left := files(t, dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		r, err := Open(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		dir := t.TempDir()
		if err := r.Extract(ctx, dir); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if left := files(t, dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("file exists", func(t *testing.T) {
		r, err := Open(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "lxd"), 0o755); err != nil {
			t.Fatal(err)
		}
		kept := filepath.Join(dir, rootfs)
		if err := os.WriteFile(kept, []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := r.Extract(t.Context(), dir); !errors.Is(err, fs.ErrExist) {
			t.Errorf("error %v", err)
		}
		if got, err := os.ReadFile(kept); err != nil || string(got) != "mine" {
			t.Errorf("the file that was there is now %q, %v", got, err)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	_, m := sample(f)
	good, err := json.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"formatVersion":1,"payloads":[{"path":"../x","size":-1}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			return
		}
		for _, p := range m.Payloads {
			if !filepath.IsLocal(filepath.FromSlash(p.Path)) {
				t.Errorf("path %q leaves its directory", p.Path)
			}
			if b, err := hex.DecodeString(p.SHA256); err != nil || len(b) != sha256.Size {
				t.Errorf("sha256 %q", p.SHA256)
			}
		}
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(out); err != nil {
			t.Errorf("a valid manifest does not survive a round trip: %v", err)
		}
	})
}
