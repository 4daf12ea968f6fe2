package nodeimage

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pleiad/pleiad/nodeimage/archive"
)

//go:embed kubernetes
var embedded embed.FS

// Kubernetes is the kind of image that the embedded recipe makes.
const Kubernetes = "KUBERNETES"

// recipes are the folders of the embedded recipes by kind.
var recipes = map[string]string{Kubernetes: "kubernetes"}

// compilers is how many components are compiled at once. Go uses all cores for
// one; a second keeps them busy while it downloads and links.
const compilers = 2

// Options says what to build. The zero value of each field has a meaning.
type Options struct {
	// Kind is the cluster type, in any case; "" is Kubernetes.
	Kind string
	// Version is one of Versions; "" is the recipe's default.
	Version string
	// Output is the archive's path; "" is DefaultOutput in the working
	// directory. A file there is replaced, when the new one is complete.
	Output string
	// Mirror is the URL of a Debian archive, optionally followed by white space
	// and that of its security archive; "" is what the machine's apt uses.
	Mirror string
	// CacheDir is where results are kept; "" is pleiad/nodeimage in the user's
	// cache directory. It must be on a file system that has owners and modes.
	CacheDir string
	// AgentPath is the statically linked pleiad binary to put into the image;
	// "" is the running program.
	AgentPath string
	// Refresh makes the Debian base anew, with today's packages.
	Refresh bool
	// Progress is told what happens, one event at a time; it should return soon.
	Progress func(Event)
}

// Result is what was built.
type Result struct {
	// Path is the archive's.
	Path string
	// Size is the archive's, in bytes.
	Size     int64
	Manifest archive.Manifest
	// Unchanged: the archive was there already, made of the same inputs.
	Unchanged bool
	Elapsed   time.Duration
}

// Versions returns the versions that can be built of a kind, the default first.
func Versions(kind string) ([]string, error) {
	r, _, err := findRecipe(kind)
	if err != nil {
		return nil, err
	}
	return r.versions(), nil
}

// DefaultOutput returns the name of the archive of a kind and version.
func DefaultOutput(kind, version string) string {
	return fmt.Sprintf("pleiad-%s-%s-%s.tar", strings.ToLower(kind), version, runtime.GOARCH)
}

func findRecipe(kind string) (*recipe, string, error) {
	if kind == "" {
		kind = Kubernetes
	}
	kind = strings.ToUpper(kind)
	dir, ok := recipes[kind]
	if !ok {
		return nil, "", fmt.Errorf("no recipe for node images of kind %q, only for %s", kind, Kubernetes)
	}
	files, err := fs.Sub(embedded, dir)
	if err != nil {
		return nil, "", err
	}
	r, err := loadRecipe(files)
	return r, kind, err
}

// builder is one build under way.
type builder struct {
	options   Options
	release   *release
	arch      string
	goVersion string
	cache     *cache
	report    *reporter
}

// Build builds a node image. It needs root. When nothing has changed since the
// last time, it says so and ends within a second or two. On an error, and when
// ctx is cancelled, nothing is left but finished stages in the cache.
func Build(ctx context.Context, o Options) (_ Result, err error) {
	start := time.Now()
	b, err := newBuilder(ctx, o)
	if err != nil {
		return Result{}, fmt.Errorf("build a node image: %w", err)
	}
	defer func() { err = errors.Join(err, b.cache.close()) }()
	res, err := b.build(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("build a node image: %w", err)
	}
	res.Elapsed = time.Since(start)
	return res, nil
}

func newBuilder(ctx context.Context, o Options) (*builder, error) {
	r, kind, err := findRecipe(o.Kind)
	if err != nil {
		return nil, err
	}
	o.Kind = kind
	b := &builder{arch: runtime.GOARCH, report: &reporter{listen: o.Progress}}
	if b.release, err = r.release(o.Version); err != nil {
		return nil, err
	}
	if lxdArchitectures[b.arch] == "" {
		return nil, fmt.Errorf("architecture %s is not supported", b.arch)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("root is needed, for file ownership and mounts: run as root or with sudo")
	}
	if err := checkTools(); err != nil {
		return nil, err
	}
	if o.AgentPath == "" {
		if o.AgentPath, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	if o.CacheDir == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		o.CacheDir = filepath.Join(dir, "pleiad", "nodeimage")
	}
	if o.Output == "" {
		o.Output = DefaultOutput(o.Kind, b.release.version)
	}
	if o.Output, err = filepath.Abs(o.Output); err != nil {
		return nil, err
	}
	// Found out now rather than after half an hour.
	if err := checkAgent(o.AgentPath, b.arch); err != nil {
		return nil, err
	}
	if info, err := os.Stat(filepath.Dir(o.Output)); err != nil {
		return nil, fmt.Errorf("output: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("output: %s is not a directory", filepath.Dir(o.Output))
	}
	b.options = o
	// In a directory without a go.mod that could ask for another toolchain.
	if b.goVersion, err = (command{name: "go", args: []string{"env", "GOVERSION"}, dir: os.TempDir()}).output(ctx); err != nil {
		return nil, err
	}
	b.cache, err = openCache(ctx, o.CacheDir, func() {
		b.report.send(Event{Step: "cache", State: Progress, Detail: "waiting for another build in " + o.CacheDir})
	})
	return b, err
}

func (b *builder) build(ctx context.Context) (Result, error) {
	var base entry
	components := make([]entry, len(b.release.components))
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		base, err = b.base(gctx)
		return err
	})
	group.Go(func() error {
		compile, cctx := errgroup.WithContext(gctx)
		compile.SetLimit(compilers)
		for i, c := range b.release.components {
			compile.Go(func() (err error) {
				if err := context.Cause(cctx); err != nil {
					return err // those that had not started need not say they failed
				}
				components[i], err = b.component(cctx, c)
				return err
			})
		}
		return compile.Wait()
	})
	if err := group.Wait(); err != nil {
		return Result{}, err
	}
	node, err := b.node(ctx, base, components)
	if err != nil {
		return Result{}, err
	}
	payloads, err := b.payloads(ctx, node)
	if err != nil {
		return Result{}, err
	}
	return b.write(payloads)
}

// write puts the archive at its path, unless it is there.
func (b *builder) write(payloads entry) (_ Result, err error) {
	res := Result{Path: b.options.Output}
	data, err := os.ReadFile(payloads.path(manifestFile))
	if err != nil {
		return Result{}, err
	}
	if err := json.Unmarshal(data, &res.Manifest); err != nil {
		return Result{}, err
	}
	step := b.report.start("archive", res.Path)
	defer func() { step.end(entry{Size: res.Size}, res.Unchanged, err) }()
	if res.Size, res.Unchanged = sameArchive(res.Path, &res.Manifest); res.Unchanged {
		return res, nil
	}
	f, err := os.CreateTemp(filepath.Dir(res.Path), "."+filepath.Base(res.Path)+"-")
	if err != nil {
		return Result{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = archive.Write(f, &res.Manifest, payloads.dir)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if info, serr := f.Stat(); serr == nil {
		res.Size = info.Size()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return Result{}, err
	}
	return res, os.Rename(f.Name(), res.Path)
}

// sameArchive reports whether the file is an archive with exactly that manifest
// and as long as it must be.
func sameArchive(name string, want *archive.Manifest) (int64, bool) {
	f, err := os.Open(name)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() < want.Size() {
		return 0, false
	}
	have, err := archive.ReadManifest(f)
	if err != nil || !reflect.DeepEqual(have, want) {
		return 0, false
	}
	return info.Size(), true
}
