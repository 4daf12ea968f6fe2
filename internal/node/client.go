package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/bootstrap"
	"github.com/pleiad/pleiad/internal/node/wire"
	"github.com/pleiad/pleiad/internal/plan"
)

// requestTimeout bounds one request to one controller, beyond the time that it
// was asked to hold it.
const requestTimeout = 10 * time.Second

// ErrBadPlan is returned for a plan that came whole but cannot be used:
// too large, not JSON, unknown fields, invalid.
var ErrBadPlan = errors.New("plan refused")

// DialFunc opens a connection, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Client speaks to the controllers as one node. A call tries each controller
// once, the one that answered last first, each try with a deadline of its own;
// it does not retry further, its caller does. Errors that a controller answered
// are *model.Error. It is safe for concurrent use.
type Client struct {
	urls        []string
	fingerprint string
	dial        DialFunc

	mu sync.Mutex
	// first is the index of the controller that answered last.
	first int
	// roots verify controllers; nil until the CA of the fingerprint was seen.
	roots *x509.CertPool
	// cert authenticates the node; nil before it is registered.
	cert *tls.Certificate
	// http carries roots and cert; a change of either makes a new one, since
	// connections keep the identity they were opened with.
	http *http.Client
}

// NewClient makes a client of the controllers in b. It trusts b's CA alone, or,
// where there is only a fingerprint, the CA certificate of that fingerprint,
// which a controller must show. A nil dial means the network's.
func NewClient(b bootstrap.Bootstrap, dial DialFunc) (*Client, error) {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	c := &Client{fingerprint: strings.ToLower(b.CAFingerprint), dial: dial}
	for _, u := range b.ControllerURLs {
		c.urls = append(c.urls, strings.TrimSuffix(u, "/"))
	}
	if b.CA != "" {
		c.roots = x509.NewCertPool()
		if !c.roots.AppendCertsFromPEM([]byte(b.CA)) {
			return nil, errors.New("the bootstrap's CA is not a PEM certificate")
		}
	}
	return c, nil
}

// Use changes what the client authenticates with and verifies controllers by.
// Requests under way end with what they began with.
func (c *Client) Use(cert tls.Certificate, roots *x509.CertPool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cert, c.roots = &cert, roots
	c.dropLocked()
}

// Close closes idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked()
}

func (c *Client) dropLocked() {
	if c.http != nil {
		c.http.CloseIdleConnections()
		c.http = nil
	}
}

// Register asks for the node's first certificate.
func (c *Client) Register(ctx context.Context, r wire.RegisterRequest) (wire.Credentials, error) {
	var out wire.Credentials
	err := c.post(ctx, wire.PathRegister, r, &out)
	return out, err
}

// Renew asks for the node's next certificate.
func (c *Client) Renew(ctx context.Context, r wire.RenewRequest) (wire.Credentials, error) {
	var out wire.Credentials
	err := c.post(ctx, wire.PathRenew, r, &out)
	return out, err
}

// Report tells the node's state.
func (c *Client) Report(ctx context.Context, r plan.Report) (wire.Answer, error) {
	var out wire.Answer
	err := c.post(ctx, wire.PathReport, r, &out)
	return out, err
}

// Heartbeat tells that the node lives.
func (c *Client) Heartbeat(ctx context.Context, h wire.Heartbeat) (wire.Answer, error) {
	var out wire.Answer
	err := c.post(ctx, wire.PathHeartbeat, h, &out)
	return out, err
}

// Plan waits until there is another plan than the one with this hash, at most
// for wait; then it returns nil. A plan that cannot be used is ErrBadPlan.
func (c *Client) Plan(ctx context.Context, hash string, wait time.Duration) (*plan.Plan, error) {
	q := url.Values{wire.QueryHash: {hash}, wire.QueryWait: {wait.String()}}
	status, body, err := c.do(ctx, http.MethodGet, wire.PathPlan+"?"+q.Encode(), nil, plan.MaxPlan, wait+requestTimeout)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, fmt.Errorf("%w: it is over %d bytes", ErrBadPlan, plan.MaxPlan)
	case err != nil:
		return nil, err
	case status == http.StatusNoContent:
		return nil, nil
	}
	p, err := plan.Parse(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadPlan, err)
	}
	return &p, nil
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	status, answer, err := c.do(ctx, http.MethodPost, path, body, wire.MaxAnswer, requestTimeout)
	if err != nil {
		return err
	}
	if status == http.StatusNoContent || len(answer) == 0 {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s: the controller's answer: %w", path, err)
	}
	return nil
}

// do sends a request to the controllers in turn until one answers it. A
// controller that is down or says that it cannot (5xx, 429) passes it on to the
// next; what it refuses, the others would refuse too.
func (c *Client) do(ctx context.Context, method, path string, body []byte, limit int64, timeout time.Duration) (int, []byte, error) {
	c.mu.Lock()
	first := c.first
	c.mu.Unlock()
	var failures []error
	for i := range c.urls {
		n := (first + i) % len(c.urls)
		status, answer, err := c.try(ctx, method, c.urls[n], path, body, limit, timeout)
		if err == nil && status < 300 {
			c.mu.Lock()
			c.first = n
			c.mu.Unlock()
			return status, answer, nil
		}
		if err == nil {
			err = refusal(status, answer)
			if status < 500 && status != http.StatusTooManyRequests {
				return 0, nil, err
			}
		}
		if errors.Is(err, errTooLarge) || ctx.Err() != nil {
			return 0, nil, err
		}
		failures = append(failures, err)
	}
	return 0, nil, errors.Join(failures...)
}

var errTooLarge = errors.New("the answer is too large")

func (c *Client) try(ctx context.Context, method, base, path string, body []byte, limit int64, timeout time.Duration) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	h, err := c.session(ctx, base)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := h.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, base+path, err)
	}
	if int64(len(answer)) > limit {
		return 0, nil, fmt.Errorf("%s %s: %w", method, base+path, errTooLarge)
	}
	return resp.StatusCode, answer, nil
}

// refusal is the error a controller answered with.
func refusal(status int, body []byte) error {
	var e model.Error
	if json.Unmarshal(body, &e) == nil && e.Code != "" {
		return &e
	}
	return fmt.Errorf("the controller answered %d %s", status, http.StatusText(status))
}

// session returns the HTTP client of the present trust and identity. Without a
// CA certificate it first gets the one of the fingerprint from that controller.
func (c *Client) session(ctx context.Context, base string) (*http.Client, error) {
	c.mu.Lock()
	known := c.roots != nil
	c.mu.Unlock()
	var learned *x509.Certificate
	if !known {
		var err error
		if learned, err = c.learnCA(ctx, base); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roots == nil {
		c.roots = x509.NewCertPool()
		c.roots.AddCert(learned)
	}
	if c.http == nil {
		c.http = c.newSession()
	}
	return c.http, nil
}

func (c *Client) newSession() *http.Client {
	conf := &tls.Config{RootCAs: c.roots, MinVersion: tls.VersionTLS13}
	if c.cert != nil {
		conf.Certificates = []tls.Certificate{*c.cert}
	}
	return &http.Client{
		// No proxy: the token and the plans go to the controllers, or nowhere.
		Transport: &http.Transport{
			DialContext:         c.dial,
			TLSClientConfig:     conf,
			TLSHandshakeTimeout: requestTimeout,
			MaxIdleConnsPerHost: 2, // one polls, one reports
			IdleConnTimeout:     90 * time.Second,
		},
		// A redirect would carry the token to a place nobody vouched for.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// learnCA looks at the certificates a controller shows, and returns the CA
// certificate of the fingerprint. It sends nothing: whether the controller
// holds a certificate of that CA is verified by the connections that follow,
// which trust this CA alone.
func (c *Client) learnCA(ctx context.Context, base string) (*x509.Certificate, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	raw, err := c.dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	// The raw connection is closed, not the TLS one: there is nobody to say goodbye to.
	defer func() { _ = raw.Close() }()
	conn := tls.Client(raw, &tls.Config{
		ServerName:         u.Hostname(),
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // see above: only a certificate is taken, by its fingerprint
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%s: TLS handshake: %w", base, err)
	}
	var seen []string
	for _, cert := range conn.ConnectionState().PeerCertificates {
		sum := bootstrap.Fingerprint(cert)
		if sum == c.fingerprint && cert.IsCA {
			return cert, nil
		}
		seen = append(seen, sum)
	}
	return nil, fmt.Errorf("%s does not show the CA certificate %s, but %s: this is not the controller the node was made by",
		base, c.fingerprint, strings.Join(seen, ", "))
}
