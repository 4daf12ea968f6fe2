// Package imagefile keeps the files of uploaded images in a directory of the
// server: each image's payloads, ready to be streamed to hosts.
//
// An upload is streamed to disk and checked as it comes; it appears under its
// id only when it is whole and synced, by a rename. What a crash left of an
// upload or of a deletion is removed when the directory is opened again; an
// image that was stored and then not recorded, by Prune.
//
// A Store is safe for concurrent use; the caller gives each upload an id of its own.
package imagefile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/nodeimage/archive"
)

// Store keeps images below a directory.
type Store struct {
	dir string
}

// File describes a stored image.
type File struct {
	// Size and SHA256 (hexadecimal) are those of the uploaded file.
	Size     int64             `json:"size"`
	SHA256   string            `json:"sha256"`
	Manifest *archive.Manifest `json:"manifest"`
}

const (
	descriptor = "image.json"
	partial    = ".partial-"
)

// Open opens the directory, creating it (mode 0700) if need be, and removes
// what unfinished uploads and deletions left there.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open image directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open image directory: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), partial) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("remove unfinished upload: %w", err)
			}
		}
	}
	return &Store{dir}, nil
}

// Prune deletes the images whose ids known refuses, and returns their ids, also
// with an error. It must not run beside Save: an image that was just saved may
// not be known yet. What is not an image of ours stays.
func (s *Store) Prune(known func(id string) bool) (pruned []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read image directory: %w", err)
	}
	for _, e := range entries {
		id := e.Name()
		if strings.HasPrefix(id, partial) || known(id) {
			continue
		}
		if _, err := os.Stat(filepath.Join(s.dir, id, descriptor)); err != nil {
			continue // not made by Save
		}
		if err := s.Delete(id); err != nil {
			return pruned, err
		}
		pruned = append(pruned, id)
	}
	return pruned, nil
}

// Save stores the image read from r under id. Errors are *model.Error with codes
// UnsupportedImageFileType, ImageUploadError or StorageFull where the cause is
// the upload or the disk; nothing is left then. When Save returns nil, the image
// outlives a crash of the machine.
func (s *Store) Save(ctx context.Context, id string, r io.Reader) (_ *File, err error) {
	tmp := filepath.Join(s.dir, partial+id)
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return nil, storageError("create a directory for the image", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	in := &meter{r: r, sum: sha256.New()}
	a, err := archive.Open(in)
	if err != nil {
		return nil, uploadError(err)
	}
	if err := s.checkSpace(a.Manifest().Size()); err != nil {
		return nil, err
	}
	if err := a.Extract(ctx, tmp); err != nil {
		return nil, uploadError(err)
	}
	// The digest is of the whole upload, so what follows the archive's end (padding) is read too.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, uploadError(err)
	}
	f := &File{Size: in.n, SHA256: hex.EncodeToString(in.sum.Sum(nil)), Manifest: a.Manifest()}
	b, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("describe image: %w", err)
	}
	if err := os.WriteFile(filepath.Join(tmp, descriptor), b, 0o600); err != nil {
		return nil, storageError("write the image's description", err)
	}
	if err := syncTree(tmp); err != nil {
		return nil, storageError("store the image", err)
	}
	if err := os.Rename(tmp, filepath.Join(s.dir, id)); err != nil {
		return nil, storageError("store the image", err)
	}
	if err := syncFile(s.dir); err != nil {
		return nil, errors.Join(storageError("store the image", err), s.Delete(id))
	}
	return f, nil
}

// syncTree brings a directory and all below it to the disk. The payloads are
// there already; what is left are small files and the names of all.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncFile(path)
	})
}

// syncFile brings a file, or a directory's entries, to the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// checkSpace refuses an upload that the disk cannot take, with a tenth of the
// size to spare, before it is received rather than at its end.
func (s *Store) checkSpace(size int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return fmt.Errorf("look at the image directory: %w", err)
	}
	free := int64(st.Bavail) * st.Bsize
	if need := size + size/10; need > free {
		return model.Errorf(model.CodeStorageFull,
			"the image has %d MB, and the server's disk has %d MB free", need>>20, free>>20).
			Do("free space in the server's data directory, or delete images that are not used")
	}
	return nil
}

// Describe returns the description of a stored image; fs.ErrNotExist if there is none.
func (s *Store) Describe(id string) (*File, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, id, descriptor))
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", id, err)
	}
	var f File
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("read image %s: %w", id, err)
	}
	return &f, nil
}

// OpenPayload opens the payload of one format; fs.ErrNotExist if the image has
// none. The caller closes it.
func (s *Store) OpenPayload(id string, format archive.Format) (*os.File, error) {
	f, err := s.Describe(id)
	if err != nil {
		return nil, err
	}
	p, ok := f.Manifest.Payload(format)
	if !ok {
		return nil, fmt.Errorf("image %s has no payload of format %s: %w", id, format, fs.ErrNotExist)
	}
	return os.Open(filepath.Join(s.dir, id, filepath.FromSlash(p.Path)))
}

// Delete removes an image; one that is gone is no error. It is gone at once:
// what a crash leaves of it is no image, and goes when the directory is opened.
func (s *Store) Delete(id string) error {
	remains := filepath.Join(s.dir, partial+id)
	err := os.Rename(filepath.Join(s.dir, id), remains)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.RemoveAll(remains)
	}
	if err != nil {
		return fmt.Errorf("delete image %s: %w", id, err)
	}
	return nil
}

// meter counts and sums what is read through it.
type meter struct {
	r   io.Reader
	n   int64
	sum hash.Hash
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.sum.Write(p[:n])
	return n, err
}

func storageError(doing string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return model.Errorf(model.CodeStorageFull, "the server's disk is full: it could not %s", doing).
			Do("free space in the server's data directory")
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// uploadError tells what is wrong with the file from what is wrong with its transfer.
func uploadError(err error) error {
	var known *model.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return storageError("receive the image", err)
	case errors.Is(err, archive.ErrNotImage), errors.Is(err, archive.ErrUnsupported):
		return model.Errorf(model.CodeUnsupportedImageFileType, "%v", err).
			Do("upload a file made by 'pleiad image build'")
	case errors.Is(err, archive.ErrTruncated), errors.Is(err, archive.ErrChecksum), errors.Is(err, archive.ErrInvalid):
		return model.Errorf(model.CodeImageUploadError, "%v", err).
			Do("upload the file again; build it again if that does not help")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return model.Errorf(model.CodeImageUploadError, "the upload was cut off").Do("upload the file again")
	default:
		return err
	}
}
