package nodeimage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// recipe is the content of a versions.yaml; the comments there explain it.
type recipe struct {
	Format     int            `json:"format"`
	Base       baseRecipe     `json:"base"`
	Components []component    `json:"components"`
	Images     []imageRecipe  `json:"images"`
	Layers     []layerRecipe  `json:"layers"`
	Registry   string         `json:"registry"`
	Releases   []releaseEntry `json:"releases"`

	files fs.FS // the recipe's folder
}

type baseRecipe struct {
	Suite    string   `json:"suite"`
	Packages []string `json:"packages"`
}

type component struct {
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Date     string   `json:"date,omitempty"`
	Module   string   `json:"module"`
	Requires string   `json:"requires,omitempty"`
	CGO      bool     `json:"cgo,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	LDFlags  []string `json:"ldflags,omitempty"`
	Binaries []binary `json:"binaries"`
}

func (c component) id() string { return c.Name + "@" + c.Version }

type binary struct {
	Name    string `json:"name"`
	Package string `json:"package"`
	Node    string `json:"node,omitempty"`
}

type imageRecipe struct {
	Name       string            `json:"name"`
	Bare       bool              `json:"bare,omitempty"`
	Layers     []string          `json:"layers,omitempty"`
	Files      map[string]string `json:"files,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	User       string            `json:"user,omitempty"`
}

type layerRecipe struct {
	Name      string              `json:"name"`
	Programs  []string            `json:"programs"`
	Libraries []string            `json:"libraries,omitempty"`
	Files     []string            `json:"files,omitempty"`
	Links     map[string][]string `json:"links,omitempty"`
	Applets   string              `json:"applets,omitempty"`
}

type releaseEntry struct {
	Version    string            `json:"version"`
	Components []string          `json:"components"`
	Tags       map[string]string `json:"tags"`
}

// release is one release of a recipe with its names looked up.
type release struct {
	recipe     *recipe
	version    string
	components []component
	tags       map[string]string
}

var (
	nameRule    = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
	versionRule = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+([.-][0-9A-Za-z.-]+)?$`)
	tagRule     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
)

// loadRecipe reads and checks the recipe in a folder.
func loadRecipe(files fs.FS) (*recipe, error) {
	data, err := fs.ReadFile(files, "versions.yaml")
	if err != nil {
		return nil, err
	}
	r := &recipe{files: files}
	if err := yaml.UnmarshalStrict(data, r); err != nil {
		return nil, fmt.Errorf("versions.yaml: %w", err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("versions.yaml: %w", err)
	}
	return r, nil
}

// release looks up a release by its version; "" is the recipe's first.
func (r *recipe) release(version string) (*release, error) {
	for i := range r.Releases {
		if version == "" || r.Releases[i].Version == version {
			return r.resolve(&r.Releases[i])
		}
	}
	return nil, fmt.Errorf("version %q is not in the recipe, which has %s", version, strings.Join(r.versions(), ", "))
}

func (r *recipe) versions() []string {
	var all []string
	for _, rel := range r.Releases {
		all = append(all, rel.Version)
	}
	return all
}

func (r *recipe) resolve(e *releaseEntry) (*release, error) {
	rel := &release{recipe: r, version: e.Version, tags: e.Tags}
	for _, id := range e.Components {
		i := slices.IndexFunc(r.Components, func(c component) bool { return c.id() == id })
		if i < 0 {
			return nil, fmt.Errorf("release %s: component %s is not defined", e.Version, id)
		}
		rel.components = append(rel.components, r.Components[i])
	}
	return rel, nil
}

// reference returns the full reference of one of the release's images.
func (rel *release) reference(image string) string {
	return rel.recipe.Registry + "/" + image + ":" + rel.tags[image]
}

// references returns the references of all of the release's images by name.
func (rel *release) references() map[string]string {
	all := map[string]string{}
	for _, img := range rel.recipe.Images {
		all[img.Name] = rel.reference(img.Name)
	}
	return all
}

// expand puts the component's own values into one of its linker flags.
func (c component) expand(flag string) (string, error) {
	parts := strings.SplitN(strings.TrimPrefix(c.Version, "v"), ".", 3)
	values := map[string]string{"version": c.Version, "major": parts[0], "minor": parts[1], "date": c.Date}
	var unknown error
	out := os.Expand(flag, func(name string) string {
		if values[name] == "" {
			unknown = fmt.Errorf("component %s: ldflags: no value for ${%s}", c.Name, name)
		}
		return values[name]
	})
	return out, unknown
}

func (r *recipe) check() error {
	if r.Format != 1 {
		return fmt.Errorf("format is %d, only 1 is known", r.Format)
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !nameRule.MatchString(r.Base.Suite) || len(r.Base.Packages) == 0 {
		bad("base: suite %q with %d packages", r.Base.Suite, len(r.Base.Packages))
	}
	for _, p := range r.Base.Packages {
		if !nameRule.MatchString(p) {
			bad("base: package %q", p)
		}
	}
	if !nameRule.MatchString(r.Registry) {
		bad("registry %q", r.Registry)
	}
	seen := map[string]bool{}
	for _, c := range r.Components {
		if seen[c.id()] {
			bad("component %s is defined twice", c.id())
		}
		seen[c.id()] = true
		if err := r.checkComponent(c); err != nil {
			bad("component %s: %w", c.id(), err)
		}
	}
	if len(r.Releases) == 0 {
		bad("no releases")
	}
	for i := range r.Releases {
		if err := r.checkRelease(&r.Releases[i]); err != nil {
			bad("release %s: %w", r.Releases[i].Version, err)
		}
	}
	return errors.Join(errs...)
}

func (r *recipe) checkComponent(c component) error {
	if !nameRule.MatchString(c.Name) || !versionRule.MatchString(c.Version) || !nameRule.MatchString(c.Module) {
		return fmt.Errorf("name %q, version %q, module %q", c.Name, c.Version, c.Module)
	}
	if len(c.Binaries) == 0 {
		return errors.New("no binaries")
	}
	for _, b := range c.Binaries {
		if !nameRule.MatchString(b.Name) || b.Package == "" || b.Node != "" && !fs.ValidPath(b.Node) {
			return fmt.Errorf("binary %q of package %q at %q", b.Name, b.Package, b.Node)
		}
	}
	for _, f := range c.LDFlags {
		if _, err := c.expand(f); err != nil {
			return err
		}
	}
	mod, err := fs.ReadFile(r.files, path.Join("modules", c.Module, "module.mod"))
	if err != nil {
		return err
	}
	if c.Requires != "" && !requiresExactly(string(mod), c.Requires, c.Version) {
		return fmt.Errorf("modules/%s/module.mod does not require %s %s", c.Module, c.Requires, c.Version)
	}
	return nil
}

// requiresExactly reports whether a go.mod requires a module at a version.
func requiresExactly(mod, module, version string) bool {
	for line := range strings.Lines(mod) {
		line, _, _ = strings.Cut(line, "//")
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) == 2 && fields[0] == module && fields[1] == version {
			return true
		}
	}
	return false
}

func (r *recipe) checkRelease(e *releaseEntry) error {
	if !versionRule.MatchString(e.Version) {
		return errors.New("not a version")
	}
	rel, err := r.resolve(e)
	if err != nil {
		return err
	}
	binaries, names := map[string]bool{}, map[string]bool{}
	for _, c := range rel.components {
		if names[c.Name] {
			return fmt.Errorf("two versions of component %s", c.Name)
		}
		names[c.Name] = true
		for _, b := range c.Binaries {
			if binaries[b.Name] {
				return fmt.Errorf("two binaries %s", b.Name)
			}
			binaries[b.Name] = true
		}
	}
	for _, img := range r.Images {
		if !nameRule.MatchString(img.Name) || !tagRule.MatchString(e.Tags[img.Name]) {
			return fmt.Errorf("image %q has tag %q", img.Name, e.Tags[img.Name])
		}
		for p, b := range img.Files {
			if !fs.ValidPath(p) || !binaries[b] {
				return fmt.Errorf("image %s: binary %q at %q", img.Name, b, p)
			}
		}
		for _, name := range img.Layers {
			if !slices.ContainsFunc(r.Layers, func(l layerRecipe) bool { return l.Name == name }) {
				return fmt.Errorf("image %s: no layer %q", img.Name, name)
			}
		}
	}
	if len(e.Tags) != len(r.Images) {
		return fmt.Errorf("%d tags for %d images", len(e.Tags), len(r.Images))
	}
	return nil
}
