// Package house holds the rules of the repository as tests: which room may
// import which, what pure rooms must not touch, that every package says what it
// is for, and what no file may contain. A rule that nothing checks is a wish.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pleiad/pleiad/"

// rooms in order: a room imports only rooms listed above it. A prefix stands
// for the packages below it too; the longest prefix counts. Rooms of one line
// may not import each other.
var rooms = [][]string{
	{"internal/model"},
	{"internal/quota"},
	{"internal/placement"},
	{"internal/plan"},
	{"internal/kind"},
	{"internal/kind/kubernetes"},
	{"internal/pki"},
	{"nodeimage/archive"},
	{"internal/store"},
	{"internal/imagefile"},
	{"internal/hypervisor"},
	{"internal/devbox/process"},
	{"internal/devbox/lxdhost"}, // the LXD driver's tests run a real daemon
	{"internal/hypervisor/lxd", "internal/hypervisor/sim"},
	{"internal/hypervisor/conformance"},
	{"internal/node/bootstrap"},
	{"internal/node"},
	{"internal/control/simnode"},
	{"internal/control"},
	{"internal/api"},
	{"internal/client"},
	{"nodeimage"},
	{"internal/cli"},
	{"internal/server"},
	{"internal/devbox"},
	{"cmd"},
	{"test"},
}

// pure rooms do no I/O, read no clock, start no goroutine.
var pure = []string{"internal/model", "internal/quota", "internal/placement", "internal/plan", "internal/kind"}

// banned in pure rooms: the world.
var banned = []string{
	"context", "crypto/rand", "io/fs", "log", "log/slog", "net", "net/http", "os", "os/exec", "os/signal",
	"path/filepath", "runtime", "syscall",
}

// clock is what of package time reads it or waits for it; durations and
// conversions are arithmetic.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

type pkg struct {
	ImportPath   string
	Dir          string
	Doc          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Imports,GoFiles", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// room returns the index of the room a package is in, and the room's name.
func room(path string) (int, string) {
	best, name := -1, ""
	for i, line := range rooms {
		for _, r := range line {
			if (path == r || strings.HasPrefix(path, r+"/")) && len(r) > len(name) {
				best, name = i, r
			}
		}
	}
	return best, name
}

func TestRoomsImportOnlyRoomsAbove(t *testing.T) {
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		at, name := room(path)
		if at < 0 {
			t.Errorf("%s is in no room: give it one in rooms, and a line in docs/architecture.md", path)
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module) {
				continue
			}
			other := strings.TrimPrefix(imp, module)
			below, otherName := room(other)
			if below > at || (below == at && otherName != name) {
				t.Errorf("%s imports %s, which is not above it", path, other)
			}
		}
	}
}

func TestPureRoomsAreCutOffFromTheWorld(t *testing.T) {
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		if !slices.ContainsFunc(pure, func(r string) bool { return path == r || strings.HasPrefix(path, r+"/") }) {
			continue
		}
		for _, imp := range p.Imports {
			if slices.Contains(banned, imp) {
				t.Errorf("pure room %s imports %s", path, imp)
			}
		}
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("pure room %s starts a goroutine in %s", path, name)
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, n.Sel.Name) {
						t.Errorf("pure room %s uses time.%s in %s", path, n.Sel.Name, name)
					}
				}
				return true
			})
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && len(p.Doc) < 20 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

var (
	sleep    = regexp.MustCompile(`time\.Sleep\(`)
	leftOver = regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	// mirror is the host of a registry or a mirror: which ones are used is the
	// machine's own setting, or a flag.
	mirror = regexp.MustCompile(`\b(deb|security|ftp[a-z.]*)\.debian\.org|\bproxy\.golang\.org|\bsum\.golang\.org|\b(registry\.k8s|docker|quay|ghcr)\.io/|\bregistry\.npmjs\.org`)
)

func TestFilesKeepTheHouseRules(t *testing.T) {
	const maxLines, maxBytes = 500, 400_000
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	files := strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	if len(files) < 10 {
		t.Fatalf("only %d files found", len(files))
	}
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join(root(t), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, not committed yet
		} else if err != nil {
			t.Fatal(err)
		}
		if len(b) > maxBytes {
			t.Errorf("%s has %d bytes: binaries and generated data do not belong here", name, len(b))
		}
		if strings.HasPrefix(name, "test/house/") {
			continue
		}
		if found := mirror.Find(b); found != nil {
			t.Errorf("%s names %s: the machine says where things come from", name, found)
		}
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		if n := bytes.Count(b, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines: is there more than one thing in it?", name, n)
		}
		if leftOver.Match(b) {
			t.Errorf("%s leaves something for later", name)
		}
		if strings.HasSuffix(name, "_test.go") && sleep.Match(b) {
			t.Errorf("%s sleeps for a fixed time; await an event", name)
		}
	}
}

// TestRulesCatch proves that the rules above can fail.
func TestRulesCatch(t *testing.T) {
	if at, _ := room("internal/store"); at < 0 {
		t.Error("a known room was not found")
	}
	if at, _ := room("internal/unheard-of"); at >= 0 {
		t.Error("an unknown room was found")
	}
	model, _ := room("internal/model")
	kube, name := room("internal/kind/kubernetes/manifests")
	if model >= kube || name != "internal/kind/kubernetes" {
		t.Errorf("order of rooms is off: %d, %d %s", model, kube, name)
	}
	if !sleep.MatchString("time.Sleep(1)") || !leftOver.MatchString("// TODO: x") || !mirror.MatchString("https://deb.debian.org/debian") || mirror.MatchString("debian.org") {
		t.Error("patterns do not match what they look for")
	}
}
