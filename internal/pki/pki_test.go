package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func authority(t testing.TB, name string) *Authority {
	t.Helper()
	a, err := NewAuthority(name, AuthorityValidity, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t testing.TB, a *Authority, leaf Leaf) Pair {
	t.Helper()
	p, err := a.Issue(leaf, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parse(t testing.TB, text []byte) *x509.Certificate {
	t.Helper()
	c, err := ParseCertificate(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// handshake has a TLS client and server meet at a time, each showing its certificate and
// trusting an authority; it returns the first error of either side and what the server saw.
func handshake(t *testing.T, server, client Pair, trustServer, trustClient *Authority, name string, at time.Time) (*x509.Certificate, error) {
	t.Helper()
	load := func(p Pair) []tls.Certificate {
		c, err := tls.X509KeyPair(p.Certificate, p.Key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{c}
	}
	clock := func() time.Time { return at }
	near, far := net.Pipe()
	s := tls.Server(near, &tls.Config{Certificates: load(server), ClientCAs: trustClient.Pool(), ClientAuth: tls.RequireAndVerifyClientCert, Time: clock})
	c := tls.Client(far, &tls.Config{Certificates: load(client), RootCAs: trustServer.Pool(), ServerName: name, Time: clock})
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		near.Close()
		done <- err
	}()
	err := c.Handshake()
	if err == nil {
		// Only a read tells a client of TLS 1.3 whether the server took its certificate.
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	far.Close()
	if errServer := <-done; err == nil || errServer != nil && strings.Contains(errServer.Error(), "certificate") {
		err = errServer
	}
	if err != nil {
		return nil, err
	}
	return s.ConnectionState().PeerCertificates[0], nil
}

func TestTLSAcceptsTheChain(t *testing.T) {
	ours, other := authority(t, "ours"), authority(t, "other")
	server := issue(t, ours, Leaf{CommonName: "api", Server: true, DNSNames: []string{"api.example"}, IPs: []netip.Addr{netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd00::1")}})
	client := issue(t, ours, Leaf{CommonName: "admin", Organization: []string{"system:masters"}, Client: true})
	for _, name := range []string{"api.example", "100.64.0.1", "fd00::1"} {
		seen, err := handshake(t, server, client, ours, ours, name, now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if seen.Subject.CommonName != "admin" || !slices.Equal(seen.Subject.Organization, []string{"system:masters"}) {
			t.Errorf("%s: the server saw %v", name, seen.Subject)
		}
	}
	for name, c := range map[string]struct {
		server, client           Pair
		trustServer, trustClient *Authority
		host                     string
		at                       time.Time
	}{
		"other name":             {server, client, ours, ours, "100.64.0.2", now},
		"other server authority": {server, client, other, ours, "api.example", now},
		"other client authority": {server, client, ours, other, "api.example", now},
		"client as server":       {client, client, ours, ours, "api.example", now},
		"server as client":       {server, server, ours, ours, "api.example", now},
		"too late":               {server, client, ours, ours, "api.example", now.Add(LeafValidity + time.Second)},
		"too early":              {server, client, ours, ours, "api.example", now.Add(-Skew - time.Second)},
	} {
		if _, err := handshake(t, c.server, c.client, c.trustServer, c.trustClient, c.host, c.at); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := handshake(t, server, client, ours, ours, "api.example", now.Add(-Skew)); err != nil {
		t.Errorf("a clock that is behind by the skew: %v", err)
	}
}

func TestCertificateContents(t *testing.T) {
	a := authority(t, "ours")
	root := parse(t, a.Certificate())
	if !root.IsCA || !root.MaxPathLenZero || !root.NotAfter.Equal(now.Add(AuthorityValidity)) || root.Subject.CommonName != "ours" {
		t.Errorf("authority: %+v", root)
	}
	one := parse(t, issue(t, a, Leaf{CommonName: "n", Client: true}).Certificate)
	two := parse(t, issue(t, a, Leaf{CommonName: "n", Client: true, Validity: time.Hour}).Certificate)
	if one.IsCA || one.SerialNumber.Cmp(two.SerialNumber) == 0 || one.SerialNumber.Sign() <= 0 {
		t.Errorf("leaf: %+v", one)
	}
	if !one.NotBefore.Equal(now.Add(-Skew)) || !one.NotAfter.Equal(now.Add(LeafValidity)) || !two.NotAfter.Equal(now.Add(time.Hour)) {
		t.Errorf("validity: %v to %v; %v", one.NotBefore, one.NotAfter, two.NotAfter)
	}
	// A leaf ends with its authority, and none is made after that.
	short, err := NewAuthority("short", time.Hour, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if c := parse(t, issue(t, short, Leaf{CommonName: "n", Client: true}).Certificate); !c.NotAfter.Equal(now.Add(time.Hour)) {
		t.Errorf("ends at %v, after its authority", c.NotAfter)
	}
	if _, err := short.Issue(Leaf{CommonName: "n", Client: true}, now.Add(time.Hour), rand.Reader); err == nil {
		t.Error("an ended authority still signs")
	}
	for name, leaf := range map[string]Leaf{
		"no name": {Client: true}, "no use": {CommonName: "n"}, "empty address": {CommonName: "n", Server: true, IPs: []netip.Addr{{}}},
	} {
		if _, err := a.Issue(leaf, now, rand.Reader); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewAuthority("", time.Hour, now, rand.Reader); err == nil {
		t.Error("an authority without a name")
	}
	if _, err := NewAuthority("x", time.Hour, now, strings.NewReader("short")); err == nil {
		t.Error("a serial number without enough randomness")
	}
}

func TestLoadAuthority(t *testing.T) {
	a, b := authority(t, "a"), authority(t, "b")
	again, err := LoadAuthority(a.Pair())
	if err != nil || again.Fingerprint() != a.Fingerprint() {
		t.Fatalf("%v", err)
	}
	p, err := again.Issue(Leaf{CommonName: "n", Client: true}, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(t, p.Certificate).Verify(x509.VerifyOptions{Roots: a.Pool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	// SEC 1, as openssl and kubeadm write it.
	key, err := ParseKey(a.Pair().Key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadAuthority(Pair{a.Certificate(), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})}); err != nil {
		t.Errorf("SEC 1: %v", err)
	}
	for name, p := range map[string]Pair{
		"other key":        {a.Certificate(), b.Pair().Key},
		"leaf":             issue(t, a, Leaf{CommonName: "n", Client: true}),
		"no key":           {a.Certificate(), nil},
		"no certificate":   {nil, a.Pair().Key},
		"swapped":          {a.Pair().Key, a.Certificate()},
		"two certificates": {append(bytes.Clone(a.Certificate()), b.Certificate()...), a.Pair().Key},
		"too long":         {append(bytes.Clone(a.Certificate()), bytes.Repeat([]byte("\n"), pemLimit)...), a.Pair().Key},
		"damaged key":      {a.Certificate(), pem.EncodeToMemory(&pem.Block{Type: blockPKCS8, Bytes: []byte("x")})},
	} {
		if _, err := LoadAuthority(p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func encodeRequest(t testing.TB, template *x509.CertificateRequest, key any) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockRequest, Bytes: der})
}

func TestSignRequestIgnoresItsNames(t *testing.T) {
	a := authority(t, "ours")
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	greedy := encodeRequest(t, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		DNSNames: []string{"api.example"}, IPAddresses: []net.IP{net.IPv4(100, 64, 0, 1)}, EmailAddresses: []string{"a@example"},
	}, key)
	signed, err := a.SignRequest(greedy, Leaf{CommonName: "node-1", Client: true}, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, signed)
	if c.Subject.String() != "CN=node-1" || c.DNSNames != nil || c.IPAddresses != nil || c.EmailAddresses != nil ||
		!slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || !key.PublicKey.Equal(c.PublicKey) {
		t.Errorf("signed %v %v %v %v %v", c.Subject, c.DNSNames, c.IPAddresses, c.EmailAddresses, c.ExtKeyUsage)
	}
}

func TestSignRequest(t *testing.T) {
	a := authority(t, "ours")
	request, key, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := a.SignRequest(request, Leaf{CommonName: "node-1", Client: true}, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(signed, key); err != nil {
		t.Error(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(request)
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		request []byte
		says    string
	}{
		"P-384":       {encodeRequest(t, &x509.CertificateRequest{}, p384), "must be ECDSA on P-256"},
		"Ed25519":     {encodeRequest(t, &x509.CertificateRequest{}, ed), "must be ECDSA on P-256"},
		"forged":      {pem.EncodeToMemory(&pem.Block{Type: blockRequest, Bytes: forged}), "certificate request"},
		"certificate": {a.Certificate(), `must be PEM of type CERTIFICATE REQUEST (was "CERTIFICATE")`},
		"empty":       {nil, "must be PEM"},
		"two":         {append(bytes.Clone(request), request...), "one PEM block only"},
		"too long":    {append(bytes.Clone(request), make([]byte, pemLimit)...), "at most 65536 bytes"},
	} {
		if _, err := a.SignRequest(c.request, Leaf{CommonName: "n", Client: true}, now, rand.Reader); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %q", name, err, c.says)
		}
	}
}

func FuzzSignRequest(f *testing.F) {
	a := authority(f, "ours")
	request, _, err := NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request)
	f.Add(a.Certificate())
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		signed, err := a.SignRequest(text, Leaf{CommonName: "n", Client: true}, now, rand.Reader)
		if err != nil {
			return
		}
		if c := parse(t, signed); c.Subject.String() != "CN=n" || c.IsCA {
			t.Fatalf("signed %v", c.Subject)
		}
	})
}

func FuzzLoadAuthority(f *testing.F) {
	a := authority(f, "ours")
	f.Add(a.Certificate(), a.Pair().Key)
	f.Add(a.Pair().Key, a.Certificate())
	f.Add([]byte("-----BEGIN X-----"), []byte{})
	f.Fuzz(func(t *testing.T, certificate, key []byte) {
		loaded, err := LoadAuthority(Pair{certificate, key})
		if err != nil {
			return
		}
		// Whatever is taken for an authority can sign.
		if _, err := loaded.Issue(Leaf{CommonName: "n", Client: true}, loaded.certificate.NotAfter.Add(-time.Second), rand.Reader); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFingerprint(t *testing.T) {
	const plain = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // of "abc", FIPS 180-2
	if got := Fingerprint([]byte("abc")); got != plain {
		t.Errorf("got %s", got)
	}
	shown := FormatFingerprint(plain)
	if !strings.HasPrefix(shown, "BA:78:16:BF:") || len(shown) != 95 {
		t.Errorf("shown as %s", shown)
	}
	for _, text := range []string{plain, shown, "SHA256:" + shown, " sha256:" + plain + "\n", strings.ReplaceAll(shown, ":", " ")} {
		if got, err := ParseFingerprint(text); err != nil || got != plain {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", plain[2:], plain + "00", "g" + plain[1:]} {
		if got, err := ParseFingerprint(text); err == nil {
			t.Errorf("%q became %s", text, got)
		}
	}
}

func TestRandomToken(t *testing.T) {
	token, err := RandomToken("xxxxxx.xxxxxxxxxxxxxxxx", rand.Reader)
	if err != nil || len(token) != 23 || token[6] != '.' || strings.Trim(token, alphabet+".") != "" {
		t.Errorf("%q, %v", token, err)
	}
	// Bytes of 252 and more are skipped: 36 letters go into 256 seven times, with 4 left.
	if got, err := RandomToken("<xx-x>", bytes.NewReader([]byte{0, 252, 255, 35, 251})); err != nil || got != "<a9-9>" {
		t.Errorf("%q, %v", got, err)
	}
	var every []byte
	for b := range 252 {
		every = append(every, byte(b))
	}
	all, err := RandomToken(strings.Repeat("x", 252), bytes.NewReader(every))
	for _, r := range alphabet {
		if n := strings.Count(all, string(r)); n != 7 || err != nil {
			t.Errorf("%c is made by %d bytes of 252, %v", r, n, err)
		}
	}
	if _, err := RandomToken("", rand.Reader); err == nil {
		t.Error("an empty pattern gave a token")
	}
	if _, err := RandomToken("xx", strings.NewReader("a")); !errors.Is(err, io.EOF) {
		t.Errorf("too little randomness: %v", err)
	}
}
