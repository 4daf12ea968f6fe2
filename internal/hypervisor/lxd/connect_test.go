package lxd_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/hypervisor/lxd"
	"github.com/pleiad/pleiad/internal/hypervisor/lxd/lxdtest"
	"github.com/pleiad/pleiad/internal/model"
)

// refused connects where that must fail with a code, and returns the error.
func refused(t *testing.T, target hypervisor.Target, code model.Code) *model.Error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d, _, err := lxd.Connector{}.Connect(ctx, target)
	if err == nil {
		d.Close()
		t.Fatalf("connected; want %s", code)
	}
	var e *model.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("error %v, want code %s", err, code)
	}
	if target.Password != "" && strings.Contains(err.Error(), target.Password) {
		t.Errorf("the error shows the password: %v", err)
	}
	return e
}

func TestConnectToWhatIsNotLXD(t *testing.T) {
	address := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello</html>")) })
	object := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"metadata":{},"type":"sync"}`)) })
	nothing := http.NotFoundHandler()
	servers := map[string]*httptest.Server{
		"a web page over TLS":    httptest.NewTLSServer(page),
		"another API over TLS":   httptest.NewTLSServer(object),
		"nothing there over TLS": httptest.NewTLSServer(nothing),
		"plain HTTP":             httptest.NewServer(page),
	}
	for name, s := range servers {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(s.Close)
			refused(t, hypervisor.Target{Address: address(s)}, model.CodeHostDriver)
		})
	}
	t.Run("a unix socket of something else", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(page)
		s.Listener.Close()
		s.Listener = l
		s.Start()
		t.Cleanup(s.Close)
		refused(t, hypervisor.Target{Address: "unix:" + path}, model.CodeHostDriver)
	})
	t.Run("no such socket", func(t *testing.T) {
		refused(t, hypervisor.Target{Address: "unix:" + filepath.Join(t.TempDir(), "s")}, model.CodeHostUnreachable)
	})
	t.Run("nobody listens", func(t *testing.T) {
		e := refused(t, hypervisor.Target{Address: lxdtest.FreeAddress(t)}, model.CodeHostUnreachable)
		if !strings.Contains(e.Message, "refused") || e.Action == "" {
			t.Errorf("it does not say what is wrong or what to do: %v", e)
		}
	})
	t.Run("a host that takes the connection and says nothing", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, _, err := (lxd.Connector{}).Connect(ctx, hypervisor.Target{Address: l.Addr().String()}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the caller's deadline", err)
		}
	})
	t.Run("a fingerprint that is none", func(t *testing.T) {
		refused(t, hypervisor.Target{Address: "127.0.0.1:1", Fingerprint: "abc"}, model.CodeHostCertificate)
	})
}

func TestConnectAndTrust(t *testing.T) {
	host := lxdtest.StartHost(t, "100.64.214.1/24")
	good := trusting(t, host)

	wrong := good
	wrong.Fingerprint = strings.Repeat("ab", 32)
	e := refused(t, wrong, model.CodeHostCertificate)
	if e.Data["fingerprint"] != host.Fingerprint {
		t.Errorf("it does not say what the certificate is: %+v", e)
	}

	// A token made by another daemon must not be sent to this one.
	misled := good
	misled.Fingerprint, misled.Password = "", token(t, api.CertificateAddToken{ClientName: "x", Fingerprint: strings.Repeat("cd", 32), Secret: "s"})
	refused(t, misled, model.CodeHostCertificate)

	for name, password := range map[string]string{
		"no password":       "",
		"a wrong password":  "hunter2",
		"an unknown token":  token(t, api.CertificateAddToken{ClientName: "test", Fingerprint: host.Fingerprint, Secret: "unknown"}),
		"an outdated token": token(t, api.CertificateAddToken{ClientName: "test", Fingerprint: host.Fingerprint, Secret: "s", ExpiresAt: time.Unix(1, 0)}),
	} {
		t.Run(name, func(t *testing.T) {
			target := good
			target.Password = password
			if e := refused(t, target, model.CodeHostUnauthorized); e.Action == "" {
				t.Errorf("it does not say what to do: %v", e)
			}
		})
	}
	bare := good
	bare.Certificate, bare.Key = nil, nil
	refused(t, bare, model.CodeHostUnauthorized)

	// The right one, without a fingerprint given: the token vouches for it, and it is told.
	first := good
	first.Fingerprint = ""
	d, fingerprint, err := lxd.Connector{}.Connect(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if fingerprint != host.Fingerprint {
		t.Errorf("fingerprint %s, want %s", fingerprint, host.Fingerprint)
	}
	if facts, err := d.Facts(t.Context()); err != nil || facts.Limits["fs.inotify.max_user_instances"] == 0 {
		t.Errorf("facts of a daemon on this machine: %+v, %v", facts, err)
	}
	// From now on the certificate is known: the token, used up, is not needed.
	for _, password := range []string{good.Password, ""} {
		again := good
		again.Password = password
		connect(t, again)
	}
	// The token cannot be used by anybody else.
	thief := good
	thief.Certificate, thief.Key = newCertificate(t)
	refused(t, thief, model.CodeHostUnauthorized)

	// A trust that is taken away is said in so many words.
	c := raw(t, host)
	certificates, err := c.GetCertificates()
	if err != nil || len(certificates) != 1 {
		t.Fatalf("trusted certificates: %+v, %v", certificates, err)
	}
	if err := c.DeleteCertificate(certificates[0].Fingerprint); err != nil {
		t.Fatal(err)
	}
	if _, err := d.VMs(t.Context()); !errors.Is(err, model.ErrorOf(model.CodeHostUnauthorized)) {
		t.Errorf("error %v, want %s", err, model.CodeHostUnauthorized)
	}
}

func token(t *testing.T, add api.CertificateAddToken) string {
	t.Helper()
	data, err := json.Marshal(add)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(data)
}
