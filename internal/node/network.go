package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/bootstrap"
)

const (
	networkDir = "/etc/systemd/network"
	// networkPrefix sorts ours before what an image or cloud-init brings:
	// systemd-networkd takes the first file that matches.
	networkPrefix = "05-pleiad-"
	ipTimeout     = 5 * time.Second
	// reloadTries, one each half second, are enough for systemd-networkd to come
	// up beside the agent on a slow machine.
	reloadTries = 120
)

// network gives the machine its name and addresses. The files make them last;
// static addresses are set at once as well, since systemd-networkd may not run
// yet, and comes to the same result when it does.
type network struct {
	root   string
	runner Runner
	links  func() ([]link, error)
	log    *slog.Logger
}

// configure returns whether systemd-networkd must be told of new files. Errors
// of setting addresses at once are logged only: the files will do it.
func (n *network) configure(ctx context.Context, b bootstrap.Bootstrap) (reload bool, err error) {
	start := time.Now()
	if err := n.setHostname(b); err != nil {
		return false, err
	}
	for i, w := range b.Network {
		path := filepath.Join(n.root, networkDir, networkPrefix+strconv.Itoa(i)+".network")
		changed, err := writeFile(path, []byte(networkFile(w)), 0o644)
		if err != nil {
			return false, err
		}
		reload = reload || changed
		if w.IPAddress != "" {
			if err := n.setAddress(ctx, w); err != nil {
				n.log.Warn("address not set at once, leaving it to systemd-networkd", "address", w.IPAddress, "error", err)
			}
		}
	}
	n.log.Info("network configured", "took", time.Since(start).Round(time.Millisecond))
	return reload, nil
}

// reload makes systemd-networkd read its files again, trying until it is up.
func (n *network) reload(ctx context.Context) {
	var err error
	for range reloadTries {
		limited, cancel := context.WithTimeout(ctx, ipTimeout)
		_, err = n.runner.Run(limited, Cmd{Argv: []string{"networkctl", "reload"}})
		cancel()
		if err == nil {
			n.log.Info("systemd-networkd has read the network's files")
			return
		}
		if !pause(ctx, 500*time.Millisecond) {
			return
		}
	}
	n.log.Warn("systemd-networkd cannot be told of the network's files; it reads them when it starts", "error", err)
}

// setAddress sets a static address with ip(8).
func (n *network) setAddress(ctx context.Context, w model.VMNetwork) error {
	nic, err := n.nic(w)
	if err != nil {
		return err
	}
	commands := [][]string{
		{"ip", "link", "set", "dev", nic, "up"},
		{"ip", "address", "replace", w.IPAddress + "/" + strconv.Itoa(w.Prefix), "broadcast", "+", "dev", nic},
	}
	if addr, err := netip.ParseAddr(w.IPAddress); err == nil && addr.Is6() {
		commands[1] = []string{"ip", "address", "replace", w.IPAddress + "/" + strconv.Itoa(w.Prefix), "dev", nic}
	}
	if w.Gateway != "" {
		// With systemd-networkd's own protocol mark, so that it takes the route for its own.
		commands = append(commands, []string{"ip", "route", "replace", "default", "via", w.Gateway, "dev", nic, "proto", "static"})
	}
	for _, argv := range commands {
		limited, cancel := context.WithTimeout(ctx, ipTimeout)
		out, err := n.runner.Run(limited, Cmd{Argv: argv})
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(argv[:3], " "), err, lastLine(out.Tail))
		}
	}
	return nil
}

// nic finds the interface by its MAC address; without one, the first Ethernet card.
func (n *network) nic(w model.VMNetwork) (string, error) {
	links, err := n.links()
	if err != nil {
		return "", err
	}
	for _, l := range links {
		if w.MACAddress == "" && isPlainNIC(l.name) || w.MACAddress != "" && strings.EqualFold(l.mac, w.MACAddress) {
			return l.name, nil
		}
	}
	return "", fmt.Errorf("there is no interface with MAC address %q", w.MACAddress)
}

// networkFile renders systemd-networkd's configuration of one interface.
func networkFile(w model.VMNetwork) string {
	var b strings.Builder
	b.WriteString("# Written by pleiad from the node's bootstrap document.\n[Match]\n")
	if w.MACAddress != "" {
		fmt.Fprintf(&b, "MACAddress=%s\n", w.MACAddress)
		// A bridge or VLAN made on the interface inherits its MAC address.
		b.WriteString("Kind=!bridge vlan bond macvlan ipvlan\n")
	} else {
		b.WriteString("Name=eth* en*\n")
	}
	b.WriteString("\n[Network]\n")
	if w.IPAddress != "" {
		fmt.Fprintf(&b, "Address=%s/%d\n", w.IPAddress, w.Prefix)
		if w.Gateway != "" {
			fmt.Fprintf(&b, "Gateway=%s\n", w.Gateway)
		}
		// Waiting for routers that do not advertise would hold up network-online.target.
		b.WriteString("IPv6AcceptRA=no\n")
	} else {
		b.WriteString("DHCP=ipv4\n")
	}
	for _, d := range w.DNS {
		fmt.Fprintf(&b, "DNS=%s\n", d)
	}
	if w.IPAddress == "" {
		// The MAC address as identifier gives a copied machine its own lease.
		b.WriteString("\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n")
	}
	return b.String()
}

// setHostname sets the name now and for later, and makes it resolve without DNS.
func (n *network) setHostname(b bootstrap.Bootstrap) error {
	if _, err := writeFile(filepath.Join(n.root, "/etc/hostname"), []byte(b.Hostname+"\n"), 0o644); err != nil {
		return err
	}
	if err := setKernelHostname(n.root, b.Hostname); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	path := filepath.Join(n.root, "/etc/hosts")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = writeFile(path, []byte(hostsFile(string(old), b)), 0o644)
	return err
}

// setKernelHostname uses the system call, since /proc/sys may be read-only in a
// container. Below another root it must not touch the machine's own name, and
// writes the file that shows it.
func setKernelHostname(root, name string) error {
	if root == "" {
		return syscall.Sethostname([]byte(name))
	}
	_, err := writeFile(filepath.Join(root, "/proc/sys/kernel/hostname"), []byte(name+"\n"), 0o644)
	return err
}

const hostsMark = "# pleiad"

// hostsFile replaces our line in /etc/hosts. The name stands for the node's
// first static address, so that services which look themselves up find the
// address others see; with DHCP it is Debian's 127.0.1.1.
func hostsFile(old string, b bootstrap.Bootstrap) string {
	address := "127.0.1.1"
	for _, w := range b.Network {
		if w.IPAddress != "" {
			address = w.IPAddress
			break
		}
	}
	var out strings.Builder
	loopback := false
	for line := range strings.Lines(old) {
		line = strings.TrimRight(line, "\n")
		fields := strings.Fields(line)
		// 127.0.1.1 is the installer's or cloud-init's idea of the same line.
		if strings.HasSuffix(line, hostsMark) || (len(fields) > 0 && fields[0] == "127.0.1.1") {
			continue
		}
		loopback = loopback || (len(fields) > 0 && fields[0] == "127.0.0.1")
		out.WriteString(line + "\n")
	}
	if !loopback {
		out.WriteString("127.0.0.1 localhost\n")
	}
	fmt.Fprintf(&out, "%s %s %s\n", address, b.Hostname, hostsMark)
	return out.String()
}
