package imagefile

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

// TestDiskFull uploads to a disk that is too small, and to one that fills up on the way.
func TestDiskFull(t *testing.T) {
	b := upload(t)
	for name, options := range map[string]string{
		"too small for the image": "size=16k",
		"full before its end":     "size=1m,nr_inodes=4", // the second payload finds no inode
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); errors.Is(err, syscall.EPERM) {
				t.Skip("needs the right to mount a small disk")
			} else if err != nil {
				t.Fatal(err)
			}
			defer syscall.Unmount(dir, 0)
			s := open(t, dir)
			_, err := s.Save(t.Context(), "big", bytes.NewReader(b))
			if !errors.Is(err, model.ErrorOf(model.CodeStorageFull)) {
				t.Errorf("got %v, want StorageFull", err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
