package nodeimage

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// nodeStage is part of a node's key: raise it when this file, images.go,
// tree.go or preload.go change what comes out.
const nodeStage = 1

// units are enabled in every node.
var units = []string{"containerd.service", "kubelet.service", "pleiad-agent.service"}

// emptyDirs are there for others to put files in.
var emptyDirs = []string{"etc/cni/net.d", "etc/containerd/certs.d", "etc/kubernetes/manifests", "etc/keepalived", "var/lib/kubelet"}

// node makes the node's root file system, complete but for the agent.
func (b *builder) node(ctx context.Context, base entry, components []entry) (_ entry, err error) {
	r := b.release.recipe
	files, err := recipeFiles(r.files)
	if err != nil {
		return entry{}, err
	}
	var parts []string
	for i, c := range b.release.components {
		parts = append(parts, c.id(), components[i].ID)
	}
	k, err := key("node", nodeStage, base.ID, parts, b.release.components, files, r.Images, r.Layers, b.release.references())
	if err != nil {
		return entry{}, err
	}
	step := b.report.start("node", "container images and root file system")
	e, cached := b.cache.find("node-"+b.release.version, k)
	defer func() { step.end(e, cached, err) }()
	if cached {
		return e, nil
	}
	binaries := map[string]string{}
	for i, c := range b.release.components {
		for _, bin := range c.Binaries {
			binaries[bin.Name] = components[i].path(bin.Name)
		}
	}
	e, err = b.cache.make("node-"+b.release.version, k, func(dir string) (string, error) {
		root := filepath.Join(dir, "rootfs")
		step.progress("copy the base")
		if err := (command{name: "cp", args: []string{"-a", "--reflink=auto", base.path("rootfs"), root}}).run(ctx); err != nil {
			return "", err
		}
		if err := b.install(ctx, root, files, binaries); err != nil {
			return "", err
		}
		return k, b.preload(ctx, base.path("rootfs"), root, binaries, step)
	})
	return e, err
}

// recipeFiles returns the recipe's files for the node by their paths there.
func recipeFiles(recipe fs.FS) (map[string]string, error) {
	files := map[string]string{}
	err := fs.WalkDir(recipe, "files", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(recipe, name)
		files[strings.TrimPrefix(name, "files/")] = string(data)
		return err
	})
	return files, err
}

// install puts files and binaries in place and enables the node's units.
func (b *builder) install(ctx context.Context, root string, files, binaries map[string]string) error {
	for _, dir := range emptyDirs {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	// An image's reference appears in files by its name.
	var pairs []string
	for name, ref := range b.release.references() {
		pairs = append(pairs, "@IMAGE_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"@", ref)
	}
	references := strings.NewReplacer(pairs...)
	for name, content := range files {
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		content = references.Replace(content)
		if strings.Contains(content, "@IMAGE_") {
			return fmt.Errorf("%s names an image that the release does not have", name)
		}
		if err := writeAt(root, name, []byte(content), mode); err != nil {
			return err
		}
	}
	for _, c := range b.release.components {
		for _, bin := range c.Binaries {
			if bin.Node == "" {
				continue
			}
			data, err := os.ReadFile(binaries[bin.Name])
			if err != nil {
				return err
			}
			if err := writeAt(root, bin.Node, data, 0o755); err != nil {
				return err
			}
		}
	}
	args := append([]string{root, "systemctl", "--quiet", "enable"}, units...)
	return command{name: "chroot", args: args}.run(ctx)
}

// writeAt writes a file under root with exactly that mode.
func writeAt(root, name string, data []byte, mode fs.FileMode) error {
	full := filepath.Join(root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(full, data, mode); err != nil {
		return err
	}
	return os.Chmod(full, mode) // whatever the umask was
}
