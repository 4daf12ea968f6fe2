// Package bootstrap is the first thing a node is told: who it is, how its
// network is set, where its controllers are, how to know them, and the
// one-time token to register with.
//
// The controller renders a Bootstrap into cloud-init user data (UserData); the
// agent reads it back, from that user data or from the file that cloud-init
// makes of it. The package is pure and imports nothing outside the standard
// library and model, since both sides share it. A Bootstrap carries a secret,
// the token: it is never logged whole.
package bootstrap

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/pleiad/pleiad/internal/model"
)

// Path is where the document lies on a node once cloud-init has run.
const Path = "/etc/pleiad/node.json"

// MaxSize bounds a document and the user data it is rendered into, in bytes.
const MaxSize = 64 << 10

// ErrNotOurs is returned by ParseUserData for user data that holds no
// Bootstrap, e.g. that of a plain VM.
var ErrNotOurs = errors.New("user data holds no Pleiad node document")

// Bootstrap is what a node must know before it can ask.
type Bootstrap struct {
	// NodeID is the id of the node's VM.
	NodeID   string `json:"nodeId"`
	Hostname string `json:"hostname"`
	// ControllerURLs are tried in turn, e.g. https://100.64.10.1:9443.
	ControllerURLs []string `json:"controllerUrls"`
	// CAFingerprint is the SHA-256 of the controllers' CA certificate (DER), in
	// hexadecimal. It or CA is required; if both are there they must agree.
	CAFingerprint string `json:"caFingerprint,omitempty"`
	// CA is the controllers' CA certificate, PEM.
	CA string `json:"ca,omitempty"`
	// Token is a JWT, good for one registration of this node.
	Token string `json:"token"`
	// Network are the node's interfaces, found by MAC address. One without an
	// address uses DHCP. None at all leaves the network to the image.
	Network []model.VMNetwork `json:"network,omitempty"`
}

// LogValue keeps the token out of logs.
func (b Bootstrap) LogValue() slog.Value {
	return slog.GroupValue(slog.String("nodeId", b.NodeID), slog.String("hostname", b.Hostname),
		slog.Any("controllers", b.ControllerURLs))
}

// cloudConfig is the part of cloud-init's document that we write and read.
type cloudConfig struct {
	// PreserveHostname: the agent sets the host name; cloud-init must not set
	// another one later, from the hypervisor's name of the VM.
	PreserveHostname bool        `json:"preserve_hostname"`
	WriteFiles       []writeFile `json:"write_files"`
}

type writeFile struct {
	Path        string `json:"path"`
	Owner       string `json:"owner,omitempty"`
	Permissions string `json:"permissions,omitempty"`
	Encoding    string `json:"encoding,omitempty"`
	Content     string `json:"content"`
}

var header = []byte("#cloud-config\n")

// UserData renders a valid Bootstrap as a cloud-config document that writes it
// to Path with mode 0600. The YAML is of the flow kind, that is, JSON: both
// cloud-init and ParseUserData read it without surprises of quoting.
func UserData(b Bootstrap) ([]byte, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	doc, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("node document: %w", err)
	}
	body, err := json.MarshalIndent(cloudConfig{
		PreserveHostname: true,
		WriteFiles: []writeFile{{
			Path: Path, Owner: "root:root", Permissions: "0600",
			Encoding: "b64", Content: base64.StdEncoding.EncodeToString(doc),
		}},
	}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("user data: %w", err)
	}
	out := append(append(bytes.Clone(header), body...), '\n')
	if len(out) > MaxSize {
		return nil, fmt.Errorf("user data is %d bytes, at most %d are allowed", len(out), MaxSize)
	}
	return out, nil
}

// ParseUserData finds and checks the Bootstrap in user data made by UserData.
// It returns ErrNotOurs for other user data.
func ParseUserData(data []byte) (Bootstrap, error) {
	if len(data) > MaxSize {
		return Bootstrap{}, fmt.Errorf("user data is over %d bytes", MaxSize)
	}
	body, ok := bytes.CutPrefix(data, header)
	if !ok {
		return Bootstrap{}, ErrNotOurs
	}
	var c cloudConfig
	if err := json.Unmarshal(body, &c); err != nil {
		// Any other cloud-config is YAML, which is most often not JSON.
		return Bootstrap{}, ErrNotOurs
	}
	for _, f := range c.WriteFiles {
		if f.Path != Path {
			continue
		}
		if f.Encoding != "b64" {
			return Bootstrap{}, fmt.Errorf("user data: %s has encoding %q, not b64", Path, f.Encoding)
		}
		doc, err := base64.StdEncoding.DecodeString(f.Content)
		if err != nil {
			return Bootstrap{}, fmt.Errorf("user data: content of %s: %w", Path, err)
		}
		return Parse(doc)
	}
	return Bootstrap{}, ErrNotOurs
}

// Parse reads and checks a document as it lies at Path. Fields it does not know
// are ignored: a node image may be older than its controller.
func Parse(data []byte) (Bootstrap, error) {
	if len(data) > MaxSize {
		return Bootstrap{}, fmt.Errorf("node document is over %d bytes", MaxSize)
	}
	var b Bootstrap
	if err := json.Unmarshal(data, &b); err != nil {
		return Bootstrap{}, fmt.Errorf("node document: %w", err)
	}
	if err := b.Validate(); err != nil {
		return Bootstrap{}, err
	}
	return b, nil
}
