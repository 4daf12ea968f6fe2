// Command tinyinit is the whole of the image that driver tests boot: the first
// process of a container. It prints its user data on the console, takes the
// address DHCP offers, and ends, as an init does, when the hypervisor
// asks for a shutdown.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	powerOff := make(chan os.Signal, 1)
	// LXC sends SIGRTMIN+3, as to systemd, to a first process that catches it, and Go catches all.
	const sigrtmin3 = syscall.Signal(37)
	signal.Notify(powerOff, syscall.SIGPWR, sigrtmin3)
	hostname, _ := os.Hostname()
	fmt.Println("tinyinit: up as", hostname)
	if data, err := userData(); err != nil {
		fmt.Println("tinyinit: no user data:", err)
	} else {
		fmt.Printf("tinyinit: user data %q\n", data)
	}
	if addr, err := configure("eth0"); err != nil {
		fmt.Println("tinyinit: no address:", err)
	} else {
		fmt.Println("tinyinit: address", addr)
	}
	<-powerOff
	fmt.Println("tinyinit: powering off")
}

// userData reads it where the node agent does: from the socket the hypervisor puts into the container.
func userData() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", "/dev/lxd/sock")
		if err != nil {
			return d.DialContext(ctx, "unix", "/dev/incus/sock")
		}
		return conn, nil
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://guest/1.0/config/cloud-init.user-data", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	return io.ReadAll(resp.Body)
}
