// Package server is the process that serves Pleiad: it opens the store, makes
// or loads the installation's identity, starts the controller and the HTTPS
// listener, and stops them in order. It is wiring: what the parts do is theirs.
package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/kind"
)

// DefaultPort is where the server listens, unless told otherwise.
const DefaultPort = 9443

const defaultDrainTimeout = 10 * time.Second

// Options say how to run a server.
type Options struct {
	// DataDir holds all that is kept: the embedded store, image files, the
	// sealing key and the administrator's token. Mode 0700.
	DataDir string
	// SealKey is the file of the key that seals the store; empty means seal.key in
	// DataDir. Replicas that share an etcd share the key.
	SealKey string
	// Listen is the address of the HTTPS listener, e.g. ":9443".
	Listen string
	// Advertise are names and addresses by which users and nodes reach this
	// server; the first is what nodes are told first. They are in the server's
	// certificate. Empty means all addresses of the machine.
	Advertise []string
	// EtcdEndpoints are the URLs of an external etcd; empty embeds one.
	EtcdEndpoints []string
	// EtcdCA, EtcdCert and EtcdKey are files for TLS with the external etcd.
	EtcdCA, EtcdCert, EtcdKey string
	// DrainTimeout is how long requests under way may take once the server
	// stops; 10 seconds if 0.
	DrainTimeout time.Duration
	// UnsafeNoFsync is for tests: the embedded store forgets commits in a crash.
	UnsafeNoFsync bool

	Kinds      kind.Registry
	Connectors hypervisor.Connectors
	Version    string
	Commit     string
	Logger     *slog.Logger
	// Ready is called once the server answers, with its address and the
	// SHA-256 of its CA; nil is fine.
	Ready func(address, fingerprint string)
}

// etcdTLS is the configuration for an external etcd, nil without TLS.
func (o *Options) etcdTLS() (*tls.Config, error) {
	if o.EtcdCA == "" && o.EtcdCert == "" {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.EtcdCA != "" {
		pem, err := os.ReadFile(o.EtcdCA)
		if err != nil {
			return nil, fmt.Errorf("etcd CA: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd CA: %s has no PEM certificate", o.EtcdCA)
		}
	}
	if o.EtcdCert != "" {
		cert, err := tls.LoadX509KeyPair(o.EtcdCert, o.EtcdKey)
		if err != nil {
			return nil, fmt.Errorf("etcd client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}

// names are the host names and addresses the server's certificate is for, the
// advertised ones first.
func (o *Options) names() ([]string, error) {
	names := append([]string(nil), o.Advertise...)
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	var loopback []string
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		switch {
		case !ok || n.IP.IsLinkLocalUnicast():
		case n.IP.IsLoopback():
			loopback = append(loopback, n.IP.String())
		default:
			names = append(names, n.IP.String())
		}
	}
	if host, err := os.Hostname(); err == nil {
		loopback = append(loopback, host)
	}
	return append(append(names, "localhost"), loopback...), nil
}

// nodeEndpoints are the URLs nodes are given: what is advertised, or else every
// address of the machine that is not its own alone.
func (o *Options) nodeEndpoints(port int) ([]string, error) {
	names := o.Advertise
	if len(names) == 0 {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of this machine: %w", err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
				names = append(names, n.IP.String())
			}
		}
	}
	urls := make([]string, len(names))
	for i, n := range names {
		urls[i] = "https://" + net.JoinHostPort(n, strconv.Itoa(port))
	}
	return urls, nil
}
