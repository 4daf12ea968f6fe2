package lxdhost

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pleiad/pleiad/internal/devbox/process"
)

// processesOf finds the processes that belong to an LXD directory: the daemon, its
// helpers, container monitors and DNS servers all name the directory in their
// arguments, and the executable is one of LXD's.
func processesOf(lxdDir string) ([]process.Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []process.Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		exe, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if err != nil {
			continue // gone, or a kernel thread
		}
		switch filepath.Base(strings.TrimSuffix(exe, " (deleted)")) {
		case "lxd", "dnsmasq":
		default:
			continue
		}
		args, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !bytes.Contains(args, []byte(lxdDir+"/")) {
			continue
		}
		if p, err := process.Find(pid); err == nil {
			found = append(found, p)
		}
	}
	return found, nil
}
