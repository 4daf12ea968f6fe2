package nodeimage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func testCache(t *testing.T) *cache {
	t.Helper()
	c, err := openCache(t.Context(), t.TempDir(), func() { t.Error("waited") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func fill(content string) func(string) (string, error) {
	return func(dir string) (string, error) {
		return content, os.WriteFile(filepath.Join(dir, "f"), []byte(content), 0o644)
	}
}

func TestCacheKeepsOnePerStage(t *testing.T) {
	c := testCache(t)
	for _, made := range [][2]string{{"a", "k1"}, {"b", "k1"}, {"a", "k2"}} {
		if _, err := c.make(made[0], made[1], fill(made[0]+made[1])); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		stage, key, content string
	}{{"a", "k1", ""}, {"a", "k2", "ak2"}, {"b", "k1", "bk1"}, {"b", "k2", ""}} {
		e, ok := c.find(tt.stage, tt.key)
		if ok != (tt.content != "") {
			t.Errorf("find(%s, %s) = %t", tt.stage, tt.key, ok)
			continue
		}
		if !ok {
			continue
		}
		if data, err := os.ReadFile(e.path("f")); err != nil || string(data) != tt.content || e.ID != tt.content || e.Size == 0 {
			t.Errorf("find(%s, %s): %q, %+v, %v", tt.stage, tt.key, data, e, err)
		}
	}
}

// A stage that fails leaves what was there, and nothing of its own.
func TestCacheFailure(t *testing.T) {
	c := testCache(t)
	if _, err := c.make("a", "k1", fill("old")); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	_, err := c.make("a", "k2", func(dir string) (string, error) {
		if _, err := fill("half")(dir); err != nil {
			t.Fatal(err)
		}
		return "", boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	if _, ok := c.find("a", "k1"); !ok {
		t.Error("the old result is gone")
	}
	if _, ok := c.find("a", "k2"); ok {
		t.Error("the failed result is there")
	}
	left, err := os.ReadDir(filepath.Join(c.dir, "tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestCacheCleansAfterAKill(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "tmp", "node-123", "rootfs")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := openCache(t.Context(), dir, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(left)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
}

func TestCacheIsLocked(t *testing.T) {
	c := testCache(t)
	ctx, cancel := context.WithCancel(t.Context())
	other, err := openCache(ctx, c.dir, cancel)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a second build has the cache: %v, %v", other, err)
	}
}

func TestKey(t *testing.T) {
	get := func(inputs ...any) string {
		t.Helper()
		k, err := key(inputs...)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	base := component{Name: "etcd", Version: "v3.7.0", Tags: []string{"x"}}
	changed := base
	changed.Tags = []string{"y"}
	files := map[string]string{"go.mod": "a", "go.sum": "b"}
	all := []string{
		get("component", 1, base, files), get("component", 2, base, files), get("component", 1, changed, files),
		get("component", 1, base, map[string]string{"go.mod": "a", "go.sum": "c"}), get("component", 1, base), get("ab", "c"), get("a", "bc"),
	}
	if get("component", 1, base, files) != all[0] {
		t.Error("the same inputs gave two keys")
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != 7 {
		t.Error("different inputs gave the same key")
	}
}
