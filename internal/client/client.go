package client

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pleiad/pleiad/internal/model"
)

// Options say which server, and who we are.
type Options struct {
	// Endpoints are the URLs of the server's replicas, e.g. https://pleiad:9443;
	// at least one. A URL without a scheme is https.
	Endpoints []string
	// Token is the access token; requests go without one if it is empty.
	Token string
	// RootCAs verify the server; nil means the machine's.
	RootCAs *x509.CertPool
	// CAFingerprint is the SHA-256 of the server's CA certificate in hexadecimal,
	// colons allowed. If it is set, RootCAs are not used.
	CAFingerprint string
	// UserAgent is sent with each request; empty means "pleiad".
	UserAgent string
	// Timeout of a call; 0 means 90 seconds, more than the server takes to give up.
	Timeout time.Duration
}

const (
	defaultTimeout = 90 * time.Second
	connectTimeout = 10 * time.Second
	maxAnswer      = 16 << 20 // bytes of an answer: a full page of large objects
)

// Client is a client of one installation.
type Client struct {
	endpoints []*endpoint
	current   atomic.Int32 // the endpoint that answered last
	token     string
	userAgent string
	timeout   time.Duration
}

// endpoint is one replica.
type endpoint struct {
	url       *url.URL
	http      *http.Client
	transport *http.Transport
}

// New makes a client. It connects to nothing.
func New(o Options) (*Client, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("no endpoint is given")
	}
	c := &Client{token: o.Token, userAgent: o.UserAgent, timeout: o.Timeout}
	if c.userAgent == "" {
		c.userAgent = "pleiad"
	}
	if c.timeout == 0 {
		c.timeout = defaultTimeout
	}
	for _, text := range o.Endpoints {
		u, err := parseEndpoint(text)
		if err != nil {
			return nil, err
		}
		config, err := tlsConfig(o, u.Hostname())
		if err != nil {
			return nil, err
		}
		transport := &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:       config,
			TLSHandshakeTimeout:   connectTimeout,
			ExpectContinueTimeout: 2 * time.Second,
			IdleConnTimeout:       90 * time.Second,
			MaxIdleConnsPerHost:   4,
			ForceAttemptHTTP2:     true,
		}
		c.endpoints = append(c.endpoints, &endpoint{u, &http.Client{
			Transport: transport,
			// Our API has no redirects: one is another server's, which must not see the token.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}, transport})
	}
	return c, nil
}

// Close closes idle connections.
func (c *Client) Close() {
	for _, e := range c.endpoints {
		e.transport.CloseIdleConnections()
	}
}

func parseEndpoint(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("endpoint %q is not like https://host:port", text)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// ResponseError is an answer that is not a success.
type ResponseError struct {
	Status    int    // of HTTP
	RequestID string // under which the server logged the request
	Cause     *model.Error
}

// Error is what the server said.
func (e *ResponseError) Error() string { return e.Cause.Error() }

// Unwrap returns the *model.Error.
func (e *ResponseError) Unwrap() error { return e.Cause }

// request is one call of the API.
type request struct {
	method, path string // path with query
	header       http.Header
	// body may be nil. A body that cannot be repeated has no rewind.
	body   io.Reader
	length int64 // of body; -1 if it is not known
	rewind func() io.Reader
}

// open sends a request to the endpoint that answered last, or to the next ones.
// The answer is a success; its body must be closed.
func (c *Client) open(ctx context.Context, r request) (*http.Response, error) {
	first := int(c.current.Load())
	var failures []error
	for i := range c.endpoints {
		n := (first + i) % len(c.endpoints)
		response, err := c.send(ctx, c.endpoints[n], r)
		if err == nil {
			c.current.Store(int32(n))
			return response, responseError(response)
		}
		failures = append(failures, fmt.Errorf("%s: %w", c.endpoints[n].url, plain(err)))
		if ctx.Err() != nil || !repeatable(r, err) {
			break
		}
		if r.rewind != nil {
			r.body = r.rewind()
		}
	}
	return nil, errors.Join(failures...)
}

func (c *Client) send(ctx context.Context, e *endpoint, r request) (*http.Response, error) {
	target := e.url.String() + r.path
	q, err := http.NewRequestWithContext(ctx, r.method, target, r.body)
	if err != nil {
		return nil, err
	}
	if r.body != nil {
		q.ContentLength = r.length
	}
	for name, values := range r.header {
		q.Header[name] = values
	}
	q.Header.Set("User-Agent", c.userAgent)
	if c.token != "" {
		q.Header.Set("Authorization", "Bearer "+c.token)
	}
	return e.http.Do(q)
}

// plain drops what http.Client puts around an error: method and URL, which say
// nothing new after the endpoint.
func plain(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// repeatable reports whether a request that failed may be sent to another
// endpoint: it changes nothing, or it never left, since there was no connection.
func repeatable(r request, err error) bool {
	if r.body != nil && r.rewind == nil {
		return false
	}
	var dial *net.OpError
	return r.method == http.MethodGet || errors.As(err, &dial) && dial.Op == "dial"
}

// responseError returns the error an answer carries and closes it; nil for a success.
func responseError(response *http.Response) error {
	if response.StatusCode < 300 {
		return nil
	}
	defer response.Body.Close()
	e := &ResponseError{Status: response.StatusCode, RequestID: response.Header.Get("REQUEST-ID"), Cause: &model.Error{}}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil || json.Unmarshal(body, e.Cause) != nil || e.Cause.Code == "" {
		// Not our API: a proxy on the way, or another server altogether.
		e.Cause = model.Errorf(model.CodeInternalError, "the server answered with HTTP status %s and no error of ours", response.Status).
			Do("check that the endpoint is a Pleiad server and not a proxy")
	}
	return e
}

// call sends v as JSON, if it is not nil, and reads the answer into answer.
func (c *Client) call(ctx context.Context, method, path string, v, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r := request{method: method, path: path}
	if v != nil {
		body, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		r.length = int64(len(body))
		r.rewind = func() io.Reader { return bytes.NewReader(body) }
		r.body = r.rewind()
		r.header = http.Header{"Content-Type": {"application/json"}}
	}
	response, err := c.open(ctx, r)
	if err != nil {
		return err
	}
	return decode(response, answer)
}

// decode reads an answer and closes it.
func decode(response *http.Response, answer any) error {
	body, err := readAnswer(response)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	return nil
}

func readAnswer(response *http.Response) ([]byte, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("the server's answer was cut off: %w", err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("the server's answer is larger than %d bytes", maxAnswer)
	}
	return body, nil
}

func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	v := new(T)
	if err := c.call(ctx, http.MethodGet, path, nil, v); err != nil {
		return nil, err
	}
	return v, nil
}

// change sends what answers a task.
func (c *Client) change(ctx context.Context, method, path string, spec any) (*model.Task, error) {
	t := new(model.Task)
	if err := c.call(ctx, method, path, spec, t); err != nil {
		return nil, err
	}
	return t, nil
}

func (c *Client) create(ctx context.Context, path string, spec any) (*model.Task, error) {
	return c.change(ctx, http.MethodPost, path, spec)
}

func (c *Client) remove(ctx context.Context, path string) (*model.Task, error) {
	return c.change(ctx, http.MethodDelete, path, nil)
}

// at joins a path of segments, the odd ones being ids.
func at(segments ...string) string {
	var path strings.Builder
	path.WriteString("/v1")
	for _, s := range segments {
		path.WriteString("/" + url.PathEscape(s))
	}
	return path.String()
}
