package pki

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/kind"
)

func TestIssue(t *testing.T) {
	issued := map[string]kind.Secret{}
	for _, r := range []kind.Request{
		{Name: "ca", CA: &kind.CARequest{CommonName: "kubernetes"}},
		{Name: "apiserver", Certificate: &kind.CertificateRequest{Issuer: "ca", CommonName: "kube-apiserver", Server: true,
			DNSNames: []string{"kubernetes.default.svc"}, IPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")}}},
		{Name: "admin", Certificate: &kind.CertificateRequest{Issuer: "ca", CommonName: "kubernetes-admin", Organization: []string{"system:masters"}, Client: true}},
		{Name: "sa", KeyPair: true},
		{Name: "bootstrap", Token: "xxxxxx.xxxxxxxxxxxxxxxx"},
	} {
		s, err := Issue(r, issued, now, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		issued[r.Name] = s
		if again, err := Issue(r, issued, now, rand.Reader); err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%s: not the same the second time, %v", r.Name, err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(issued["ca"].Certificate)
	for name, use := range map[string]x509.ExtKeyUsage{"apiserver": x509.ExtKeyUsageServerAuth, "admin": x509.ExtKeyUsageClientAuth} {
		if _, err := tls.X509KeyPair(issued[name].Certificate, issued[name].Key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c := parse(t, issued[name].Certificate)
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := parse(t, issued["apiserver"].Certificate).VerifyHostname("10.96.0.1"); err != nil {
		t.Error(err)
	}
	if s := issued["sa"]; s.Certificate != nil || !strings.Contains(string(s.PublicKey), "BEGIN PUBLIC KEY") {
		t.Errorf("key pair: %s", s.PublicKey)
	}
	if s := issued["bootstrap"]; len(s.Token) != 23 || s.Key != nil {
		t.Error("bootstrap token has the wrong shape")
	}
	for name, c := range map[string]struct {
		request kind.Request
		says    string
	}{
		"nothing":      {kind.Request{Name: "n"}, "exactly one thing (asks for 0)"},
		"two things":   {kind.Request{Name: "n", KeyPair: true, Token: "x"}, "exactly one thing (asks for 2)"},
		"no name":      {kind.Request{KeyPair: true}, "must have a name"},
		"no issuer":    {kind.Request{Name: "n", Certificate: &kind.CertificateRequest{Issuer: "other", CommonName: "n", Client: true}}, `issue n: its issuer "other" was not issued before`},
		"issuer no CA": {kind.Request{Name: "n", Certificate: &kind.CertificateRequest{Issuer: "admin", CommonName: "n", Client: true}}, "not one of an authority"},
		"no use":       {kind.Request{Name: "n", Certificate: &kind.CertificateRequest{Issuer: "ca", CommonName: "n"}}, "must be for a server, a client or both"},
		"fixed token":  {kind.Request{Name: "n", Token: "secret"}, "must have an x"},
		"unnamed CA":   {kind.Request{Name: "n", CA: &kind.CARequest{}}, "common name must not be empty"},
	} {
		if s, err := Issue(c.request, issued, now, rand.Reader); err == nil || !strings.Contains(err.Error(), c.says) || !reflect.DeepEqual(s, kind.Secret{}) {
			t.Errorf("%s: %v; want %q", name, err, c.says)
		}
	}
}
