package nodeimage

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// baseStage is part of the base's key: raise it when this file changes what
// comes out.
const baseStage = 1

// excluded is what no node reads.
var excluded = []string{"doc", "man", "info", "locale", "lintian"}

// base makes the Debian system under a node.
func (b *builder) base(ctx context.Context) (_ entry, err error) {
	r := b.release.recipe
	script, err := fs.ReadFile(r.files, "customize.sh")
	if err != nil {
		return entry{}, err
	}
	k, err := key("base", baseStage, r.Base, string(script), b.arch)
	if err != nil {
		return entry{}, err
	}
	step := b.report.start("base", "Debian "+r.Base.Suite)
	e, cached := b.cache.find("base", k)
	cached = cached && !b.options.Refresh
	defer func() { step.end(e, cached, err) }()
	if cached {
		return e, nil
	}
	sources, err := b.sources(ctx)
	if err != nil {
		return entry{}, err
	}
	e, err = b.cache.make("base", k, func(dir string) (string, error) {
		hook := filepath.Join(dir, "customize.sh")
		if err := os.WriteFile(hook, script, 0o755); err != nil {
			return "", err
		}
		defer os.Remove(hook)
		return b.bootstrap(ctx, filepath.Join(dir, "rootfs"), hook, sources, step)
	})
	return e, err
}

// sources returns the lines of the sources.list to build from.
func (b *builder) sources(ctx context.Context) ([]string, error) {
	suite := b.release.recipe.Base.Suite
	if b.options.Mirror != "" {
		return mirrorSources(b.options.Mirror, suite)
	}
	all, err := machineSources("/")
	if err != nil {
		return nil, err
	}
	return chooseSources(all, suite, b.arch)
}

func (b *builder) bootstrap(ctx context.Context, root, hook string, sources []string, step *step) (string, error) {
	base := b.release.recipe.Base
	args := []string{
		"--mode=root", "--variant=minbase", "--format=directory", "--architectures=" + b.arch,
		"--include=" + strings.Join(base.Packages, ","),
		"--aptopt=Acquire::Languages \"none\"",
	}
	proxies, err := aptNetwork(ctx)
	if err != nil {
		return "", err
	}
	for _, option := range proxies {
		args = append(args, "--aptopt="+option)
	}
	for _, dir := range excluded {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+dir+"/*")
	}
	// The hook's argument is quoted by mmdebstrap's shell, its name by us.
	args = append(args, "--customize-hook='"+strings.ReplaceAll(hook, "'", `'\''`)+`' "$1"`, base.Suite, root, "-")
	err = command{
		name: "mmdebstrap", args: args,
		stdin: strings.NewReader(strings.Join(sources, "\n") + "\n"),
		line:  step.progress,
	}.run(ctx)
	if err != nil {
		return "", err
	}
	// Debian's packages and their versions are what this base is.
	packages, err := command{
		name: "chroot", args: []string{root, "dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\n"},
	}.output(ctx)
	if err != nil {
		return "", err
	}
	list := strings.Split(packages, "\n")
	slices.Sort(list)
	return key(baseStage, list)
}

// aptNetwork returns the machine's own settings of how apt reaches a mirror:
// proxies and certificates.
func aptNetwork(ctx context.Context) ([]string, error) {
	out, err := command{name: "apt-config", args: []string{"dump", "--no-empty", "Acquire"}}.output(ctx)
	if err != nil {
		return nil, err
	}
	var options []string
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(strings.TrimSpace(line), ";")
		if name, _, ok := strings.Cut(line, " "); ok && (strings.HasPrefix(name, "Acquire::http::") || strings.HasPrefix(name, "Acquire::https::")) {
			options = append(options, line)
		}
	}
	return options, nil
}
