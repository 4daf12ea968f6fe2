package nodeimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pleiad/pleiad/nodeimage/archive"
)

// payloadStage is part of the payloads' key: raise it when this file changes
// what comes out.
const payloadStage = 1

// agentPath is where a node has the agent's binary.
const agentPath = "usr/local/bin/pleiad"

// squashLevel is zstd's compression level.
const squashLevel = 3

const manifestFile = "manifest.json"

// payloads makes what goes into the archive: the payload files at their paths
// and the manifest. This is the stage that adds the agent.
func (b *builder) payloads(ctx context.Context, node entry) (_ entry, err error) {
	agent, err := fileSum(b.options.AgentPath)
	if err != nil {
		return entry{}, fmt.Errorf("the agent's binary: %w", err)
	}
	k, err := key("payloads", payloadStage, node.ID, agent, b.options.Kind)
	if err != nil {
		return entry{}, err
	}
	step := b.report.start("image", "squashfs")
	e, cached := b.cache.find("payloads-"+b.release.version, k)
	defer func() { step.end(e, cached, err) }()
	if cached {
		return e, nil
	}
	if err := checkAgent(b.options.AgentPath, b.arch); err != nil {
		return entry{}, err
	}
	e, err = b.cache.make("payloads-"+b.release.version, k, func(dir string) (string, error) {
		return k, b.squash(ctx, node, dir, agent)
	})
	return e, err
}

func (b *builder) squash(ctx context.Context, node entry, dir, agent string) error {
	m := archive.Manifest{
		FormatVersion: archive.FormatVersion,
		Kind:          b.options.Kind, Version: b.release.version, Architecture: b.arch,
		Created:    time.Now().UTC().Truncate(time.Second),
		Components: map[string]string{"debian": b.release.recipe.Base.Suite},
		Images:     b.release.references(),
	}
	for _, c := range b.release.components {
		m.Components[c.Name] = c.Version
	}
	if err := os.Mkdir(filepath.Join(dir, "lxd"), 0o755); err != nil {
		return err
	}
	metadata, err := lxdMetadata(&m)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "lxd/metadata.tar.gz"), metadata, 0o644); err != nil {
		return err
	}
	rootfs := filepath.Join(dir, "lxd/rootfs.squashfs")
	// The agent is read through a command so that the node's root, which is
	// kept, need not change; its path reaches the shell as a variable's value.
	err = command{
		name: "mksquashfs",
		args: []string{
			node.path("rootfs"), rootfs, "-noappend", "-no-progress", "-comp", "zstd",
			"-Xcompression-level", strconv.Itoa(squashLevel), "-p", agentPath + ` f 0755 0 0 cat "$PLEIAD_AGENT"`,
		},
		env: []string{"PLEIAD_AGENT=" + b.options.AgentPath},
	}.run(ctx)
	if err != nil {
		return err
	}
	// mksquashfs does not mind a command that fails.
	sum := sha256.New()
	if err := (command{name: "unsquashfs", args: []string{"-cat", rootfs, agentPath}, stdout: sum}).run(ctx); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != agent {
		return fmt.Errorf("the agent in the image has sha256 %s, %s has %s: did it change meanwhile?", got, b.options.AgentPath, agent)
	}
	for _, p := range []struct {
		path   string
		format archive.Format
	}{{"lxd/metadata.tar.gz", archive.LXDMetadata}, {"lxd/rootfs.squashfs", archive.LXDSquashfs}} {
		payload, err := archive.Describe(filepath.Join(dir, p.path), p.path, p.format)
		if err != nil {
			return err
		}
		m.Payloads = append(m.Payloads, payload)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, manifestFile), data, 0o644)
}

// lxdArchitectures are LXD's names of architectures by Go's.
var lxdArchitectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// lxdMetadata returns the metadata tarball of a split LXD image.
func lxdMetadata(m *archive.Manifest) ([]byte, error) {
	// JSON is YAML.
	data, err := json.Marshal(map[string]any{
		"architecture":  lxdArchitectures[m.Architecture],
		"creation_date": m.Created.Unix(),
		"properties": map[string]string{
			"description":    fmt.Sprintf("Pleiad node: %s %s", m.Kind, m.Version),
			"os":             "Debian",
			"release":        m.Components["debian"],
			"pleiad.kind":    m.Kind,
			"pleiad.version": m.Version,
		},
	})
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	tw := tar.NewWriter(zw)
	h := &tar.Header{Typeflag: tar.TypeReg, Name: "metadata.yaml", Mode: 0o644, Size: int64(len(data)), ModTime: m.Created}
	if err := tw.WriteHeader(h); err != nil {
		return nil, err
	}
	if _, err := tw.Write(data); err != nil {
		return nil, err
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// checkAgent refuses a binary that would not start in a node.
func checkAgent(name, arch string) error {
	f, err := elf.Open(name)
	if err != nil {
		return fmt.Errorf("the agent's binary %s: %w", name, err)
	}
	defer f.Close()
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != want {
		return fmt.Errorf("the agent's binary %s is for %s, the image is for %s", name, f.Machine, arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("the agent's binary %s is dynamically linked: build it with CGO_ENABLED=0", name)
		}
	}
	return nil
}
