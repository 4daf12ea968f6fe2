package nodeimage

import (
	"io/fs"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
)

// kubernetesFiles returns the embedded recipe, as files that a test may change.
func kubernetesFiles(t *testing.T) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	sub, err := fs.Sub(embedded, "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(sub, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(sub, name)
		files[name] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// The recipe that is shipped is sound: loading it compares versions.yaml with
// the modules' own requirements.
func TestEmbeddedRecipe(t *testing.T) {
	files := kubernetesFiles(t)
	r, err := loadRecipe(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Components {
		module, err := moduleFiles(files, c.Module)
		if err != nil {
			t.Fatal(err)
		}
		if c.Requires != "" && !strings.Contains(module["go.sum"], c.Requires+" "+c.Version+" h1:") {
			t.Errorf("modules/%s/module.sum has no checksum of %s %s", c.Module, c.Requires, c.Version)
		}
		for name := range module {
			if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".in") {
				t.Errorf("component %s is built from %s", c.Name, name)
			}
		}
	}
	for _, version := range append(r.versions(), "") {
		rel, err := r.release(version)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"} {
			if got, want := rel.reference(name), "pleiad.local/"+name+":"+rel.version; got != want {
				t.Errorf("reference of %s is %s, kubeadm asks for %s", name, got, want)
			}
		}
		node := map[string]bool{}
		for _, c := range rel.components {
			for _, b := range c.Binaries {
				node[b.Node] = true
			}
		}
		for _, p := range []string{"usr/bin/kubelet", "usr/bin/kubeadm", "usr/local/bin/containerd", "usr/local/sbin/runc", "opt/cni/bin/flannel"} {
			if !node[p] {
				t.Errorf("release %s puts nothing at %s", rel.version, p)
			}
		}
	}
	if _, err := r.release("v0.0.1"); err == nil {
		t.Error("an unknown version was found")
	}
}

func TestRecipeErrors(t *testing.T) {
	tests := []struct{ name, old, new string }{
		{"future format", "format: 1", "format: 2"},
		{"unknown field", "format: 1", "format: 1\nfromat: 1"},
		{"version other than the module's", "version: v3.7.0", "version: v3.7.1"},
		{"module other than required", "requires: go.etcd.io/etcd/server/v3", "requires: go.etcd.io/etcd/v3"},
		{"no such module folder", "module: etcd", "module: etcd2"},
		{"release of an undefined component", "etcd@v3.7.0,", "etcd@v3.7.9,"},
		{"image without a tag", "busybox: 1.35.0", "busybux: 1.35.0"},
		{"image of an unknown binary", "files: {coredns: coredns}", "files: {coredns: cordns}"},
		{"image of an unknown layer", "layers: [busybox]", "layers: [toybox]"},
		{"package that is an option", "    - socat", "    - --force-yes"},
		{"flag of an unknown value", "version.Version=${version}", "version.Version=${versoin}"},
		{"path outside", "node: usr/bin/kubelet", "node: ../usr/bin/kubelet"},
		{"no date", "date: \"2026-09-23T17:06:22Z\"", "date: \"\""},
		{"component twice", "- name: pause\n    version", "- name: etcd\n    version"},
	}
	files := kubernetesFiles(t)
	text := string(files["versions.yaml"].Data)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(text, tt.old) {
				t.Fatalf("versions.yaml has no %q to change", tt.old)
			}
			changed := maps.Clone(files)
			changed["versions.yaml"] = &fstest.MapFile{Data: []byte(strings.Replace(text, tt.old, tt.new, 1))}
			if _, err := loadRecipe(changed); err == nil {
				t.Error("it was accepted")
			}
		})
	}
}

// A second release needs data only.
func TestSecondRelease(t *testing.T) {
	files := kubernetesFiles(t)
	text := string(files["versions.yaml"].Data)
	mod := string(files["modules/kubernetes-v1.37/module.mod"].Data)
	i := strings.Index(text, "  - version: v1.37.1")
	j := strings.Index(text, "  - name: kubernetes")
	k := strings.Index(text, "  - name: etcd")
	older := func(s string) string {
		return strings.NewReplacer("v1.37.1", "v1.36.3", "kubernetes-v1.37", "kubernetes-v1.36").Replace(s)
	}
	text = text[:k] + older(text[j:k]) + text[k:] + older(text[i:])
	files["versions.yaml"] = &fstest.MapFile{Data: []byte(text)}
	files["modules/kubernetes-v1.36/module.mod"] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(mod, "v1.37.1", "v1.36.3"))}
	r, err := loadRecipe(files)
	if err != nil {
		t.Fatal(err)
	}
	rel, err := r.release("v1.36.3")
	if err != nil {
		t.Fatal(err)
	}
	if got := rel.reference("kube-proxy"); got != "pleiad.local/kube-proxy:v1.36.3" {
		t.Errorf("reference %s", got)
	}
	if rel.components[0].Module != "kubernetes-v1.36" {
		t.Errorf("built from %s", rel.components[0].Module)
	}
	if def, err := r.release(""); err != nil || def.version != "v1.37.1" {
		t.Errorf("default release: %+v, %v", def, err)
	}
}

func TestExpand(t *testing.T) {
	c := component{Name: "x", Version: "v1.37.1", Date: "today"}
	got, err := c.expand("-X a=${version} -X b=${major}.${minor} -X c=${date}")
	if err != nil || got != "-X a=v1.37.1 -X b=1.37 -X c=today" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestVersions(t *testing.T) {
	for _, kind := range []string{"", "kubernetes", Kubernetes} {
		if v, err := Versions(kind); err != nil || len(v) == 0 {
			t.Errorf("Versions(%q) = %v, %v", kind, v, err)
		}
	}
	if _, err := Versions("MESOS"); err == nil {
		t.Error("a kind without a recipe has versions")
	}
}
