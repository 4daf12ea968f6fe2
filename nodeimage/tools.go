package nodeimage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
)

// tool is a program or a file that the builder needs, and the Debian package
// that has it.
type tool struct {
	program, file, debian string
}

var tools = []tool{
	{program: "mmdebstrap", debian: "mmdebstrap"},
	{program: "mksquashfs", debian: "squashfs-tools"},
	{program: "unsquashfs", debian: "squashfs-tools"},
	{program: "gcc", debian: "gcc"},
	{program: "pkg-config", debian: "pkg-config"},
	{program: "apt-config", debian: "apt"},
	{program: "cp", debian: "coreutils"},
	{program: "chroot", debian: "coreutils"},
	{file: "/usr/include/stdlib.h", debian: "libc6-dev"},
	{file: "/usr/include/seccomp.h", debian: "libseccomp-dev"},
	{file: "/usr/share/keyrings/debian-archive-keyring.gpg", debian: "debian-archive-keyring"},
}

// Packages returns the Debian packages that the builder needs, sorted. Go is
// not among them: Debian 12's is too old for the components.
func Packages() []string {
	var names []string
	for _, t := range tools {
		names = append(names, t.debian)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// checkTools says all that is missing at once, and how to get it.
func checkTools() error {
	var missing []string
	var errs []error
	for _, t := range tools {
		var err error
		if t.program != "" {
			_, err = exec.LookPath(t.program)
		} else {
			_, err = os.Stat(t.file)
		}
		if err != nil {
			missing = append(missing, t.debian)
			errs = append(errs, err)
		}
	}
	if _, err := exec.LookPath("go"); err != nil {
		errs = append(errs, fmt.Errorf("the Go toolchain, 1.26 or newer (https://go.dev/dl/): %w", err))
	}
	if len(errs) == 0 {
		return nil
	}
	if slices.Sort(missing); len(missing) > 0 {
		errs = append(errs, fmt.Errorf("install with: apt-get install --no-install-recommends %s", join(slices.Compact(missing))))
	}
	return fmt.Errorf("build a node image: tools are missing: %w", errors.Join(errs...))
}
