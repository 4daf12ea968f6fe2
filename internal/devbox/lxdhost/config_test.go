package lxdhost_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/devbox/lxdhost"
)

func TestValidate(t *testing.T) {
	good := lxdhost.Config{Dir: "/d", Bridge: "br", CreateBridge: true, Address: netip.MustParsePrefix("100.64.10.1/24"), HTTPSAddress: "127.0.0.1:8443"}
	for _, c := range []struct {
		name   string
		change func(*lxdhost.Config)
		want   string // in the error; empty: valid
	}{
		{"as it should be", func(*lxdhost.Config) {}, ""},
		{"joining a bridge needs no address", func(c *lxdhost.Config) { c.CreateBridge, c.Address = false, netip.Prefix{} }, ""},
		{"no HTTPS", func(c *lxdhost.Config) { c.HTTPSAddress = "" }, ""},
		{"relative directory", func(c *lxdhost.Config) { c.Dir = "d" }, "absolute"},
		{"root directory", func(c *lxdhost.Config) { c.Dir = "/." }, "absolute"},
		{"deep directory", func(c *lxdhost.Config) { c.Dir = "/" + strings.Repeat("d", 60) }, "60 bytes"},
		{"no bridge", func(c *lxdhost.Config) { c.Bridge = "" }, "bridge name"},
		{"long bridge", func(c *lxdhost.Config) { c.Bridge = strings.Repeat("b", 16) }, "15 bytes"},
		{"the network's own address", func(c *lxdhost.Config) { c.Address = netip.MustParsePrefix("100.64.10.0/24") }, "host's IPv4"},
		{"IPv6", func(c *lxdhost.Config) { c.Address = netip.MustParsePrefix("fd00::1/64") }, "IPv4"},
		{"tiny network", func(c *lxdhost.Config) { c.Address = netip.MustParsePrefix("100.64.10.1/29") }, "16 addresses"},
		{"HTTPS address without port", func(c *lxdhost.Config) { c.HTTPSAddress = "127.0.0.1" }, "HTTPS address"},
		{"negative pool", func(c *lxdhost.Config) { c.PoolSize = -1 }, "negative"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := good
			c.change(&config)
			err := config.Validate()
			if (c.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestRanges(t *testing.T) {
	for address, want := range map[string]string{
		"100.64.10.1/24":  "100.64.10.2 100.64.10.191 100.64.10.192 100.64.10.254",
		"100.64.10.30/28": "100.64.10.17 100.64.10.27 100.64.10.28 100.64.10.30",
		"100.64.0.1/10":   "100.64.0.2 100.111.255.255 100.112.0.0 100.127.255.254",
	} {
		a, b, c, d := lxdhost.Config{Address: netip.MustParsePrefix(address)}.Ranges()
		if got := strings.Join([]string{a.String(), b.String(), c.String(), d.String()}, " "); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
