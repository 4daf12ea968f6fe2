package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/node/wire"
)

// talk runs f with a client of one controller that answers as h does, over TLS.
func talk(t *testing.T, h http.HandlerFunc, f func(c *Client)) {
	ca := newAuthority(t)
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = ca.serverTLS(t)
	s.StartTLS()
	defer s.Close()
	c := must(NewClient(bootstrap.Bootstrap{ControllerURLs: []string{s.URL + "/"}, CA: ca.pem()}, nil))(t)
	defer c.Close()
	f(c)
}

func TestWhatControllersAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		err    string
		code   model.Code
	}{
		"our error": {func(w http.ResponseWriter, _ *http.Request) {
			answerError(w, model.Errorf(model.CodeExpiredAuthToken, "it has expired"))
		}, "it has expired", model.CodeExpiredAuthToken},
		"somebody's error": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<h1>", http.StatusTeapot) }, "answered 418", ""},
		"no answer":        {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF", ""},
		"not JSON":         {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }, "invalid character", ""},
		"too much":         {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, wire.MaxAnswer+1)) }, "too large", ""},
		"nothing":          {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			talk(t, c.answer, func(client *Client) {
				_, err := client.Heartbeat(t.Context(), wire.Heartbeat{NodeID: "n"})
				if (err == nil) != (c.err == "") || !strings.Contains(errText(err), c.err) {
					t.Errorf("error %v", err)
				}
				var e *model.Error
				if errors.As(err, &e) != (c.code != "") || (e != nil && e.Code != c.code) {
					t.Errorf("code of %v", err)
				}
			})
		})
	}
}

// The token goes to the controller that the node was told of, nowhere else.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was followed") }))
	defer elsewhere.Close()
	talk(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}, func(c *Client) {
		if _, err := c.Register(t.Context(), wire.RegisterRequest{Token: testToken}); !strings.Contains(errText(err), "307") {
			t.Errorf("error %v", err)
		}
	})
}

// A controller that takes a request and never answers costs one deadline.
func TestEveryRequestHasADeadline(t *testing.T) {
	inWorld(t, func(w *world) {
		w.boot.ControllerURLs = []string{"https://controller-2:9443", "https://controller-1:9443"}
		dead := w.net.listen("controller-2").(*memoryListener)
		go func() {
			for {
				select {
				case c := <-dead.conns:
					defer c.Close() // when the test ends
				case <-dead.done:
					return
				}
			}
		}()
		w.t.Cleanup(func() { dead.Close() })
		began := time.Now()
		w.start()
		w.ctl.await(anyReport)
		if took := time.Since(began); took != requestTimeout {
			t.Errorf("registered after %s", took)
		}
	})
}

// devLXD serves an instance's configuration as LXD does.
func devLXD(t *testing.T, root, socket string, keys map[string]string, status int) {
	t.Helper()
	path := filepath.Join(root, socket)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l := must(net.Listen("unix", path))(t)
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, ok := keys[strings.TrimPrefix(r.URL.Path, "/1.0/config/")]
		switch {
		case status != 0:
			w.WriteHeader(status)
		case !ok:
			http.NotFound(w, r)
		default:
			fmt.Fprint(w, value)
		}
	})}}
	s.Start()
	t.Cleanup(s.Close)
}

func TestSources(t *testing.T) {
	doc := bootstrap.Bootstrap{NodeID: "n1", Hostname: "h", Token: "t", ControllerURLs: []string{"https://c"}, CAFingerprint: strings.Repeat("0f", 32)}
	data := string(must(bootstrap.UserData(doc))(t))
	doc.NodeID = "from-the-file"
	file := must(json.Marshal(doc))(t)
	for name, c := range map[string]struct {
		file      []byte
		lxd       map[string]string
		socket    string
		status    int
		want, err string
	}{
		"nothing":            {err: "no bootstrap document"},
		"file first":         {file: file, lxd: map[string]string{"user.user-data": data}, want: "from-the-file"},
		"broken file":        {file: []byte("{"), lxd: map[string]string{"user.user-data": data}, want: "n1"},
		"cloud-init key":     {lxd: map[string]string{"cloud-init.user-data": data}, want: "n1"},
		"user key":           {lxd: map[string]string{"user.user-data": data}, want: "n1"},
		"other user data":    {lxd: map[string]string{"cloud-init.user-data": "#cloud-config\nruncmd: [ls]\n", "user.user-data": data}, want: "n1"},
		"Incus":              {lxd: map[string]string{"user.user-data": data}, socket: "/dev/incus/sock", want: "n1"},
		"no key":             {lxd: map[string]string{}, err: "no bootstrap document"},
		"forbidden":          {lxd: map[string]string{}, status: http.StatusForbidden, err: "403"},
		"broken user data":   {lxd: map[string]string{"user.user-data": strings.Replace(data, "b64", "b65", 1)}, err: "b65"},
		"too long user data": {lxd: map[string]string{"user.user-data": data + strings.Repeat(" ", bootstrap.MaxSize)}, err: "over"},
	} {
		t.Run(name, func(t *testing.T) {
			// A socket's path is at most 107 bytes long, which a test's own directory exceeds.
			root := must(os.MkdirTemp("", "src"))(t)
			t.Cleanup(func() { _ = os.RemoveAll(root) })
			if c.file != nil {
				if _, err := writeFile(filepath.Join(root, bootstrap.Path), c.file, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.lxd != nil {
				if c.socket == "" {
					c.socket = "/dev/lxd/sock"
				}
				devLXD(t, root, c.socket, c.lxd, c.status)
			}
			b, _, err := ask(t.Context(), sources(root))
			if b.NodeID != c.want || !strings.Contains(errText(err), c.err) || (err == nil) != (c.err == "") {
				t.Errorf("node %q, error %v", b.NodeID, err)
			}
		})
	}
}

func TestNetworkIsSetAtOnceAndForGood(t *testing.T) {
	root := t.TempDir()
	if _, err := writeFile(filepath.Join(root, "/etc/hosts"), []byte("127.0.0.1 localhost\n127.0.1.1 lxd-made\n::1 ip6-localhost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &programs{}
	n := &network{root: root, runner: p, log: quiet(), links: func() ([]link, error) {
		return []link{{name: "eth0", mac: "00:16:3e:00:00:01"}, {name: "eth1", mac: "00:16:3e:00:00:02"}}, nil
	}}
	b := bootstrap.Bootstrap{Hostname: "n1", Network: []model.VMNetwork{
		{MACAddress: "00:16:3E:00:00:02", IPAddress: "100.64.10.5", Prefix: 24, Gateway: "100.64.10.1", DNS: []string{"9.9.9.9", "1.1.1.1"}},
		{MACAddress: "00:16:3e:00:00:01"},
		{MACAddress: "00:16:3e:00:00:03", IPAddress: "fd00::5", Prefix: 64},
	}}
	for round, want := range []bool{true, false} {
		reload, err := n.configure(t.Context(), b)
		if err != nil || reload != want {
			t.Fatalf("round %d: reload %v, error %v", round, reload, err)
		}
	}
	if want := []string{
		"ip link set dev eth1 up",
		"ip address replace 100.64.10.5/24 broadcast + dev eth1",
		"ip route replace default via 100.64.10.1 dev eth1 proto static",
	}; !slices.Equal(p.all()[:3], want) || len(p.all()) != 6 {
		t.Errorf("ran %q", p.all())
	}
	for path, want := range map[string]string{
		"/etc/hostname":                            "n1\n",
		"/proc/sys/kernel/hostname":                "n1\n",
		"/etc/hosts":                               "127.0.0.1 localhost\n::1 ip6-localhost\n100.64.10.5 n1 # pleiad\n",
		"/etc/systemd/network/05-pleiad-0.network": "[Match]\nMACAddress=00:16:3E:00:00:02\nKind=!bridge vlan bond macvlan ipvlan\n\n[Network]\nAddress=100.64.10.5/24\nGateway=100.64.10.1\nIPv6AcceptRA=no\nDNS=9.9.9.9\nDNS=1.1.1.1\n",
		"/etc/systemd/network/05-pleiad-1.network": "[Network]\nDHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n",
		"/etc/systemd/network/05-pleiad-2.network": "Address=fd00::5/64\nIPv6AcceptRA=no\n",
	} {
		got := string(must(os.ReadFile(filepath.Join(root, path)))(t))
		if !strings.HasSuffix(got, want) {
			t.Errorf("%s:\n%s", path, got)
		}
	}
	if got := networkFile(model.VMNetwork{}); !strings.Contains(got, "Name=eth* en*\n") {
		t.Errorf("without a MAC address:\n%s", got)
	}
	if got := hostsFile("", bootstrap.Bootstrap{Hostname: "n2"}); got != "127.0.0.1 localhost\n127.0.1.1 n2 # pleiad\n" {
		t.Errorf("hosts from nothing: %q", got)
	}
}

func TestNetworkdIsToldOnceItIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &programs{}
		tries := 0
		p.set("networkctl", func(context.Context, Cmd) (Output, error) {
			if tries++; tries < 5 {
				return Output{}, errExit
			}
			return Output{}, nil
		})
		n := &network{runner: p, log: quiet()}
		began := time.Now()
		n.reload(t.Context())
		if took := time.Since(began); p.count("networkctl reload") != 5 || took != 2*time.Second {
			t.Errorf("%d tries in %s", tries, took)
		}
		tries = -1 << 30
		n.reload(t.Context())
		if n := p.count("networkctl reload"); n != 5+reloadTries {
			t.Errorf("%d tries", n)
		}
	})
}

func TestFacts(t *testing.T) {
	root := t.TempDir()
	for path, content := range map[string]string{
		"/proc/sys/kernel/random/boot_id":          "b00t\n",
		"/proc/sys/kernel/hostname":                "n1\n",
		"/proc/sys/kernel/osrelease":               "6.1.0\n",
		"/proc/meminfo":                            "MemTotal:        2048 kB\nMemFree: 1 kB\n",
		"/proc/uptime":                             "123.45 99.0\n",
		"/proc/loadavg":                            "0.75 0.5 0.2 1/100 4242\n",
		"/proc/filesystems":                        "nodev\tsysfs\nnodev\toverlay\n\tbtrfs\n",
		"/sys/module/vxlan/refcnt":                 "0",
		"/lib/modules/6.1.0/modules.builtin":       "kernel/fs/fuse/fuse.ko\n",
		"/lib/modules/6.1.0/modules.dep":           "kernel/net/netfilter/ipvs/ip_vs.ko.xz: kernel/x.ko\nkernel/y/unknown.ko:\n",
		"/proc/sys/net/bridge/bridge-nf-call-none": "",
		"/sys/fs/cgroup/cgroup.controllers":        "cpu\n",
	} {
		if _, err := writeFile(filepath.Join(root, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all := []link{
		{"eth0", "00:16:3e:00:00:01", []netip.Addr{netip.MustParseAddr("100.64.10.5"), netip.MustParseAddr("fe80::1")}},
		{"cni0", "0a:00:00:00:00:01", []netip.Addr{netip.MustParseAddr("10.244.0.1")}},
	}
	s := &surveyor{root: root, version: "v1", links: func() ([]link, error) { return all, nil }}
	f := s.facts()
	if f.BootID != "b00t" || f.Hostname != "n1" || f.Kernel != "6.1.0" || f.Memory != 2<<20 || f.AgentVersion != "v1" ||
		!slices.Equal(f.Addresses, []string{"100.64.10.5"}) ||
		!slices.Equal(f.Features, []string{"btrfs", "cgroup2", "fuse", "ip_vs", "overlay", "vxlan"}) {
		t.Errorf("%+v", f)
	}
	if up, load := s.uptime(); up != 123 || load != 0.75 {
		t.Errorf("up %d, load %v", up, load)
	}
	s.network = []model.VMNetwork{{MACAddress: "0A:00:00:00:00:01"}}
	if f := s.facts(); !slices.Equal(f.Addresses, []string{"10.244.0.1"}) {
		t.Errorf("addresses of the named interface: %v", f.Addresses)
	}
	bare := &surveyor{root: t.TempDir(), links: func() ([]link, error) { return nil, errors.New("none") }}
	if f := bare.facts(); f.Memory != 0 || len(f.Features) != 0 || f.CPUs < 1 {
		t.Errorf("nothing to be read: %+v", f)
	}
	if _, err := systemLinks(); err != nil {
		t.Error(err)
	}
}
