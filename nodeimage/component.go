package nodeimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// componentStage is part of a component's key: raise it when this file changes
// what comes out.
const componentStage = 1

// component compiles one component. Its result holds the binaries by name.
func (b *builder) component(ctx context.Context, c component) (_ entry, err error) {
	files, err := moduleFiles(b.release.recipe.files, c.Module)
	if err != nil {
		return entry{}, err
	}
	k, err := key("component", componentStage, c, files, b.goVersion, b.arch)
	if err != nil {
		return entry{}, err
	}
	stage := "component-" + c.id()
	step := b.report.start("component "+c.Name, c.Version)
	e, cached := b.cache.find(stage, k)
	defer func() { step.end(e, cached, err) }()
	if cached {
		return e, nil
	}
	e, err = b.cache.make(stage, k, func(dir string) (string, error) { return b.compile(ctx, c, files, dir, step) })
	return e, err
}

// moduleFiles returns the files of a component's module by the names they have
// when it is built. In the recipe go.mod and Go files that need other modules
// have other names: with those they would be a module inside ours, which cannot
// be embedded.
func moduleFiles(recipe fs.FS, module string) (map[string]string, error) {
	dir := path.Join("modules", module)
	list, err := fs.ReadDir(recipe, dir)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, d := range list {
		name := d.Name()
		data, err := fs.ReadFile(recipe, path.Join(dir, name))
		if err != nil {
			return nil, err
		}
		switch {
		case strings.HasSuffix(name, "_test.go"):
		case name == "module.mod":
			files["go.mod"] = string(data)
		case name == "module.sum":
			files["go.sum"] = string(data)
		case strings.HasSuffix(name, ".go"), strings.HasSuffix(name, ".go.in"):
			files[strings.TrimSuffix(name, ".in")] = string(data)
		}
	}
	return files, nil
}

func (b *builder) compile(ctx context.Context, c component, files map[string]string, dir string, step *step) (string, error) {
	src, err := b.cache.temp("module-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(src)
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(src, name), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	flags := []string{"-s", "-w"}
	for _, f := range c.LDFlags {
		f, err := c.expand(f)
		if err != nil {
			return "", err
		}
		flags = append(flags, f)
	}
	cgo := "0"
	if c.CGO {
		cgo = "1"
	}
	compiled := 0
	build := func(output string, packages ...string) error {
		args := []string{"build", "-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-tags=" + strings.Join(c.Tags, ","), "-ldflags=" + join(flags), "-o", output}
		return command{
			name: "go", args: append(args, packages...), dir: src,
			env: []string{"CGO_ENABLED=" + cgo, "GOFLAGS=", "GOWORK=off", "GOOS=linux", "GOARCH=" + b.arch, "GOAMD64=v1", "GOEXPERIMENT="},
			line: func(line string) {
				if strings.HasPrefix(line, "go: ") {
					step.progress(line)
					return
				}
				compiled++
				step.progress(fmt.Sprintf("%d packages compiled, %s", compiled, line))
			},
		}.run(ctx)
	}
	// What Go itself would name as we do is built by one command, whose links
	// run side by side.
	var together []string
	for _, bin := range c.Binaries {
		if path.Base(bin.Package) == bin.Name {
			together = append(together, bin.Package)
		} else if err := build(filepath.Join(dir, bin.Name), bin.Package); err != nil {
			return "", err
		}
	}
	if len(together) > 0 {
		if err := build(dir+string(filepath.Separator), together...); err != nil {
			return "", err
		}
	}
	sums := map[string]string{}
	for _, bin := range c.Binaries {
		if sums[bin.Name], err = fileSum(filepath.Join(dir, bin.Name)); err != nil {
			return "", err
		}
	}
	return key(sums)
}

// fileSum returns the SHA-256 of a file's content.
func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
