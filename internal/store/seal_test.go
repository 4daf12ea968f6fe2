package store

import (
	"bytes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newKeyFile(t testing.TB) *FileSealer {
	f := keyFile(t, filepath.Join(t.TempDir(), "key"))
	if err := f.Init(); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSeal(t *testing.T) {
	f := newKeyFile(t)
	plain := []byte("the password is swordfish")
	sealed, err := seal(f, "o/secrets/a", 300, plain)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := seal(f, "o/secrets/a", 300, plain)
	if bytes.Contains(sealed, []byte("swordfish")) || bytes.Equal(sealed, again) {
		t.Fatal("not sealed, or with the same nonce twice")
	}
	version, got, err := unseal(f, "o/secrets/a", sealed)
	if err != nil || version != 300 || !bytes.Equal(got, plain) {
		t.Fatalf("unsealed %q, version %d, %v", got, version, err)
	}
	if _, _, err := unseal(f, "o/secrets/b", sealed); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("moved to another key: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, _, err := unseal(f, "o/secrets/a", bad); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrKeyMissing) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, _, err := unseal(f, "o/secrets/a", sealed[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	if _, _, err := unseal(newKeyFile(t), "o/secrets/a", sealed); !errors.Is(err, ErrKeyMissing) {
		t.Fatalf("another key file: %v", err)
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	f := keyFile(t, path)
	if _, _, err := f.Sealing(); !errors.Is(err, ErrKeyMissing) {
		t.Fatalf("sealing without a key: %v", err)
	}
	if err := f.Init(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v, %v", info.Mode(), err)
	}
	old, _ := seal(f, "k", 1, []byte("old"))
	if err := keyFile(t, path).Init(); err != nil {
		t.Fatalf("Init of a file with a key: %v", err)
	}
	// A second sealer that found no file does not overwrite one made since.
	late := &FileSealer{path: path}
	if err := late.Init(); !errors.Is(err, os.ErrExist) {
		t.Fatalf("overwrote a key file: %v", err)
	}

	// Rotation: a new key first, the old one after it.
	text, _ := os.ReadFile(path)
	fresh := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	if err := os.WriteFile(path, []byte(fresh+"\n"+string(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	rotated := keyFile(t, path)
	if _, plain, err := unseal(rotated, "k", old); err != nil || string(plain) != "old" {
		t.Fatalf("sealed before the rotation: %q, %v", plain, err)
	}
	new, _ := seal(rotated, "k", 1, []byte("new"))
	if _, _, err := unseal(f, "k", new); !errors.Is(err, ErrKeyMissing) {
		t.Fatalf("sealed after the rotation, with the old key: %v", err)
	}

	for name, bad := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"readable": {string(text), 0o640, "0600"},
		"empty":    {"", 0o600, "no key"},
		"short":    {"AAAA\n", 0o600, "key 1"},
		"garbage":  {string(text) + "not base64!\n", 0o600, "key 2"},
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := errors.Join(os.WriteFile(path, []byte(bad.text), 0o600), os.Chmod(path, bad.mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := NewFileSealer(path); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s key file: %v", name, err)
		}
	}
}

// TestKeyMissing: a store with data opens with its key only, and no new key
// is made in its place.
func TestKeyMissing(t *testing.T) {
	o := embedded(t)
	s := open(t, o)
	put(t, s, "a", 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.DataDir, "key")
	kept := path + ".kept"
	if err := os.Rename(path, kept); err != nil {
		t.Fatal(err)
	}
	o.Sealer = keyFile(t, path)
	if _, err := Open(testContext(t), o); !errors.Is(err, ErrKeyMissing) || !strings.Contains(err.Error(), path) {
		t.Fatalf("opened without the key file: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a key file was made for a store that has data: %v", err)
	}
	o.Sealer = newKeyFile(t)
	if _, err := Open(testContext(t), o); !errors.Is(err, ErrKeyMissing) {
		t.Fatalf("opened with another key: %v", err)
	}
	o.Sealer = keyFile(t, kept)
	s = open(t, o)
	if a, err := accounts.Get(s, "a"); err != nil || a.Used != 1 {
		t.Fatalf("with the right key again: %+v, %v", a, err)
	}
}

// openAny opens with one key whatever the id, so that fuzzing gets as far as the cipher.
type openAny struct{ *FileSealer }

func (o openAny) Opening(KeyID) (cipher.AEAD, error) { return o.keys[0].aead, nil }

func FuzzUnseal(f *testing.F) {
	key := openAny{newKeyFile(f)}
	for _, version := range []int{1, 127, 128, 1 << 29} {
		sealed, err := seal(key, "k", version, []byte(`{"id":"a"}`))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed)
		f.Add(sealed[:len(sealed)-1])
	}
	f.Add([]byte{})
	f.Add([]byte{1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		version, plain, err := unseal(key, "k", sealed)
		if err != nil {
			if plain != nil || !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%q, %v", plain, err)
			}
			return
		}
		// Only what seal made opens; sealing it again keeps version and text.
		again, err := seal(key, "k", version, plain)
		if err != nil {
			t.Fatal(err)
		}
		v, p, err := unseal(key, "k", again)
		if err != nil || v != version || !bytes.Equal(p, plain) {
			t.Fatalf("sealed again: %d %q, %v", v, p, err)
		}
	})
}
