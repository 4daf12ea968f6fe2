package archive

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// ManifestName is the name of an archive's first entry.
const ManifestName = "pleiad-image.json"

// FormatVersion is the version of the archive format that this package writes,
// and the only one that it reads.
const FormatVersion = 1

// Bounds on what is believed before any of it has been verified.
const (
	// MaxManifestSize is the largest manifest accepted, in bytes.
	MaxManifestSize = 256 << 10
	// MaxPayloads is the largest number of payloads in one archive.
	MaxPayloads = 16
	// MaxPayloadSize is the largest payload accepted, in bytes (1 TiB). A server
	// sets a tighter bound from its disk with Manifest.Size.
	MaxPayloadSize = 1 << 40

	maxNames = 256
	maxText  = 512
)

// Errors that a reader of archives tells apart, by errors.Is. The message that
// wraps them says what exactly was found.
var (
	// ErrNotImage: the data is not a node image archive at all.
	ErrNotImage = errors.New("not a Pleiad node image archive")
	// ErrUnsupported: an archive, but of a format version not known here.
	ErrUnsupported = errors.New("node image archive of an unsupported format version")
	// ErrInvalid: the archive contradicts itself or its manifest breaks a rule.
	ErrInvalid = errors.New("invalid node image archive")
	// ErrTruncated: the data ends before the archive does.
	ErrTruncated = errors.New("truncated node image archive")
	// ErrChecksum: a payload's content is not what the manifest promises.
	ErrChecksum = errors.New("node image archive fails its checksum")
)

// Format names what a payload is.
type Format string

// Formats of payloads. A reader accepts formats that it does not know: a host
// that cannot use a payload ignores it.
const (
	// LXDMetadata is the metadata.tar.gz of a split LXD image.
	LXDMetadata Format = "lxd-metadata"
	// LXDSquashfs is the root file system of a split LXD image.
	LXDSquashfs Format = "lxd-squashfs"
	// QCOW2 is a bootable disk for libvirt/KVM.
	QCOW2 Format = "qcow2"
	// OVA is a virtual appliance for vSphere.
	OVA Format = "ova"
)

// Manifest describes an archive and the image in it.
type Manifest struct {
	// FormatVersion is the archive format's version.
	FormatVersion int `json:"formatVersion"`
	// Kind is the cluster type that nodes of this image serve, as "KUBERNETES".
	Kind string `json:"kind"`
	// Version is that of the kind's main software, as "v1.37.1".
	Version string `json:"version"`
	// Architecture is Go's and Debian's name of it, as "amd64".
	Architecture string `json:"architecture"`
	// Created is when the image was made, in UTC.
	Created time.Time `json:"created"`
	// Components holds the version of each part inside, as "etcd": "v3.7.0".
	Components map[string]string `json:"components"`
	// Images holds the full reference of each preloaded container image by its
	// short name, as "coredns": "pleiad.local/coredns:v1.14.6".
	Images map[string]string `json:"images"`
	// Payloads lists the entries that follow the manifest, in order.
	Payloads []Payload `json:"payloads"`
}

// Payload is one entry after the manifest.
type Payload struct {
	// Path is the entry's name: relative, slash-separated, clean.
	Path   string `json:"path"`
	Format Format `json:"format"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// SHA256 is the content's checksum in lower-case hexadecimal.
	SHA256 string `json:"sha256"`
}

// Size returns the sum of the payloads' sizes in bytes.
func (m *Manifest) Size() int64 {
	var n int64
	for _, p := range m.Payloads {
		n += p.Size
	}
	return n
}

// Payload returns the first payload of format f, and whether there is one.
func (m *Manifest) Payload(f Format) (Payload, bool) {
	for _, p := range m.Payloads {
		if p.Format == f {
			return p, true
		}
	}
	return Payload{}, false
}

// ParseManifest parses and validates a manifest. It never panics, whatever the
// data. Fields that it does not know are ignored, so that a later minor
// addition to the format does not shut out older servers.
func ParseManifest(data []byte) (*Manifest, error) {
	if len(data) > MaxManifestSize {
		return nil, fmt.Errorf("%w: manifest of %d bytes, at most %d allowed", ErrInvalid, len(data), MaxManifestSize)
	}
	// The version is looked at alone first: a manifest of another version may
	// differ in any other field, and the message should say version.
	var head struct {
		FormatVersion *int `json:"formatVersion"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("%w: %s is not JSON: %w", ErrNotImage, ManifestName, err)
	}
	if head.FormatVersion == nil {
		return nil, fmt.Errorf("%w: %s has no formatVersion", ErrNotImage, ManifestName)
	}
	if *head.FormatVersion != FormatVersion {
		return nil, fmt.Errorf("%w: version %d, only %d is known", ErrUnsupported, *head.FormatVersion, FormatVersion)
	}
	m := new(Manifest)
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, ManifestName, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s has data after its end", ErrInvalid, ManifestName)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m, nil
}

// Validate checks the manifest's own rules; it does not look at any payload.
func (m *Manifest) Validate() error {
	if m.FormatVersion != FormatVersion {
		return fmt.Errorf("%w: version %d, only %d is known", ErrUnsupported, m.FormatVersion, FormatVersion)
	}
	for _, f := range []struct{ name, value string }{
		{"kind", m.Kind}, {"version", m.Version}, {"architecture", m.Architecture},
	} {
		if err := checkText(f.name, f.value); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name   string
		values map[string]string
	}{{"components", m.Components}, {"images", m.Images}} {
		if len(f.values) > maxNames {
			return fmt.Errorf("%w: %s has %d entries, at most %d allowed", ErrInvalid, f.name, len(f.values), maxNames)
		}
		for k, v := range f.values {
			if err := errors.Join(checkText(f.name+" name", k), checkText(f.name+" value", v)); err != nil {
				return err
			}
		}
	}
	if len(m.Payloads) == 0 || len(m.Payloads) > MaxPayloads {
		return fmt.Errorf("%w: %d payloads, 1 to %d allowed", ErrInvalid, len(m.Payloads), MaxPayloads)
	}
	for i, p := range m.Payloads {
		if err := p.validate(); err != nil {
			return err
		}
		for _, q := range m.Payloads[:i] {
			if p.Path == q.Path || strings.HasPrefix(p.Path, q.Path+"/") || strings.HasPrefix(q.Path, p.Path+"/") {
				return fmt.Errorf("%w: payload paths %q and %q collide", ErrInvalid, q.Path, p.Path)
			}
		}
	}
	return nil
}

func (p Payload) validate() error {
	if err := errors.Join(checkText("payload path", p.Path), checkText("payload format", string(p.Format))); err != nil {
		return err
	}
	// The path becomes a file under a directory of the server: nothing absolute,
	// no "..", no backslash that another system would read as a separator.
	if !fs.ValidPath(p.Path) || p.Path == "." || p.Path == ManifestName || strings.ContainsRune(p.Path, '\\') {
		return fmt.Errorf("%w: payload path %q", ErrInvalid, p.Path)
	}
	if p.Size < 0 || p.Size > MaxPayloadSize {
		return fmt.Errorf("%w: payload %s has size %d", ErrInvalid, p.Path, p.Size)
	}
	if sum, err := hex.DecodeString(p.SHA256); err != nil || len(sum) != 32 || strings.ToLower(p.SHA256) != p.SHA256 {
		return fmt.Errorf("%w: payload %s has sha256 %q", ErrInvalid, p.Path, p.SHA256)
	}
	return nil
}

// checkText refuses what has no place in a name that is shown and logged.
func checkText(field, s string) error {
	if s == "" || len(s) > maxText {
		return fmt.Errorf("%w: %s has %d bytes, 1 to %d allowed", ErrInvalid, field, len(s), maxText)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return fmt.Errorf("%w: %s %q has a control character", ErrInvalid, field, s)
		}
	}
	return nil
}
