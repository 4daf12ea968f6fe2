package node

import (
	"bytes"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/plan"
)

// link is a network interface.
type link struct {
	name, mac string
	addresses []netip.Addr
}

// systemLinks lists the machine's interfaces.
func systemLinks() ([]link, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []link
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			continue
		}
		l := link{name: i.Name, mac: i.HardwareAddr.String()}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				l.addresses = append(l.addresses, p.Addr().Unmap())
			}
		}
		out = append(out, l)
	}
	return out, nil
}

// surveyor finds out facts about the machine. It is not for concurrent use.
type surveyor struct {
	root    string
	version string
	network []model.VMNetwork
	links   func() ([]link, error)
	// onDisk are the kernel's modules on disk: a long list that does not change
	// while the kernel runs, so it is read once. Nil before.
	onDisk map[string]bool
}

// facts never fails: what cannot be read is left out, and the controller sees
// that it is missing.
func (s *surveyor) facts() plan.Facts {
	f := plan.Facts{
		AgentVersion: s.version,
		BootID:       s.line("/proc/sys/kernel/random/boot_id"),
		Hostname:     s.line("/proc/sys/kernel/hostname"),
		Kernel:       s.line("/proc/sys/kernel/osrelease"),
		CPUs:         runtime.NumCPU(), // those of the process's CPU set, thus a container's own
		Memory:       memTotal(s.read("/proc/meminfo")),
		Features:     s.features(),
	}
	links, err := s.links()
	if err != nil {
		return f
	}
	for _, l := range links {
		if !s.ours(l) {
			continue
		}
		for _, a := range l.addresses {
			if a.IsGlobalUnicast() {
				f.Addresses = append(f.Addresses, a.String())
			}
		}
	}
	return f
}

// ours tells the interfaces the node was given from those that its cluster
// made, e.g. bridges of containers.
func (s *surveyor) ours(l link) bool {
	named := false
	for _, n := range s.network {
		if n.MACAddress != "" {
			named = true
			if strings.EqualFold(n.MACAddress, l.mac) {
				return true
			}
		}
	}
	return !named && isPlainNIC(l.name)
}

// isPlainNIC goes by the names that the kernel and udev give to Ethernet cards.
func isPlainNIC(name string) bool {
	return strings.HasPrefix(name, "eth") || strings.HasPrefix(name, "en")
}

// uptime is in seconds, load is the average over one minute.
func (s *surveyor) uptime() (seconds int64, load float64) {
	up, _, _ := strings.Cut(s.line("/proc/uptime"), " ")
	if v, err := strconv.ParseFloat(up, 64); err == nil {
		seconds = int64(v)
	}
	avg, _, _ := strings.Cut(s.line("/proc/loadavg"), " ")
	if v, err := strconv.ParseFloat(avg, 64); err == nil && v >= 0 {
		load = v
	}
	return seconds, load
}

// kernelFeatures are modules that kinds ask about. A module that is built in,
// loaded, or lies where the kernel could load it from counts as there.
var kernelFeatures = []string{
	"br_netfilter", "btrfs", "fuse", "ip_tables", "ip_vs", "nf_conntrack", "nf_tables", "overlay", "tun", "vxlan", "wireguard", "zfs",
}

// traces are paths that exist when a feature is there, since not every one that
// is built in shows below /sys/module.
var traces = map[string]string{
	"br_netfilter": "/proc/sys/net/bridge/bridge-nf-call-iptables",
	"fuse":         "/dev/fuse",
	"ip_vs":        "/proc/net/ip_vs",
	"nf_conntrack": "/proc/sys/net/netfilter/nf_conntrack_max",
	"tun":          "/dev/net/tun",
	// Not modules, but asked about just as much:
	"cgroup2":   "/sys/fs/cgroup/cgroup.controllers",
	"container": "/run/systemd/container", // the machine is a system container and shares its kernel
}

func (s *surveyor) features() []string {
	if s.onDisk == nil {
		s.onDisk = s.modulesOnDisk()
	}
	found := maps.Clone(s.onDisk)
	for name, path := range traces {
		found[name] = found[name] || s.exists(path)
	}
	for _, name := range kernelFeatures {
		found[name] = found[name] || s.exists("/sys/module/"+name)
	}
	for line := range bytes.Lines(s.read("/proc/filesystems")) {
		if name := strings.TrimSpace(strings.TrimPrefix(string(line), "nodev")); slices.Contains(kernelFeatures, name) {
			found[name] = true
		}
	}
	var out []string
	for name, ok := range found {
		if ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (s *surveyor) modulesOnDisk() map[string]bool {
	found := map[string]bool{}
	modules := filepath.Join("/lib/modules", s.line("/proc/sys/kernel/osrelease"))
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		for line := range bytes.Lines(s.read(filepath.Join(modules, list))) {
			path, _, _ := strings.Cut(string(bytes.TrimSpace(line)), ":")
			name, _, _ := strings.Cut(filepath.Base(path), ".ko")
			if slices.Contains(kernelFeatures, name) {
				found[name] = true
			}
		}
	}
	return found
}

func (s *surveyor) exists(path string) bool {
	_, err := os.Stat(filepath.Join(s.root, path))
	return err == nil
}

func (s *surveyor) read(path string) []byte {
	b, err := os.ReadFile(filepath.Join(s.root, path))
	if err != nil {
		return nil
	}
	return b
}

func (s *surveyor) line(path string) string { return string(bytes.TrimSpace(s.read(path))) }

// memTotal reads the total of /proc/meminfo, in bytes; 0 when it is not there.
func memTotal(meminfo []byte) int64 {
	for line := range bytes.Lines(meminfo) {
		if f := bytes.Fields(line); len(f) >= 2 && string(f[0]) == "MemTotal:" {
			if kib, err := strconv.ParseInt(string(f[1]), 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return 0
}
