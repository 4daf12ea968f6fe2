package lxd_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	incus "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/hypervisor/conformance"
	"github.com/pleiad/pleiad/internal/hypervisor/lxd"
	"github.com/pleiad/pleiad/internal/hypervisor/lxd/lxdtest"
	"github.com/pleiad/pleiad/internal/model"
)

func TestConformanceUnix(t *testing.T) {
	image := lxdtest.BuildImage(t)
	host := lxdtest.StartHost(t, "100.64.210.1/24")
	conformance.Run(t, func(t *testing.T) conformance.Fixture {
		target := hypervisor.Target{Address: "unix:" + host.Socket}
		return fixture(t, host, image, connect(t, target), connect(t, target))
	})
}

func TestConformanceHTTPS(t *testing.T) {
	image := lxdtest.BuildImage(t)
	host := lxdtest.StartHost(t, "100.64.211.1/24")
	conformance.Run(t, func(t *testing.T) conformance.Fixture {
		return fixture(t, host, image, connect(t, trusting(t, host)), connect(t, trusting(t, host)))
	})
}

// trusting is a target with a certificate and a token of its own.
func trusting(t *testing.T, host lxdtest.Host) hypervisor.Target {
	t.Helper()
	token, err := host.TrustToken(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	cert, key := newCertificate(t)
	return hypervisor.Target{Address: host.HTTPSAddress, Fingerprint: host.Fingerprint, Certificate: cert, Key: key, Password: token}
}

func connect(t *testing.T, target hypervisor.Target) hypervisor.Driver {
	t.Helper()
	d, _, err := lxd.Connector{}.Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func fixture(t *testing.T, host lxdtest.Host, image lxdtest.Image, driver, other hypervisor.Driver) conformance.Fixture {
	prefix := host.Config.Address.Masked().Addr().As4()
	return conformance.Fixture{
		Driver: driver, Other: other, Datastore: host.Pool,
		Open: func() (hypervisor.Payload, error) { return payload(image), nil },
		Network: func(i int) model.VMNetwork {
			return model.VMNetwork{
				Network:    host.Config.Bridge,
				MACAddress: fmt.Sprintf("02:00:00:00:%02x:%02x", prefix[2], i+1),
				IPAddress:  fmt.Sprintf("%d.%d.%d.%d", prefix[0], prefix[1], prefix[2], 20+i),
				Prefix:     24,
			}
		},
		Foreign: func(t *testing.T) func(t *testing.T) { return foreign(t, host) },
		Images: func(t *testing.T) int {
			images, err := raw(t, host).GetImages()
			if err != nil {
				t.Fatal(err)
			}
			return len(images)
		},
	}
}

func payload(image lxdtest.Image) hypervisor.Payload {
	part := func(b []byte) hypervisor.Part {
		return hypervisor.Part{Reader: bytes.NewReader(b), Size: int64(len(b))}
	}
	return hypervisor.Payload{Parts: map[string]hypervisor.Part{"lxd-metadata": part(image.Metadata), "lxd-squashfs": part(image.Squashfs)}}
}

// raw is a client beside the driver, for what the operator of the host would do.
func raw(t *testing.T, host lxdtest.Host) incus.InstanceServer {
	t.Helper()
	c, err := incus.ConnectIncusUnixWithContext(context.WithoutCancel(t.Context()), host.Socket, &incus.ConnectionArgs{SkipGetEvents: true})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// empty makes an instance without content, as an operator would by hand.
func empty(t *testing.T, c incus.InstanceServer, name string, config map[string]string) {
	t.Helper()
	post := api.InstancesPost{Name: name, Type: api.InstanceTypeContainer, Source: api.InstanceSource{Type: "none"}}
	post.Config = config
	op, err := c.CreateInstance(post)
	if err == nil {
		err = op.Wait()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// foreign makes instances that look like ours: one has our prefix, one an id of ours for another name.
func foreign(t *testing.T, host lxdtest.Host) func(t *testing.T) {
	t.Helper()
	c := raw(t, host)
	empty(t, c, "pleiad-of-somebody", nil)
	empty(t, c, "copied", map[string]string{"user.pleiad.id": "0b6b9e3e-0000-4000-8000-000000000000", "user.pleiad.made": "true"})
	look := func(t *testing.T) string {
		instances, err := c.GetInstances(api.InstanceTypeAny)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, i := range instances {
			if i.Name == "copied" || i.Name == "pleiad-of-somebody" {
				lines = append(lines, fmt.Sprintf("%s %s %v %v", i.Name, i.Status, i.Config, i.Devices))
			}
		}
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	before := look(t)
	if strings.Count(before, "\n") != 1 {
		t.Fatalf("unexpected: %s", before)
	}
	return func(t *testing.T) {
		t.Helper()
		if after := look(t); after != before {
			t.Errorf("what is not ours was\n%s\nand is\n%s", before, after)
		}
	}
}
