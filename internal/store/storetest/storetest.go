// Package storetest opens stores for the tests of other packages: the real
// engine in a temporary directory, without fsync. It starts in a tenth of a second.
package storetest

import (
	"path/filepath"
	"testing"

	"github.com/pleiad/pleiad/internal/store"
)

// Options returns options for a store of the test's own. Opened again with
// them, it has kept its data.
func Options(t testing.TB) store.Options {
	t.Helper()
	dir := t.TempDir()
	sealer, err := store.NewFileSealer(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	return store.Options{DataDir: dir, Sealer: sealer, UnsafeNoFsync: true, MinFree: 1}
}

// Open opens an empty store that is closed at the end of the test.
func Open(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), Options(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return s
}
