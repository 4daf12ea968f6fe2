package server

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
	"github.com/pleiad/pleiad/internal/store/storetest"
)

// Image files without a record go, unless the store knows of none at all: then it
// may be another store than theirs.
func TestImageFilesWithoutARecord(t *testing.T) {
	dir, st := t.TempDir(), storetest.Open(t)
	opened := func() {
		t.Helper()
		if _, err := openImages(dir, st, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	has := func(id string) bool {
		_, err := os.Stat(filepath.Join(dir, id))
		return err == nil
	}
	files, err := openImages(dir, st, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"known", "lost"} {
		if _, err := files.Save(context.Background(), id, bytes.NewReader(nodeImage(t, 100))); err != nil {
			t.Fatal(err)
		}
	}
	opened()
	if !has("known") || !has("lost") {
		t.Error("image files were deleted because the store is empty")
	}
	if _, err := st.Update(context.Background(), "", func(tx *store.Tx) error {
		return store.Images.Create(tx, &model.Image{Meta: model.Meta{ID: "known", Name: "known"}})
	}); err != nil {
		t.Fatal(err)
	}
	opened()
	if !has("known") || has("lost") {
		t.Errorf("known is there: %t, lost is there: %t", has("known"), has("lost"))
	}
}
