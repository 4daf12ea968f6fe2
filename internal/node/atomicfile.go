package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// writeFile makes the file at path have this content and mode, whole or not at
// all: what reads it, or a machine that loses power, sees the old or the new.
// Parents are created with mode 0755. A symbolic link at path is replaced, not
// followed. It reports whether anything had to change.
func writeFile(path string, content []byte, mode fs.FileMode) (changed bool, err error) {
	if same, err := hasContent(path, content, mode); err != nil || same {
		return false, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	// The temporary name is always the same, so that a crash leaves at most one,
	// and the next try takes it over.
	tmp := filepath.Join(dir, "."+filepath.Base(path)+".pleiad-new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // after a good Close this is a no-op with an error nobody needs
			_ = os.Remove(tmp)
		}
	}()
	if _, err := f.Write(content); err != nil {
		return false, err
	}
	if err := f.Chmod(mode); err != nil {
		return false, err
	}
	if err := f.Sync(); err != nil {
		return false, err
	}
	if err := f.Close(); err != nil {
		return false, err
	}
	if err := os.Rename(tmp, path); err != nil {
		return false, err
	}
	return true, syncDir(dir)
}

// hasContent reports whether path is a regular file with this content and mode.
func hasContent(path string, content []byte, mode fs.FileMode) (bool, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return false, nil // creating it will say what is in the way
	case err != nil:
		return false, err
	case info.IsDir():
		return false, fmt.Errorf("%s is a directory", path)
	case info.Mode() != mode || info.Size() != int64(len(content)):
		return false, nil
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	return bytes.Equal(old, content), nil
}

// syncDir makes a rename or a new name in dir last through a loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// fileMode turns permission bits in the usual octal form, setuid and its kin
// included, into Go's.
func fileMode(octal uint64) fs.FileMode {
	m := fs.FileMode(octal & 0o777)
	for bit, flag := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if octal&bit != 0 {
			m |= flag
		}
	}
	return m
}
