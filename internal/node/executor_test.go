package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/pleiad/pleiad/internal/plan"
)

func TestGuardsAndCleanup(t *testing.T) {
	fails := func(context.Context, Cmd) (Output, error) { return Output{Tail: "no"}, errExit }
	for name, c := range map[string]struct {
		command plan.Command
		cleanup bool
		failing []string
		calls   []string
		err     string
	}{
		"plain":                    {plan.Command{Argv: []string{"run"}, Cleanup: []string{"clean"}}, false, nil, []string{"run"}, ""},
		"second try":               {plan.Command{Argv: []string{"run"}, Cleanup: []string{"clean"}}, true, nil, []string{"clean", "run"}, ""},
		"cleanup fails":            {plan.Command{Argv: []string{"run"}, Cleanup: []string{"clean"}}, true, []string{"clean"}, []string{"clean"}, "cleanup before another try: clean: exit status 1"},
		"creates what is there":    {plan.Command{Argv: []string{"run"}, Creates: "/there"}, false, nil, nil, ""},
		"creates what is not":      {plan.Command{Argv: []string{"run"}, Creates: "/missing"}, false, nil, []string{"run"}, ""},
		"was cut off but is done":  {plan.Command{Argv: []string{"run"}, Creates: "/there", Cleanup: []string{"clean"}}, true, nil, nil, ""},
		"guard says done":          {plan.Command{Argv: []string{"run"}, Unless: []string{"guard"}}, false, nil, []string{"guard"}, ""},
		"guard says not done":      {plan.Command{Argv: []string{"run"}, Unless: []string{"guard"}}, false, []string{"guard"}, []string{"guard", "run"}, ""},
		"guard, cleanup, then run": {plan.Command{Argv: []string{"run"}, Unless: []string{"guard"}, Cleanup: []string{"clean"}}, true, []string{"guard", "run"}, []string{"guard", "clean", "run"}, "run: exit status 1"},
	} {
		p := &programs{}
		for _, f := range c.failing {
			p.set(f, fails)
		}
		x := &executor{root: t.TempDir(), runner: p}
		if err := os.WriteFile(filepath.Join(x.root, "there"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		o := x.perform(t.Context(), plan.Step{ID: "s", Command: &c.command}, c.cleanup)
		if !slices.Equal(p.all(), c.calls) {
			t.Errorf("%s: ran %q", name, p.all())
		}
		if got := errText(o.err); got != c.err {
			t.Errorf("%s: error %q", name, got)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestServicesAreSetBySystemctl(t *testing.T) {
	for state, want := range map[string][]string{
		"started":   {"systemctl enable u.service", "systemctl start u.service"},
		"restarted": {"systemctl enable u.service", "systemctl restart u.service"},
		"stopped":   {"systemctl enable u.service", "systemctl stop u.service"},
	} {
		for _, enable := range []bool{true, false} {
			p := &programs{}
			x := &executor{runner: p}
			o := x.perform(t.Context(), plan.Step{Service: &plan.Service{Unit: "u.service", State: state, Enable: enable}}, false)
			if !enable {
				want = want[1:]
			}
			if o.err != nil || !slices.Equal(p.all(), want) {
				t.Errorf("%s: %q, %v", state, p.all(), o.err)
			}
		}
	}
}

func TestAStepThatIsStoppedIsCutOff(t *testing.T) {
	p := &programs{}
	p.set("run", block)
	x := &executor{runner: p}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, s := range []plan.Step{
		command("a", "run"),
		{ID: "b", Probe: &plan.Probe{Exec: []string{"run"}}},
		{ID: "c", Files: []plan.File{{Path: "/never", Mode: "0600"}}},
	} {
		if o := x.perform(ctx, s, false); o.err != errCutOff || o.logTail != "" {
			t.Errorf("%s: %+v", s.ID, o)
		}
	}
	if p.count("journalctl") != 0 {
		t.Error("logs were gathered of a step that nobody wants")
	}
}

func TestLogTailsShareTheirLimit(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"1.log", "2.log", "3.log", "4.log", "5.log"} {
		if err := os.WriteFile(filepath.Join(root, name), append(bytes.Repeat([]byte(name+" says much\n"), 5000), "the end"...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &programs{}
	p.set("journalctl", func(_ context.Context, c Cmd) (Output, error) {
		if slices.Contains(c.Argv, "gone.service") {
			return Output{}, errExit
		}
		return Output{Tail: strings.Repeat("x", plan.MaxLogTail)}, nil
	})
	x := &executor{root: root, runner: p}
	s := plan.Step{LogUnits: []string{"a.service", "gone.service"}, LogFiles: []string{"/*.log", "/missing/*"}}
	text := x.logs(t.Context(), s, "printed")
	if len(text) > plan.MaxLogTail || strings.Count(text, "the end") != 4 {
		t.Errorf("%d bytes:\n%s", len(text), text)
	}
	for _, words := range []string{"==> output <==\nprinted", "==> journal of a.service <==", "no journal: journalctl: exit status 1", "==> /5.log <=="} {
		if !strings.Contains(text, words) {
			t.Errorf("%q is missing", words)
		}
	}
	if strings.Contains(text, "/1.log") {
		t.Error("the oldest file was taken")
	}
}

// look looks once.
func look(t *testing.T, root string, p plan.Probe) string {
	t.Helper()
	x := &executor{root: root, runner: processes{}}
	return errText(x.look(t.Context(), &p))
}

func TestHTTPProbe(t *testing.T) {
	ca, strange := newAuthority(t), newAuthority(t)
	key := must(newKey())(t)
	client := ca.issue(t, "node", &must(parseKey(key))(t).PublicKey, 1e12)
	status := http.StatusOK
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte("etcd is not ready")) // the client may have gone
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.serverCertificate(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.StartTLS()
	defer s.Close()

	root := t.TempDir()
	for name, content := range map[string][]byte{
		"ca": []byte(ca.pem()), "strange": []byte(strange.pem()), "none": []byte("x"), "key": key,
		"crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: client.Raw}),
	} {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	probe := func(ca, crt string) plan.Probe {
		h := &plan.HTTPProbe{URL: s.URL + "/readyz", CAFile: "/" + ca}
		if crt != "" {
			h.CertFile, h.KeyFile = "/"+crt, "/key"
		}
		return plan.Probe{HTTP: h}
	}
	for _, c := range []struct{ ca, crt, err string }{
		{"ca", "crt", ""},
		{"ca", "", "certificate required"},
		{"strange", "crt", "certificate signed by unknown authority"},
		{"none", "crt", "no PEM certificate"},
		{"missing", "crt", "no such file"},
		{"ca", "missing", "no such file"},
	} {
		got := look(t, root, probe(c.ca, c.crt))
		if (got == "") != (c.err == "") || !strings.Contains(got, c.err) {
			t.Errorf("CA %s, certificate %s: %q", c.ca, c.crt, got)
		}
	}
	away := probe("ca", "crt")
	away.HTTP.URL = s.URL + "/elsewhere"
	if got := look(t, root, away); !strings.Contains(got, "302") {
		t.Errorf("a redirect: %q", got)
	}
	status = http.StatusInternalServerError
	if got := look(t, root, probe("ca", "crt")); !strings.Contains(got, "500") || !strings.Contains(got, "etcd is not ready") {
		t.Errorf("status 500: %q", got)
	}
}

func TestTCPAndExecProbes(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	if got := look(t, "", plan.Probe{TCP: l.Addr().String()}); got != "" {
		t.Errorf("listening: %q", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := look(t, "", plan.Probe{TCP: l.Addr().String()}); !strings.Contains(got, "refused") {
		t.Errorf("not listening: %q", got)
	}
	if got := look(t, "", plan.Probe{Exec: []string{"true"}}); got != "" {
		t.Errorf("true: %q", got)
	}
	if got := look(t, "", plan.Probe{Exec: []string{"sh", "-c", "echo almost; exit 4"}}); got != "sh: exit status 4: almost" {
		t.Errorf("exit 4: %q", got)
	}
}

func TestDNSProbe(t *testing.T) {
	conn := must(net.ListenPacket("udp", "127.0.0.1:0"))(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if err := m.Unpack(buf[:n]); err != nil {
				t.Error(err)
				continue
			}
			m.Response = true
			q := m.Questions[0]
			h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
			switch name := q.Name.String(); {
			case name == "four.test." && q.Type == dnsmessage.TypeA:
				m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: [4]byte{10, 0, 0, 1}}}}
			case name == "six.test." && q.Type == dnsmessage.TypeAAAA:
				m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AAAAResource{}}}
			case name == "late.test.":
				// An answer to an earlier question comes first.
				late := m
				late.ID++
				if _, err := conn.WriteTo(must(late.Pack())(t), from); err != nil {
					t.Error(err)
				}
				m.RCode = dnsmessage.RCodeServerFailure
			case name != "six.test." && name != "none.test.":
				m.RCode = dnsmessage.RCodeNameError
			}
			if _, err := conn.WriteTo(must(m.Pack())(t), from); err != nil {
				t.Error(err)
			}
		}
	}()
	defer func() { _ = conn.Close(); <-ended }()
	for name, want := range map[string]string{
		"four.test": "", "four.test.": "", "six.test": "",
		"none.test": "no address", "late.test": "RCodeServerFailure",
		// In every machine's hosts file, which is not what is asked.
		"localhost":               "RCodeNameError",
		strings.Repeat("x.", 200): "name",
	} {
		got := look(t, "", plan.Probe{DNS: &plan.DNSProbe{Server: conn.LocalAddr().String(), Name: name}})
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
