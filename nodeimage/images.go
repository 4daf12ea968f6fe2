package nodeimage

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// composeImages writes the release's container images as an OCI layout in dir.
// Their digests depend on their content alone.
//
// An image is one layer: the store of containerd then unpacks it by a bind
// mount, which works where an overlay mount does not (in a container), and what
// images have in common is stored once anyway by the squashfs that follows.
func (b *builder) composeImages(ctx context.Context, root, dir string, binaries map[string]string, step *step) error {
	out, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for _, img := range b.release.recipe.Images {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		ref := b.release.reference(img.Name)
		step.progress("compose " + ref)
		if err := b.composeImage(ctx, root, out, img, ref, binaries); err != nil {
			return fmt.Errorf("image %s: %w", img.Name, err)
		}
	}
	return nil
}

func (b *builder) composeImage(ctx context.Context, root string, out layout.Path, img imageRecipe, ref string, binaries map[string]string) error {
	content := tree{}
	if !img.Bare {
		content = skeleton()
	}
	for _, l := range b.release.recipe.Layers {
		if !slices.Contains(img.Layers, l.Name) {
			continue
		}
		var applets []string
		if l.Applets != "" {
			list, err := command{name: "chroot", args: []string{root, "/" + l.Applets, "--list"}}.output(ctx)
			if err != nil {
				return err
			}
			applets = strings.Fields(list)
		}
		if err := content.addLayer(root, l, applets); err != nil {
			return err
		}
	}
	for p, name := range img.Files {
		content[p] = node{mode: 0o755, file: binaries[name]}
	}
	layer, err := writeLayer(content, string(out))
	if err != nil {
		return err
	}
	defer os.Remove(layer.file)
	image, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), layer)
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", b.arch
	config.Config = v1.Config{
		Entrypoint: img.Entrypoint, Cmd: img.Cmd, User: img.User,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return err
	}
	return out.AppendImage(image,
		layout.WithPlatform(v1.Platform{OS: "linux", Architecture: b.arch}),
		layout.WithAnnotations(map[string]string{"io.containerd.image.name": ref}))
}

// fileLayer is a layer whose uncompressed tar is in a file. It stays
// uncompressed: only its unpacked content reaches the node.
type fileLayer struct {
	file string
	size int64
	hash v1.Hash
}

func writeLayer(content tree, dir string) (*fileLayer, error) {
	f, err := os.CreateTemp(dir, ".layer-")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := sha256.New()
	if err := content.write(io.MultiWriter(f, sum)); err != nil {
		os.Remove(f.Name())
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &fileLayer{f.Name(), info.Size(), v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}}, nil
}

func (l *fileLayer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l *fileLayer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l *fileLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.file) }
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.file) }
func (l *fileLayer) Size() (int64, error)                 { return l.size, nil }
func (l *fileLayer) MediaType() (types.MediaType, error) {
	return types.OCIUncompressedLayer, nil
}

// tarDirectory writes the files under dir as a tar, as an OCI archive is.
func tarDirectory(w io.Writer, dir string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		return node{mode: 0o644, file: name}.write(tw, filepath.ToSlash(rel))
	})
	if err != nil {
		return err
	}
	return tw.Close()
}
