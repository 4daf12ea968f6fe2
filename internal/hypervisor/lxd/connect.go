package lxd

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
)

const (
	defaultPort = "8443"
	dialTimeout = 10 * time.Second
)

// Connector connects to LXD and Incus daemons.
type Connector struct{}

// Connect implements hypervisor.Connector. Over a unix socket there is neither a
// certificate nor a need for trust, and the fingerprint is empty.
func (Connector) Connect(ctx context.Context, t hypervisor.Target) (hypervisor.Driver, string, error) {
	d := &Driver{name: t.Address, uploads: newKeyedMutex(), creations: newKeyedMutex(), consoles: map[string]string{}}
	var seen *pin
	if path, ok := strings.CutPrefix(t.Address, "unix:"); ok {
		d.local = true
		d.http = unixClient(path)
	} else {
		var err error
		if seen, err = newPin(t); err != nil {
			return nil, "", err
		}
		address := withPort(t.Address)
		d.local = isOurAddress(address)
		if d.http, err = tlsClient(address, t, seen); err != nil {
			return nil, "", err
		}
	}
	if err := d.login(ctx, t); err != nil {
		d.http.CloseIdleConnections()
		return nil, "", err
	}
	return d, seen.fingerprint(), nil
}

// login makes sure that a LXD or Incus answers and trusts us.
func (d *Driver) login(ctx context.Context, t hypervisor.Target) error {
	trusted, err := d.trusted(ctx)
	if err != nil || trusted {
		return err
	}
	if len(t.Certificate) == 0 {
		return d.unauthorized("it wants a client certificate, and there is none")
	}
	if t.Password == "" {
		return d.unauthorized("it does not know our certificate, and no trust token or password was given")
	}
	token, isToken := decodeToken(t.Password)
	if isToken && !token.ExpiresAt.IsZero() && time.Now().After(token.ExpiresAt) {
		return d.unauthorized("the trust token has expired")
	}
	join := map[string]any{"type": api.CertificateTypeClient, "name": "pleiad"}
	if isToken {
		join["name"] = token.ClientName
		join["trust_token"] = t.Password
	}
	// LXD before 5.21 has one field for both.
	join["password"] = t.Password
	err = d.call(ctx, "join its trust", queryTimeout, func(ctx context.Context, c client) error {
		_, _, err := c.RawQuery(http.MethodPost, "/1.0/certificates", join, "")
		return err
	})
	if e := model.AsError(err); err != nil && (e.Code == model.CodeHypervisorError || e.Code == model.CodeHostUnauthorized) {
		return d.unauthorized("it refused the trust token or password; a token can be used once")
	}
	if err != nil {
		return err
	}
	trusted, err = d.trusted(ctx)
	if err == nil && !trusted {
		err = d.unauthorized("it does not trust our certificate, although it took the trust token or password")
	}
	return err
}

func (d *Driver) unauthorized(why string) error {
	return model.Errorf(model.CodeHostUnauthorized, "host %s refuses us: %s", d.name, why).
		With("address", d.name).Do("make a new token on the host (lxc config trust add --name pleiad, or incus config trust add pleiad) and give it as the host's password")
}

// trusted asks who answers and whether it trusts us.
func (d *Driver) trusted(ctx context.Context) (bool, error) {
	var server *api.Server
	var notLXD error
	err := d.call(ctx, "say what it is", queryTimeout, func(_ context.Context, c client) error {
		var err error
		server, _, err = c.GetServer()
		if isAnswer(err) {
			notLXD = err
			return nil
		}
		return err
	})
	if err != nil {
		return false, err
	}
	if notLXD != nil || server.APIVersion != "1.0" || len(server.APIExtensions) == 0 {
		return false, d.notLXD()
	}
	return server.Auth == "trusted", nil
}

func (d *Driver) notLXD() error {
	return model.Errorf(model.CodeHostDriver, "what answers at %s is neither LXD nor Incus", d.name).
		With("address", d.name).Do("check address and port, or name the host's driver")
}

// pin is which certificate we insist on, and which we saw.
type pin struct {
	want []string

	mu   sync.Mutex
	seen string
}

// pinError tells that the host showed another certificate than it should.
type pinError struct{ want, got string }

func (e *pinError) Error() string {
	return fmt.Sprintf("certificate has SHA-256 %s, expected %s", e.got, e.want)
}

func newPin(t hypervisor.Target) (*pin, error) {
	p := &pin{}
	if t.Fingerprint != "" {
		f := strings.ToLower(strings.ReplaceAll(t.Fingerprint, ":", ""))
		if b, err := hex.DecodeString(f); err != nil || len(b) != sha256.Size {
			return nil, model.Errorf(model.CodeHostCertificate, "fingerprint %q is not a SHA-256: it must have 64 hexadecimal digits", t.Fingerprint)
		}
		p.want = append(p.want, f)
	}
	// A token says which daemon made it; insisting on that keeps it from going to anybody else.
	if token, ok := decodeToken(t.Password); ok && token.Fingerprint != "" {
		p.want = append(p.want, strings.ToLower(token.Fingerprint))
	}
	return p, nil
}

func (p *pin) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate was shown")
	}
	sum := sha256.Sum256(cs.PeerCertificates[0].Raw)
	got := hex.EncodeToString(sum[:])
	for _, want := range p.want {
		if got != want {
			return &pinError{want: want, got: got}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// The first accepted stands for the whole session.
	if p.seen != "" && p.seen != got {
		return &pinError{want: p.seen, got: got}
	}
	p.seen = got
	return nil
}

func (p *pin) fingerprint() string {
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

func decodeToken(s string) (api.CertificateAddToken, bool) {
	var token api.CertificateAddToken
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil || json.Unmarshal(data, &token) != nil {
		return token, false
	}
	return token, token.Secret != ""
}

// The incus client addresses every daemon as https://custom.socket; our
// transports know where it really is.

func unixClient(path string) *http.Client {
	return pooled(func(ctx context.Context, _, _ string) (net.Conn, error) {
		dialer := net.Dialer{Timeout: dialTimeout}
		return dialer.DialContext(ctx, "unix", path)
	})
}

func tlsClient(address string, t hypervisor.Target, p *pin) (*http.Client, error) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Daemons sign their own certificates; the pin says whether it is the right one.
		InsecureSkipVerify: true,
		VerifyConnection:   p.verify,
	}
	if len(t.Certificate) > 0 {
		pair, err := tls.X509KeyPair(t.Certificate, t.Key)
		if err != nil {
			return nil, fmt.Errorf("our client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return pooled(func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		dialer := tls.Dialer{Config: config}
		return dialer.DialContext(ctx, "tcp", address)
	}), nil
}

func pooled(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialTLSContext:      dial,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     90 * time.Second,
	}}
}

func withPort(address string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), defaultPort)
}

// isOurAddress reports whether an address is one of this machine's.
func isOurAddress(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	if ip == nil {
		return host == "localhost"
	}
	if ip.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return false
}
