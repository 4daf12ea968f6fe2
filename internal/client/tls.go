package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strings"
)

// ErrFingerprint is wrapped when a server shows no certificate with the
// fingerprint that is insisted on.
var ErrFingerprint = errors.New("the server does not show the certificate that was agreed on")

// Fingerprint is the SHA-256 of a certificate, in lower-case hexadecimal.
func Fingerprint(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(sum[:])
}

// tlsConfig says how the server at host is verified.
func tlsConfig(o Options, host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs}
	if o.CAFingerprint == "" {
		return config, nil
	}
	pin := strings.ToLower(strings.ReplaceAll(o.CAFingerprint, ":", ""))
	if sum, err := hex.DecodeString(pin); err != nil || len(sum) != sha256.Size {
		return nil, fmt.Errorf("CA fingerprint %q is not a SHA-256 of 64 hexadecimal digits", o.CAFingerprint)
	}
	// The usual verification needs roots beforehand. VerifyConnection does the
	// same with the certificate that was agreed on, for resumed sessions too.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		for _, certificate := range state.PeerCertificates {
			if Fingerprint(certificate) == pin {
				return verify(state.PeerCertificates, certificate, host)
			}
		}
		return fmt.Errorf("%w: none of SHA-256 %s", ErrFingerprint, pin)
	}
	return config, nil
}

// verify checks that the first of a chain is a certificate for host that root vouches for.
func verify(chain []*x509.Certificate, root *x509.Certificate, host string) error {
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, certificate := range chain[1:] {
		others.AddCert(certificate)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: others})
	return err
}

// Certificate is what a server shows before it is trusted.
type Certificate struct {
	// CA is the certificate to trust: the last of the chain.
	CA *x509.Certificate
	// Fingerprint is its SHA-256, in lower-case hexadecimal: what to show and confirm.
	Fingerprint string
	// Leaf is the server's own.
	Leaf *x509.Certificate
}

// PEM returns the CA's certificate.
func (c Certificate) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.CA.Raw})
}

// FetchCertificate asks a server for its certificate, trusting nothing: no
// request is sent. It fails if what the server shows would not do for this
// endpoint even if it were trusted.
func FetchCertificate(ctx context.Context, endpoint string) (Certificate, error) {
	u, err := parseEndpoint(endpoint)
	if err != nil {
		return Certificate{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	port := u.Port()
	if port == "" {
		port = "443"
	}
	dialer := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, ServerName: u.Hostname()}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return Certificate{}, fmt.Errorf("%s: %w", u, err)
	}
	defer conn.Close()
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	ca := chain[len(chain)-1]
	if err := verify(chain, ca, u.Hostname()); err != nil {
		return Certificate{}, fmt.Errorf("%s: the server's certificate is not good: %w", u, err)
	}
	return Certificate{CA: ca, Fingerprint: Fingerprint(ca), Leaf: chain[0]}, nil
}
