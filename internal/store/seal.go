package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// KeyID names a sealing key: the first bytes of the SHA-256 of the key.
type KeyID [4]byte

// String returns the id in hexadecimal.
func (id KeyID) String() string { return fmt.Sprintf("%x", id[:]) }

// Sealer holds the keys that seal the values of a store. Its keys must not be
// kept in that store, nor in its backups.
type Sealer interface {
	// Sealing returns the key that seals new values. The error wraps
	// ErrKeyMissing when there is none.
	Sealing() (KeyID, cipher.AEAD, error)
	// Opening returns the key with that id, to open values sealed with it. The
	// error wraps ErrKeyMissing when there is none.
	Opening(KeyID) (cipher.AEAD, error)
	// Init makes a first key if there is none at all. Open calls it for a store
	// that holds nothing yet, and only then: a key made later would hide that
	// the right one is lost.
	Init() error
}

// The layout of a sealed value: one byte format, the schema's version as a
// uvarint, the key's id, the nonce, the ciphertext with its tag. Everything
// before the nonce and the value's own key are authenticated with it, so that
// a value can neither be moved to another key nor given another version.
//
// Nonces are random: a key is good for 2^32 values, over a year of 100 writes
// a second; rotate it before that.
const (
	sealFormat = 1
	nonceSize  = 12
)

func seal(s Sealer, key string, version int, plain []byte) ([]byte, error) {
	id, aead, err := s.Sealing()
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, 1+binary.MaxVarintLen64+len(id)+nonceSize+len(plain)+aead.Overhead())
	out = append(out, sealFormat)
	out = binary.AppendUvarint(out, uint64(version))
	out = append(out, id[:]...)
	header := len(out)
	out = out[:header+nonceSize]
	rand.Read(out[header:])
	return aead.Seal(out, out[header:], plain, additional(out[:header], key)), nil
}

func unseal(s Sealer, key string, sealed []byte) (version int, plain []byte, err error) {
	if len(sealed) == 0 || sealed[0] != sealFormat {
		return 0, nil, fmt.Errorf("%w: unknown format", ErrCorrupt)
	}
	v, n := binary.Uvarint(sealed[1:])
	if n <= 0 || v > 1<<30 {
		return 0, nil, fmt.Errorf("%w: bad schema version", ErrCorrupt)
	}
	var id KeyID
	header := 1 + n + len(id)
	if len(sealed) < header+nonceSize {
		return 0, nil, fmt.Errorf("%w: too short", ErrCorrupt)
	}
	copy(id[:], sealed[1+n:])
	aead, err := s.Opening(id)
	if err != nil {
		return 0, nil, err
	}
	nonce, box := sealed[header:header+nonceSize], sealed[header+nonceSize:]
	plain, err = aead.Open(nil, nonce, box, additional(sealed[:header], key))
	if err != nil {
		return 0, nil, fmt.Errorf("%w: not what was sealed", ErrCorrupt)
	}
	return int(v), plain, nil
}

func additional(header []byte, key string) []byte {
	return append(slices.Clone(header), key...)
}

// FileSealer is a Sealer whose keys are in a file: one key a line, 32 bytes in
// base64. The first seals, all open: to rotate, put a new key in the first line.
type FileSealer struct {
	path string
	keys []fileKey
}

type fileKey struct {
	id   KeyID
	aead cipher.AEAD
}

// NewFileSealer reads the keys in the file at path, which nobody but its owner
// may access (mode 0600). The file may be absent: Open then makes it, unless
// the store holds data already.
func NewFileSealer(path string) (*FileSealer, error) {
	f := &FileSealer{path: path}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store: key file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("store: key file %s has mode %04o, so that others can read it: chmod it to 0600",
			path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("store: key file: %w", err)
	}
	for i, line := range bytes.Fields(text) {
		key := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
		n, err := base64.StdEncoding.Decode(key, line)
		if err != nil || n != 32 {
			return nil, fmt.Errorf("store: key file %s: key %d is not 32 bytes in base64", path, i+1)
		}
		if err := f.add(key[:n]); err != nil {
			return nil, err
		}
	}
	if len(f.keys) == 0 {
		return nil, fmt.Errorf("store: key file %s holds no key", path)
	}
	return f, nil
}

func (f *FileSealer) add(key []byte) error {
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("store: key file %s: %w", f.path, err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return fmt.Errorf("store: key file %s: %w", f.path, err)
	}
	sum := sha256.Sum256(key)
	f.keys = append(f.keys, fileKey{KeyID(sum[:4]), aead})
	return nil
}

// Sealing returns the first key of the file.
func (f *FileSealer) Sealing() (KeyID, cipher.AEAD, error) {
	if len(f.keys) == 0 {
		return KeyID{}, nil, fmt.Errorf("%w: there is no key file %s", ErrKeyMissing, f.path)
	}
	return f.keys[0].id, f.keys[0].aead, nil
}

// Opening returns the key of that id, wherever it is in the file.
func (f *FileSealer) Opening(id KeyID) (cipher.AEAD, error) {
	for _, k := range f.keys {
		if k.id == id {
			return k.aead, nil
		}
	}
	if len(f.keys) == 0 {
		return nil, fmt.Errorf("%w: the store is sealed with key %s, and there is no key file %s: put it back from where it was kept",
			ErrKeyMissing, id, f.path)
	}
	return nil, fmt.Errorf("%w: the store is sealed with key %s, which is not in the key file %s: it belongs to another store, or that key was removed too early",
		ErrKeyMissing, id, f.path)
}

// Init makes the key file, with one new key, if it is absent.
func (f *FileSealer) Init() error {
	if len(f.keys) > 0 {
		return nil
	}
	key := make([]byte, 32)
	rand.Read(key)
	if err := writeSynced(f.path, []byte(base64.StdEncoding.EncodeToString(key)+"\n")); err != nil {
		return fmt.Errorf("store: key file: %w", err)
	}
	return f.add(key)
}

// writeSynced creates a file that must not exist, and has it on disk, name and
// all, when it returns: data sealed with a key that a crash takes is lost.
func writeSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
