package server

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pleiad/pleiad/internal/pki"
)

// servingCertificate is this replica's certificate: made anew at each start, so
// that it has the machine's present addresses, and again whenever two thirds of
// its life are over. It is safe for concurrent use.
type servingCertificate struct {
	identity *identity
	names    func() ([]string, error)
	log      *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	renew   time.Time // when the current one is to be replaced
}

// newServingCertificate makes the first certificate.
func newServingCertificate(i *identity, names func() ([]string, error), log *slog.Logger) (*servingCertificate, error) {
	s := &servingCertificate{identity: i, names: names, log: log}
	return s, s.issue(i.clock())
}

// get returns the certificate to show now. When it cannot be replaced in time,
// the old one serves on: a third of its life is left to mend that.
func (s *servingCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.identity.clock(); !now.Before(s.renew) {
		if err := s.issue(now); err != nil {
			s.log.Error("the serving certificate is not renewed", "ends", s.current.Leaf.NotAfter, "error", err)
		}
	}
	return s.current, nil
}

// issue replaces the certificate; s.mu is held, or s not shared yet.
func (s *servingCertificate) issue(now time.Time) error {
	names, err := s.names()
	if err != nil {
		return err
	}
	leaf := pki.Leaf{CommonName: "pleiad-server", Server: true}
	for _, n := range names {
		if ip, err := netip.ParseAddr(n); err == nil {
			if !slices.Contains(leaf.IPs, ip) {
				leaf.IPs = append(leaf.IPs, ip)
			}
		} else if !slices.Contains(leaf.DNSNames, n) {
			leaf.DNSNames = append(leaf.DNSNames, n)
		}
	}
	pair, err := s.identity.ca.Issue(leaf, now, rand.Reader)
	if err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}
	// The CA goes with it: who pins its fingerprint must see it.
	cert, err := tls.X509KeyPair(slices.Concat(pair.Certificate, s.identity.ca.Certificate()), pair.Key)
	if err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}
	s.current, s.renew = &cert, now.Add(cert.Leaf.NotAfter.Sub(now)*2/3)
	return nil
}

// tlsConfig serves with that certificate, and knows nodes by the CA's.
func (s *servingCertificate) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: s.get,
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      s.identity.ca.Pool(),
		NextProtos:     []string{"h2", "http/1.1"},
	}
}
