package nodeimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// fakeRoot is a base system with a few files and links.
func fakeRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range map[string]string{
		"usr/sbin/tool": "#!/bin/sh\n", "etc/services": "http 80/tcp\n", "usr/lib/x-linux-gnu/plug/a.so": "plug", "usr/lib/x-linux-gnu/libreal.so.1.2": "lib",
	} {
		if err := writeAt(root, name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"usr/lib/x-linux-gnu/libreal.so.1": "libreal.so.1.2", "usr/sbin/alias": "/sbin/tool", "usr/sbin/dangling": "/nowhere",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestTree(t *testing.T) {
	root := fakeRoot(t)
	content := skeleton()
	err := content.addLayer(root, layerRecipe{
		Name: "x", Programs: []string{"usr/sbin/alias"}, Libraries: []string{"usr/lib/*/plug/*.so"}, Files: []string{"etc/services"},
		Links: map[string][]string{"usr/sbin/tool": {"usr/sbin/other"}}, Applets: "usr/sbin/tool",
	}, []string{"sbin/one", "tool"})
	if err != nil {
		t.Fatal(err)
	}
	if err := content.addFile(root, "/lib/x-linux-gnu/libreal.so.1"); err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	if err := content.write(&first); err != nil {
		t.Fatal(err)
	}
	if err := content.write(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("the same tree gave two tars (%v)", err)
	}
	have := map[string]*tar.Header{}
	for r := tar.NewReader(&first); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		have[h.Name] = h
	}
	for name, link := range map[string]string{
		"bin": "usr/bin", "usr/sbin/alias": "/sbin/tool", "usr/sbin/tool": "", "usr/sbin/other": "/usr/sbin/tool", "usr/bin/one": "/usr/sbin/tool",
		"usr/lib/x-linux-gnu/plug/a.so": "", "usr/lib/x-linux-gnu/libreal.so.1": "libreal.so.1.2", "usr/lib/x-linux-gnu/libreal.so.1.2": "",
		"etc/services": "", "usr/lib/x-linux-gnu/plug/": "", "tmp/": "",
	} {
		if h := have[name]; h == nil || h.Linkname != link {
			t.Errorf("%s: %+v, want a link to %q", name, h, link)
		}
	}
	if h := have["tmp/"]; h != nil && h.Mode != 0o1777 {
		t.Errorf("/tmp has mode %o", h.Mode)
	}
}

func TestTreeErrors(t *testing.T) {
	root := fakeRoot(t)
	if err := (tree{}).addFile(root, "usr/sbin/dangling"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("dangling link: %v", err)
	}
	if err := (tree{}).addLayer(root, layerRecipe{Name: "x", Libraries: []string{"usr/lib/*/none/*.so"}}, nil); err == nil {
		t.Error("a pattern that finds nothing is no error")
	}
	if err := (tree{}).addFile(root, "usr"); err == nil {
		t.Error("a directory was added as a file")
	}
}

// A real program brings its loader and libraries along.
func TestTreeFollowsLibraries(t *testing.T) {
	content := tree{}
	if err := content.addFile("/", "/bin/sh"); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range content {
		names = append(names, name)
	}
	all := strings.Join(names, " ")
	for _, want := range []string{"usr/bin/", "libc.so.6", "ld-linux"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in %s", want, all)
		}
	}
}

func TestComposeImages(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "coredns")
	if err := os.WriteFile(binary, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := &recipe{
		Registry: "pleiad.local",
		Images:   []imageRecipe{{Name: "coredns", Bare: true, Files: map[string]string{"coredns": "coredns"}, Entrypoint: []string{"/coredns"}, User: "65534"}},
	}
	b := &builder{arch: "amd64", report: &reporter{}, release: &release{recipe: r, tags: map[string]string{"coredns": "v1.14.6"}}}
	var digests []string
	for range 2 {
		dir := t.TempDir()
		if err := b.composeImages(t.Context(), "/", dir, map[string]string{"coredns": binary}, b.report.start("x", "")); err != nil {
			t.Fatal(err)
		}
		index, err := layout.ImageIndexFromPath(dir)
		if err != nil {
			t.Fatal(err)
		}
		m, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Manifests) != 1 || m.Manifests[0].Annotations["io.containerd.image.name"] != "pleiad.local/coredns:v1.14.6" {
			t.Fatalf("index %+v", m)
		}
		image, err := index.Image(m.Manifests[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != "amd64" || config.Config.User != "65534" || config.Config.Entrypoint[0] != "/coredns" || len(config.RootFS.DiffIDs) != 1 {
			t.Errorf("config %+v", config)
		}
		layers, err := image.Layers()
		if err != nil || len(layers) != 1 {
			t.Fatalf("layers %v, %v", layers, err)
		}
		if mt, err := layers[0].MediaType(); err != nil || mt != types.OCIUncompressedLayer {
			t.Errorf("media type %s, %v", mt, err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, ".layer-*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		digests = append(digests, m.Manifests[0].Digest.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("the same image has two digests: %v", digests)
	}
	if d, err := empty.Image.Digest(); err != nil || d.String() == digests[0] {
		t.Errorf("the image is empty (%v)", err)
	}
}

func TestCheckAgent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := checkAgent(self, "arm64"); err == nil {
		t.Error("an agent for another architecture was accepted")
	}
	script := filepath.Join(t.TempDir(), "pleiad")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := checkAgent(script, "amd64"); err == nil {
		t.Error("a script was accepted as the agent")
	}
	if err := checkAgent("/bin/ls", "amd64"); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("a dynamically linked agent: %v", err)
	}
}
