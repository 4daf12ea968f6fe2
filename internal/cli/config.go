package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ref is an object the user has chosen to work in.
type ref struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// config is the context file: which server, how it is trusted, who the user is there, and where they work.
type config struct {
	Target string `json:"target,omitempty"`
	// Fingerprint is the SHA-256 of the CA the server is pinned to; when empty, the machine's roots decide.
	Fingerprint string `json:"caFingerprint,omitempty"`
	Token       string `json:"token,omitempty"`
	Tenant      *ref   `json:"tenant,omitempty"`
	Project     *ref   `json:"project,omitempty"`
}

// configPath returns where the context file is.
func configPath(getenv func(string) string) (string, error) {
	if path := getenv("PLEIAD_CONFIG"); path != "" {
		return path, nil
	}
	dir := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // the specification says to ignore a relative one
		home := getenv("HOME")
		if home == "" {
			return "", errors.New("neither PLEIAD_CONFIG, XDG_CONFIG_HOME nor HOME is set, so there is no place for the context file")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "pleiad", "config.json"), nil
}

// loadConfig reads the context file; one that isn't there is empty.
func loadConfig(path string) (config, error) {
	var c config
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("reading the context file: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("context file %s: %w", path, err)
	}
	return c, nil
}

// save writes the context file.
func (c config) save(path string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := writeSecret(path, append(b, '\n')); err != nil {
		return fmt.Errorf("writing the context file: %w", err)
	}
	return nil
}

// writeSecret replaces the file at path, readable by the user alone; whoever
// reads it meanwhile sees the old content or the new, never a part. Folders
// that are missing are made with mode 0700.
func writeSecret(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // has mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
