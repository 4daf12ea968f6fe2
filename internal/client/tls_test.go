package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/pki"
)

func TestTrust(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	requests := 0
	server := ca.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests++
		_, _ = io.WriteString(w, "{}")
	}))
	roots, strangers := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca.cert)
	strangers.AddCert(stranger.cert)
	byName := strings.Replace(server.URL, "127.0.0.1", "localhost", 1) // which is not in the certificate
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	isUnknown := func(err error) bool { return errors.As(err, &unknown) }
	isHostname := func(err error) bool { return errors.As(err, &hostname) }
	isFingerprint := func(err error) bool { return errors.Is(err, ErrFingerprint) }
	for _, c := range []struct {
		name string
		o    Options
		fits func(error) bool // nil: trusted
	}{
		{"the right roots", Options{Endpoints: []string{server.URL}, RootCAs: roots}, nil},
		{"the right pin", Options{Endpoints: []string{server.URL}, CAFingerprint: Fingerprint(ca.cert)}, nil},
		{"the right pin as people write it", Options{Endpoints: []string{server.URL}, CAFingerprint: pki.FormatFingerprint(Fingerprint(ca.cert))}, nil},
		{"other roots", Options{Endpoints: []string{server.URL}, RootCAs: strangers}, isUnknown},
		{"the machine's roots", Options{Endpoints: []string{server.URL}}, isUnknown},
		{"another pin", Options{Endpoints: []string{server.URL}, CAFingerprint: Fingerprint(stranger.cert)}, isFingerprint},
		{"another host", Options{Endpoints: []string{byName}, CAFingerprint: Fingerprint(ca.cert)}, isHostname},
		{"another host by roots", Options{Endpoints: []string{byName}, RootCAs: roots}, isHostname},
	} {
		t.Run(c.name, func(t *testing.T) {
			requests = 0
			client, err := New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			err = client.Available(t.Context())
			if c.fits == nil {
				if err != nil {
					t.Error(err)
				}
			} else if !c.fits(err) || requests > 0 {
				t.Errorf("%d requests, error %v", requests, err)
			}
		})
	}
}

// A server that shows the pinned certificate beside a chain of its own is not trusted.
func TestBorrowedCA(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	pair := stranger.serving()
	pair.Certificate = append(pair.Certificate, ca.cert.Raw)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	defer server.Close()
	var unknown x509.UnknownAuthorityError
	if err := ca.client(server.URL).Available(t.Context()); !errors.As(err, &unknown) {
		t.Errorf("error %v", err)
	}
	if _, err := FetchCertificate(t.Context(), server.URL); !errors.As(err, &unknown) {
		t.Errorf("error %v", err)
	}
}

func TestFetchCertificate(t *testing.T) {
	ca := newAuthority(t)
	server := ca.serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") }))
	got, err := FetchCertificate(t.Context(), server.URL)
	if err != nil || !got.CA.Equal(ca.cert) || got.Fingerprint != Fingerprint(ca.cert) || got.Leaf.Subject.CommonName != "server" {
		t.Errorf("%+v, %v", got, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(got.PEM()) {
		t.Errorf("PEM %q", got.PEM())
	}
	var hostname x509.HostnameError
	if _, err := FetchCertificate(t.Context(), strings.Replace(server.URL, "127.0.0.1", "localhost", 1)); !errors.As(err, &hostname) {
		t.Errorf("another host: %v", err)
	}
	server.Close()
	if _, err := FetchCertificate(t.Context(), server.URL); err == nil || !strings.Contains(err.Error(), server.URL) {
		t.Errorf("no server: %v", err)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	if _, err := FetchCertificate(t.Context(), strings.Replace(plain.URL, "http:", "https:", 1)); err == nil {
		t.Error("a server without TLS has a certificate")
	}
}
