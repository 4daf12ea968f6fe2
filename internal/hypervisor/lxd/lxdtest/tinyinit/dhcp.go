package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// configure brings an interface up with the address that DHCP offers it. A lease
// is not requested: the driver's reservations are what is tested.
func configure(name string) (netip.Addr, error) {
	if err := setFlagsUp(name); err != nil {
		return netip.Addr{}, fmt.Errorf("%s up: %w", name, err)
	}
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Addr{}, err
	}
	addr, err := discover(ifi)
	if err != nil {
		return netip.Addr{}, err
	}
	return addr, setAddress(name, addr)
}

const magicCookie = 0x63825363

// discover broadcasts DHCPDISCOVER until an offer comes.
func discover(ifi *net.Interface) (netip.Addr, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = errors.Join(
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_BROADCAST, 1),
				syscall.BindToDevice(int(fd), ifi.Name))
		})
		return errors.Join(err, failed)
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp4", ":68")
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	request := make([]byte, 240, 300)
	copy(request, []byte{1, 1, 6, 0})       // BOOTREQUEST over Ethernet
	copy(request[4:], ifi.HardwareAddr[2:]) // transaction
	request[10] = 0x80                      // answer by broadcast: we have no address
	copy(request[28:], ifi.HardwareAddr)    // client
	binary.BigEndian.PutUint32(request[236:], magicCookie)
	request = append(request, 53, 1, 1, 255) // DHCPDISCOVER
	request = append(request, make([]byte, 56)...)
	answer := make([]byte, 1500)
	const tries = 40
	for range tries {
		if _, err := conn.WriteTo(request, &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil {
			return netip.Addr{}, err
		}
		if err := conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond)); err != nil {
			return netip.Addr{}, err
		}
		for {
			n, _, err := conn.ReadFrom(answer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return netip.Addr{}, err
			}
			if n >= 240 && answer[0] == 2 && bytes.Equal(answer[4:8], request[4:8]) {
				return netip.AddrFrom4([4]byte(answer[16:20])), nil
			}
		}
	}
	return netip.Addr{}, errors.New("no DHCP server answers")
}

// ifreq is the kernel's struct ifreq, with room for its largest member.
type ifreq struct {
	name [syscall.IFNAMSIZ]byte
	data [24]byte
}

func ioctl(request uintptr, r *ifreq) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(r))); errno != 0 {
		return errno
	}
	return nil
}

func setFlagsUp(name string) error {
	var r ifreq
	copy(r.name[:], name)
	if err := ioctl(syscall.SIOCGIFFLAGS, &r); err != nil {
		return err
	}
	flags := binary.NativeEndian.Uint16(r.data[:]) | syscall.IFF_UP
	binary.NativeEndian.PutUint16(r.data[:], flags)
	return ioctl(syscall.SIOCSIFFLAGS, &r)
}

func setAddress(name string, addr netip.Addr) error {
	for _, set := range []struct {
		request uintptr
		addr    netip.Addr
	}{
		{syscall.SIOCSIFADDR, addr},
		{syscall.SIOCSIFNETMASK, netip.AddrFrom4([4]byte{255, 255, 255, 0})},
	} {
		var r ifreq
		copy(r.name[:], name)
		binary.NativeEndian.PutUint16(r.data[:], syscall.AF_INET)
		ip := set.addr.As4()
		copy(r.data[4:], ip[:])
		if err := ioctl(set.request, &r); err != nil {
			return err
		}
	}
	return nil
}
