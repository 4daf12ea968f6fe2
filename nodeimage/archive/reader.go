package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// copyBuffer is the unit in which payloads are streamed, in bytes.
const copyBuffer = 1 << 20

// Reader reads one archive from front to back.
type Reader struct {
	manifest *Manifest
	tar      *tar.Reader
	done     bool
}

// Open reads and validates the manifest at the head of r, and nothing beyond.
// The error wraps ErrNotImage, ErrUnsupported, ErrInvalid or ErrTruncated, or
// is r's own. The caller keeps ownership of r.
func Open(r io.Reader) (*Reader, error) {
	// Whatever kind of file somebody uploads by mistake, its first block tells:
	// reading that block here separates "empty" and "cut off" from "not a tar".
	block := make([]byte, 512)
	n, err := io.ReadFull(r, block)
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: it is empty", ErrNotImage)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: it has only %d bytes", ErrNotImage, n)
	case err != nil:
		return nil, fmt.Errorf("read node image archive: %w", err)
	}
	tr := tar.NewReader(io.MultiReader(bytes.NewReader(block), r))
	h, err := tr.Next()
	switch {
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: it is not a tar file", ErrNotImage)
	case err != nil:
		return nil, readError("its first header", err)
	case h.Name != ManifestName || h.Typeflag != tar.TypeReg:
		return nil, fmt.Errorf("%w: its first entry is %q, expected %q", ErrNotImage, h.Name, ManifestName)
	case h.Size > MaxManifestSize:
		return nil, fmt.Errorf("%w: manifest of %d bytes, at most %d allowed", ErrInvalid, h.Size, MaxManifestSize)
	}
	data, err := io.ReadAll(io.LimitReader(tr, MaxManifestSize+1))
	if err != nil {
		return nil, readError(ManifestName, err)
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, err
	}
	return &Reader{manifest: m, tar: tr}, nil
}

// ReadManifest reads the manifest at the head of r. It is Open for those who
// want nothing else.
func ReadManifest(r io.Reader) (*Manifest, error) {
	a, err := Open(r)
	if err != nil {
		return nil, err
	}
	return a.manifest, nil
}

// Manifest returns the archive's manifest. The caller must not change it.
func (a *Reader) Manifest() *Manifest { return a.manifest }

// Extract streams every payload into dir, at its path, and verifies each. It
// creates missing directories (mode 0755) and files (0644, synced to disk), and
// replaces no file. When it fails it removes the files it made; when it returns
// nil the archive is complete and exact. It may be called once. The error wraps
// ErrInvalid, ErrTruncated or ErrChecksum, or is the file system's, the
// underlying reader's or the context's own.
func (a *Reader) Extract(ctx context.Context, dir string) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, name := range made {
				err = errors.Join(err, os.Remove(name))
			}
		}
	}()
	return a.each(ctx, func(p Payload) (io.WriteCloser, error) {
		name := filepath.Join(dir, filepath.FromSlash(p.Path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return nil, err
		}
		made = append(made, name)
		return syncedFile{f}, nil
	})
}

// Verify reads the archive to its end and checks every payload, keeping
// nothing. Its errors are those of Extract. It may be called once, and instead
// of Extract.
func (a *Reader) Verify(ctx context.Context) error {
	return a.each(ctx, func(Payload) (io.WriteCloser, error) { return discard{}, nil })
}

func (a *Reader) each(ctx context.Context, create func(Payload) (io.WriteCloser, error)) error {
	if a.done {
		return errors.New("node image archive: read twice")
	}
	a.done = true
	buf := make([]byte, copyBuffer)
	for _, p := range a.manifest.Payloads {
		h, err := a.tar.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: payload %s is missing", ErrTruncated, p.Path)
		}
		if err != nil {
			return readError("the header of "+p.Path, err)
		}
		if h.Name != p.Path || h.Typeflag != tar.TypeReg {
			return fmt.Errorf("%w: entry %q where payload %q was expected", ErrInvalid, h.Name, p.Path)
		}
		if h.Size != p.Size {
			return fmt.Errorf("%w: payload %s has %d bytes, its manifest says %d", ErrInvalid, p.Path, h.Size, p.Size)
		}
		if err := a.copy(ctx, p, create, buf); err != nil {
			return err
		}
	}
	switch h, err := a.tar.Next(); {
	case err == nil:
		return fmt.Errorf("%w: entry %q is not in its manifest", ErrInvalid, h.Name)
	case !errors.Is(err, io.EOF):
		return readError("its end", err)
	}
	return nil
}

func (a *Reader) copy(ctx context.Context, p Payload, create func(Payload) (io.WriteCloser, error), buf []byte) (err error) {
	w, err := create(p)
	if err != nil {
		return fmt.Errorf("extract %s: %w", p.Path, err)
	}
	defer func() {
		if cerr := w.Close(); cerr != nil && err == nil {
			err = fmt.Errorf("extract %s: %w", p.Path, cerr)
		}
	}()
	sum := sha256.New()
	for {
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("extract %s: %w", p.Path, err)
		}
		n, rerr := a.tar.Read(buf)
		sum.Write(buf[:n])
		if _, err := w.Write(buf[:n]); err != nil {
			return fmt.Errorf("extract %s: %w", p.Path, err)
		}
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return readError(p.Path, rerr)
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != p.SHA256 {
		return fmt.Errorf("%w: payload %s has sha256 %s, its manifest says %s", ErrChecksum, p.Path, got, p.SHA256)
	}
	return nil
}

func readError(where string, err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it ends within %s", ErrTruncated, where)
	case errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("%w: %s is not a tar header", ErrInvalid, where)
	}
	return fmt.Errorf("read node image archive: %s: %w", where, err)
}

// syncedFile is a file whose Close says whether the data reached the disk.
type syncedFile struct{ *os.File }

func (f syncedFile) Close() error { return errors.Join(f.Sync(), f.File.Close()) }

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
