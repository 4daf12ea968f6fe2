package lxdhost

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
)

// Config says what daemon there should be.
type Config struct {
	// Dir holds all of the daemon's files. It is absolute and at most 60 bytes
	// long, because the daemon's sockets are below it.
	Dir string
	// Bridge is the network interface instances are put on, at most 15 bytes.
	Bridge string
	// CreateBridge makes the bridge a network of this daemon's, with Address,
	// NAT and DHCP. Otherwise the daemon joins an existing bridge: a second host
	// on one machine joins the bridge of the first, since two NAT bridges could
	// not reach each other.
	CreateBridge bool
	// Address is the bridge's own address and the length of its prefix, e.g.
	// 100.64.10.1/24. Only with CreateBridge.
	Address netip.Prefix
	// HTTPSAddress is where the daemon listens, e.g. 127.0.0.1:8443; empty for
	// its unix socket alone.
	HTTPSAddress string
	// PoolSize bounds the storage pool, in bytes; 30 GiB when 0. The file behind
	// it is sparse.
	PoolSize int64
	// InotifyInstances is what fs.inotify.max_user_instances is raised to where it is
	// lower; 0 leaves it. The host and its privileged containers share it.
	InotifyInstances int64
}

const (
	poolName        = "default"
	defaultPoolSize = 30 << 30
	maxDir          = 60 // sun_path has 108 bytes, and LXD's sockets are deep
	maxInterface    = 15
)

func (c Config) validate() error {
	switch {
	case !filepath.IsAbs(c.Dir) || filepath.Clean(c.Dir) == "/":
		return fmt.Errorf("directory %q is not an absolute path of its own", c.Dir)
	case len(c.Dir) > maxDir:
		return fmt.Errorf("directory %q is longer than %d bytes, too long for the sockets below it", c.Dir, maxDir)
	case c.Bridge == "" || len(c.Bridge) > maxInterface:
		return fmt.Errorf("bridge name %q must have 1 to %d bytes", c.Bridge, maxInterface)
	case c.PoolSize < 0 || c.InotifyInstances < 0:
		return errors.New("sizes and limits must not be negative")
	}
	if c.HTTPSAddress != "" {
		if _, err := netip.ParseAddrPort(c.HTTPSAddress); err != nil {
			return fmt.Errorf("HTTPS address: %w", err)
		}
	}
	if !c.CreateBridge {
		return nil
	}
	if a := c.Address.Addr(); !a.Is4() || c.Address.Bits() > 28 || a == c.Address.Masked().Addr() {
		return fmt.Errorf("bridge address %s must be a host's IPv4 address in a network of at least 16 addresses", c.Address)
	}
	return nil
}

// checkFree says whether a new bridge would collide with the machine's own networks.
func (c Config) checkFree() error {
	ifaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range ifaces {
		if i.Name == c.Bridge {
			return fmt.Errorf("interface %s exists already: choose another name for the bridge", c.Bridge)
		}
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Overlaps(c.Address) {
				return fmt.Errorf("bridge network %s overlaps %s of interface %s: choose another range", c.Address.Masked(), p, i.Name)
			}
		}
	}
	return nil
}

// Ranges splits the bridge's network: the upper quarter is given out by DHCP, the
// rest, without the network's and the bridge's own address, is for static addresses.
func (c Config) Ranges() (staticFirst, staticLast, dhcpFirst, dhcpLast netip.Addr) {
	base := c.Address.Masked().Addr().As4()
	size := uint32(1) << (32 - c.Address.Bits())
	start := uint32(base[0])<<24 | uint32(base[1])<<16 | uint32(base[2])<<8 | uint32(base[3])
	at := func(offset uint32) netip.Addr {
		n := start + offset
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	staticFirst = at(1)
	if staticFirst == c.Address.Addr() {
		staticFirst = at(2)
	}
	return staticFirst, at(size - size/4 - 1), at(size - size/4), at(size - 2)
}

func (c Config) lxdDir() string    { return filepath.Join(c.Dir, "lxd") }
func (c Config) socket() string    { return filepath.Join(c.lxdDir(), "unix.socket") }
func (c Config) log() string       { return filepath.Join(c.Dir, "lxd.log") }
func (c Config) stateFile() string { return filepath.Join(c.Dir, "state.json") }
