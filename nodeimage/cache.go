package nodeimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// cache keeps the results of stages: directories named by stage and key, each
// with an entry file beside its content. A result is made in a temporary
// directory and renamed into place, so what has a name is complete.
type cache struct {
	dir  string
	lock *os.File
}

// entry describes a kept result.
type entry struct {
	// ID identifies the content: later stages' keys are made of it.
	ID string `json:"id"`
	// Size is in bytes; Seconds is how long making it took.
	Size    int64   `json:"size"`
	Seconds float64 `json:"seconds"`

	dir string
}

const entryFile = "entry.json"

// path returns the path of a file of the result.
func (e entry) path(elem ...string) string {
	return filepath.Join(append([]string{e.dir}, elem...)...)
}

// key hashes a stage's inputs, which must be plain data.
func key(inputs ...any) (string, error) {
	data, err := json.Marshal(inputs)
	if err != nil {
		return "", fmt.Errorf("cache key: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16]), nil
}

// openCache takes the cache at dir for this process alone. It waits for another
// that has it, telling waiting once, until ctx is done.
func openCache(ctx context.Context, dir string, waiting func()) (*cache, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(500 * time.Millisecond):
		}
	}
	c := &cache{dir: dir, lock: f}
	// What a build left that was killed without warning.
	if err := c.clean(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cache) close() error { return c.lock.Close() }

func (c *cache) clean() error {
	left, err := os.ReadDir(filepath.Join(c.dir, "tmp"))
	if err != nil {
		return err
	}
	for _, d := range left {
		err = errors.Join(err, removeTree(filepath.Join(c.dir, "tmp", d.Name())))
	}
	return err
}

// temp makes a temporary directory on the cache's file system. The caller
// removes it with removeTree.
func (c *cache) temp(pattern string) (string, error) {
	return os.MkdirTemp(filepath.Join(c.dir, "tmp"), pattern)
}

// find returns the kept result of a stage for a key.
func (c *cache) find(stage, key string) (entry, bool) {
	e := entry{dir: filepath.Join(c.dir, stage, key)}
	data, err := os.ReadFile(e.path(entryFile))
	if err != nil || json.Unmarshal(data, &e) != nil || e.ID == "" {
		return entry{}, false
	}
	return e, true
}

// make makes the result of a stage for a key, in a directory that build fills,
// and drops the stage's other results. build returns the content's ID.
func (c *cache) make(stage, key string, build func(dir string) (string, error)) (_ entry, err error) {
	start := time.Now()
	tmp, err := c.temp(stage + "-")
	if err != nil {
		return entry{}, err
	}
	defer func() { err = errors.Join(err, removeTree(tmp)) }()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return entry{}, err
	}
	e := entry{dir: filepath.Join(c.dir, stage, key)}
	if e.ID, err = build(tmp); err != nil {
		return entry{}, err
	}
	if e.Size, err = treeSize(tmp); err != nil {
		return entry{}, err
	}
	e.Seconds = time.Since(start).Seconds()
	data, err := json.Marshal(e)
	if err != nil {
		return entry{}, err
	}
	if err := os.WriteFile(filepath.Join(tmp, entryFile), data, 0o644); err != nil {
		return entry{}, err
	}
	// Dropping first keeps the disk's peak low: roots are gigabytes.
	if err := removeTree(filepath.Dir(e.dir)); err != nil {
		return entry{}, err
	}
	if err := os.MkdirAll(filepath.Dir(e.dir), 0o755); err != nil {
		return entry{}, err
	}
	return e, os.Rename(tmp, e.dir)
}

// treeSize returns the bytes that the files under dir take up on disk.
func treeSize(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			total += st.Blocks * 512
		}
		return nil
	})
	return total, err
}
