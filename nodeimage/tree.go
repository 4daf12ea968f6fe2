package nodeimage

import (
	"archive/tar"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// tree is the content of a container image's layer, by slash-separated path
// without a leading slash. The same tree always gives the same tar.
type tree map[string]node

// node is a directory, a symbolic link, or a file with its content here or in
// a file of the build machine.
type node struct {
	mode fs.FileMode
	link string
	data string
	file string
}

// skeleton returns what programs expect of any root: Debian's merged /usr,
// names for the users that we run as, and a /tmp.
func skeleton() tree {
	t := tree{
		"tmp":               {mode: fs.ModeDir | 0o1777},
		"etc/passwd":        {mode: 0o644, data: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\nnonroot:x:65532:65532:nonroot:/nonexistent:/bin/false\n"},
		"etc/group":         {mode: 0o644, data: "root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\n"},
		"etc/nsswitch.conf": {mode: 0o644, data: "hosts: files dns\n"},
	}
	for _, dir := range []string{"root", "run", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var/run"} {
		t[dir] = node{mode: fs.ModeDir | 0o755}
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		t[dir] = node{mode: fs.ModeSymlink | 0o777, link: "usr/" + dir}
	}
	return t
}

// addLayer adds what a layer recipe takes from the base system at root.
// applets are the commands that the layer's multi-call program has.
func (t tree) addLayer(root string, l layerRecipe, applets []string) error {
	files := slices.Concat(l.Programs, l.Files)
	for _, pattern := range l.Libraries {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("layer %s: nothing is at %s", l.Name, pattern)
		}
		for _, f := range found {
			files = append(files, strings.TrimPrefix(f, root+"/"))
		}
	}
	for _, f := range files {
		if err := t.addFile(root, f); err != nil {
			return fmt.Errorf("layer %s: %w", l.Name, err)
		}
	}
	for target, names := range l.Links {
		for _, name := range names {
			t[name] = node{mode: fs.ModeSymlink | 0o777, link: "/" + target}
		}
	}
	for _, name := range applets {
		// The commands' directories are busybox's own idea; all are in /usr/bin,
		// and none hides a real program.
		if p := "usr/bin/" + path.Base(name); t[p].mode == 0 {
			t[p] = node{mode: fs.ModeSymlink | 0o777, link: "/" + l.Applets}
		}
	}
	return nil
}

// addFile adds a file of the system at root, what it links to, and the shared
// libraries and the loader that it needs.
func (t tree) addFile(root, name string) error {
	name = merged(name)
	if _, ok := t[name]; ok {
		return nil
	}
	full := filepath.Join(root, name)
	info, err := os.Lstat(full)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		link, err := os.Readlink(full)
		if err != nil {
			return err
		}
		t[name] = node{mode: fs.ModeSymlink | 0o777, link: link}
		if !path.IsAbs(link) {
			link = path.Join("/", path.Dir(name), link)
		}
		return t.addFile(root, link)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", name)
	}
	t[name] = node{mode: info.Mode().Perm(), file: full}
	needed, err := neededBy(full)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, lib := range needed {
		found, err := findLibrary(root, lib)
		if err == nil {
			err = t.addFile(root, found)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// merged returns a path of Debian's merged /usr by its only real name.
func merged(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	switch first, _, _ := strings.Cut(name, "/"); first {
	case "bin", "sbin", "lib", "lib64":
		return "usr/" + name
	}
	return name
}

// neededBy returns the libraries that an ELF file names, and its loader by its
// path; of any other file, nothing.
func neededBy(name string) ([]string, error) {
	f, err := elf.Open(name)
	var format *elf.FormatError
	if errors.As(err, &format) || errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	needed, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			loader, err := io.ReadAll(p.Open())
			if err != nil {
				return nil, err
			}
			needed = append(needed, strings.TrimRight(string(loader), "\x00"))
		}
	}
	return needed, nil
}

func findLibrary(root, lib string) (string, error) {
	if path.IsAbs(lib) {
		return lib, nil
	}
	for _, dir := range []string{"usr/lib/*-linux-gnu*", "usr/lib"} {
		found, err := filepath.Glob(filepath.Join(root, dir, lib))
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return strings.TrimPrefix(found[0], root+"/"), nil
		}
	}
	return "", fmt.Errorf("library %s is not in the base system", lib)
}

// write writes the tree as a tar: sorted, owned by root, without times.
func (t tree) write(w io.Writer) error {
	all := maps.Clone(t)
	for name := range t {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = node{mode: fs.ModeDir | 0o755}
			}
		}
	}
	tw := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := all[name].write(tw, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return tw.Close()
}

func (n node) write(tw *tar.Writer, name string) error {
	h := &tar.Header{Name: name, Mode: int64(n.mode.Perm()), Size: int64(len(n.data)), Typeflag: tar.TypeReg}
	switch {
	case n.mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		h.Mode = int64(n.mode & 0o7777)
	case n.link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, n.link
	case n.file != "":
		f, err := os.Open(n.file)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		h.Size = info.Size()
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err = io.Copy(tw, f)
		return err
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(tw, n.data)
	return err
}
