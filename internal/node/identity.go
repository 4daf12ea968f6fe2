package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/node/wire"
)

// identity is the node's key and certificate. The key is made once and saved
// before it is first used: a registration whose answer was lost is repeated
// with the same one, which the controller takes for what it is.
type identity struct {
	state  *state
	boot   bootstrap.Bootstrap
	client *Client
	log    *slog.Logger

	key *ecdsa.PrivateKey
	csr string
	// leaf is the certificate in use; nil before registration.
	leaf *x509.Certificate
}

// openIdentity loads the key, or makes one.
func openIdentity(s *state, b bootstrap.Bootstrap, c *Client, log *slog.Logger) (*identity, error) {
	id := &identity{state: s, boot: b, client: c, log: log}
	raw, err := s.read(fileKey)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		if raw, err = newKey(); err != nil {
			return nil, err
		}
		if err := s.write(fileKey, raw); err != nil {
			return nil, err
		}
	}
	if id.key, err = parseKey(raw); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(s.dir, fileKey), err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: b.NodeID}}, id.key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	id.csr = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	return id, nil
}

func newKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(raw []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("not a PEM key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a PKCS #8 key")
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return ec, nil
}

// resume takes up the certificate saved before. It returns false when there is
// none that is good now, so that the node must register.
func (id *identity) resume() (bool, error) {
	cert, err := id.state.read(fileCert)
	if err != nil || cert == nil {
		return false, err
	}
	ca, err := id.state.read(fileCA)
	if err != nil {
		return false, err
	}
	if err := id.use(wire.Credentials{Certificate: string(cert), CA: string(ca)}); err != nil {
		id.log.Warn("the saved certificate is of no use, registering again", "error", err)
		return false, nil
	}
	return true, nil
}

// register gets the first certificate; it tries until it has it or ctx ends.
func (id *identity) register(ctx context.Context) {
	out := outage{log: id.log, what: "registration"}
	for wait := newBackoff(); ; {
		start := time.Now()
		cred, err := id.client.Register(ctx, wire.RegisterRequest{Token: id.boot.Token, CSR: id.csr})
		if err == nil {
			err = id.take(cred)
		}
		if err == nil {
			id.log.Info("registered", "certificateEnds", id.leaf.NotAfter, "took", time.Since(start).Round(time.Millisecond))
			return
		}
		if ctx.Err() != nil {
			return
		}
		out.failed(err)
		if !pause(ctx, wait.next()) {
			return
		}
	}
}

// keepFresh renews the certificate after two thirds of its life, until ctx ends.
func (id *identity) keepFresh(ctx context.Context) {
	out := outage{log: id.log, what: "renewal of the node's certificate"}
	// Unlike a request that somebody waits for, this one has days.
	wait := &backoff{base: time.Second, max: 5 * time.Minute}
	for {
		life := id.leaf.NotAfter.Sub(id.leaf.NotBefore)
		if !pause(ctx, time.Until(id.leaf.NotBefore.Add(life/3*2))) {
			return
		}
		cred, err := id.client.Renew(ctx, wire.RenewRequest{CSR: id.csr})
		if err == nil {
			err = id.take(cred)
		}
		if err == nil {
			out.over()
			wait.reset()
			id.log.Info("certificate renewed", "certificateEnds", id.leaf.NotAfter)
		} else {
			if ctx.Err() != nil {
				return
			}
			out.failed(err)
		}
		// After a success too: a controller that gives out certificates which are
		// due at once must not be asked in a loop.
		if !pause(ctx, wait.next()) {
			return
		}
	}
}

// take checks credentials, saves them and uses them. The certificate is saved
// last: it is what says that registration is complete.
func (id *identity) take(cred wire.Credentials) error {
	if err := id.use(cred); err != nil {
		return fmt.Errorf("the controller's answer: %w", err)
	}
	if err := id.state.write(fileCA, []byte(cred.CA)); err != nil {
		return err
	}
	return id.state.write(fileCert, []byte(cred.Certificate))
}

// use verifies that the certificate is for our key and node, by a CA we were
// told to trust, and good now; then the client goes on with it.
func (id *identity) use(cred wire.Credentials) error {
	roots, err := id.trusted(cred.CA)
	if err != nil {
		return err
	}
	certs, err := parseCertificates(cred.Certificate)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	leaf := certs[0]
	if !id.key.PublicKey.Equal(leaf.PublicKey) {
		return errors.New("certificate: it is for another key")
	}
	if leaf.Subject.CommonName != id.boot.NodeID {
		return fmt.Errorf("certificate: it is for %q, not for node %s", leaf.Subject.CommonName, id.boot.NodeID)
	}
	between := x509.NewCertPool()
	tc := tls.Certificate{PrivateKey: id.key, Leaf: leaf}
	for _, c := range certs {
		between.AddCert(c)
		tc.Certificate = append(tc.Certificate, c.Raw)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	id.leaf = leaf
	id.client.Use(tc, roots)
	return nil
}

// trusted reads the CA bundle, which may hold the next CA beside the present
// one, and insists that it holds the one of the bootstrap document.
func (id *identity) trusted(bundle string) (*x509.CertPool, error) {
	certs, err := parseCertificates(bundle)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	want := id.boot.CAFingerprint
	if want == "" {
		pinned, err := parseCertificates(id.boot.CA)
		if err != nil {
			return nil, fmt.Errorf("the bootstrap's CA: %w", err)
		}
		want = bootstrap.Fingerprint(pinned[0])
	}
	pool, found := x509.NewCertPool(), false
	for _, c := range certs {
		pool.AddCert(c)
		found = found || strings.EqualFold(bootstrap.Fingerprint(c), want)
	}
	if !found {
		return nil, fmt.Errorf("CA: the one the node was made with, %s, is not among them", want)
	}
	return pool, nil
}

func parseCertificates(text string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("no PEM certificate")
	}
	return out, nil
}
