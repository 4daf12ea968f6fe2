package archive

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Describe returns the payload that the file name would be at path: its size
// and checksum are taken by reading it once.
func Describe(name, path string, format Format) (Payload, error) {
	f, err := os.Open(name)
	if err != nil {
		return Payload{}, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.CopyBuffer(sum, f, make([]byte, copyBuffer))
	if err != nil {
		return Payload{}, err
	}
	return Payload{Path: path, Format: format, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// Write writes an archive to w: the manifest m, then each of its payloads from
// the file at its path under dir. The same manifest and files give the same
// bytes. A file whose length is not the manifest's is an error; checksums are
// the caller's, as Describe gave them.
func Write(w io.Writer, m *Manifest, dir string) error {
	if err := m.Validate(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if len(data) > MaxManifestSize {
		return fmt.Errorf("%w: manifest of %d bytes, at most %d allowed", ErrInvalid, len(data), MaxManifestSize)
	}
	tw := tar.NewWriter(w)
	header := func(name string, size int64) error {
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: m.Created.UTC()})
	}
	if err := header(ManifestName, int64(len(data))); err != nil {
		return err
	}
	if _, err := tw.Write(data); err != nil {
		return err
	}
	for _, p := range m.Payloads {
		if err := header(p.Path, p.Size); err != nil {
			return err
		}
		if err := writeFile(tw, filepath.Join(dir, filepath.FromSlash(p.Path))); err != nil {
			return fmt.Errorf("payload %s: %w", p.Path, err)
		}
	}
	return tw.Close() // reports a payload shorter than its header said
}

func writeFile(w io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(w, f, make([]byte, copyBuffer))
	return err
}
