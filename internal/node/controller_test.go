package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/node/wire"
	"github.com/pleiad/pleiad/internal/plan"
)

// authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serial = big.NewInt(1)

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	serial.Add(serial, big.NewInt(1))
	tmpl := &x509.Certificate{
		SerialNumber: new(big.Int).Set(serial), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(20 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key))(t)
	return &authority{cert: must(x509.ParseCertificate(der))(t), key: key}
}

func (a *authority) pem() string { return certPEM(a.cert.Raw) }

func (a *authority) issue(t *testing.T, name string, pub any, life time.Duration) *x509.Certificate {
	t.Helper()
	serial.Add(serial, big.NewInt(1))
	tmpl := &x509.Certificate{
		SerialNumber: new(big.Int).Set(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now(), NotAfter: time.Now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"controller-1", "controller-2"},
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key))(t)
	return must(x509.ParseCertificate(der))(t)
}

// serverCertificate is a new leaf of a, shown with the certificates of chain behind it.
func (a *authority) serverCertificate(t *testing.T, chain ...*authority) tls.Certificate {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	c := tls.Certificate{Certificate: [][]byte{a.issue(t, "controller", &key.PublicKey, 20*365*24*time.Hour).Raw}, PrivateKey: key}
	for _, x := range chain {
		c.Certificate = append(c.Certificate, x.cert.Raw)
	}
	return c
}

// serverTLS is for a server on the loopback address that asks for no certificate.
func (a *authority) serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{a.serverCertificate(t)}}
}

func certPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// must turns an error of a call that cannot fail here into the test's end.
func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// memory is a network of net.Pipe connections, so that a whole agent and its
// controllers can live in a synctest bubble. Listeners are found by host name.
type memory struct {
	mu        sync.Mutex
	listeners map[string]*memoryListener
}

type memoryListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (m *memory) listen(host string) net.Listener {
	l := &memoryListener{conns: make(chan net.Conn), done: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listeners == nil {
		m.listeners = map[string]*memoryListener{}
	}
	m.listeners[host] = l
	return l
}

func (m *memory) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	l := m.listeners[host]
	m.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection to " + host + " refused")
	}
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		return nil, errors.New("connection to " + host + " refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *memoryListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *memoryListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// controller is a controller with the real rules: tokens are good once, and
// until they expire; everything else needs the certificate of the node.
type controller struct {
	t  *testing.T
	ca *authority
	// certLife is that of the certificates it gives out.
	certLife time.Duration

	mu          sync.Mutex
	requests    int
	tokens      map[string]time.Time // when each expires
	node        map[string]string    // token to node id
	enrolled    map[string]plan.Enrollment
	lose        int    // so many answers to registrations are lost
	planBody    []byte // what is served as plan; nil for none
	planHash    string
	planChanged chan struct{}
	down        bool // answers 503
	reports     []plan.Report
	reported    chan struct{}
	beats       []wire.Heartbeat
	serials     map[string]bool // of the client certificates seen
	answer      wire.Answer
	slow        time.Duration // before a report is read
}

func newController(t *testing.T) *controller {
	return &controller{
		t: t, ca: newAuthority(t), certLife: 365 * 24 * time.Hour,
		tokens: map[string]time.Time{}, node: map[string]string{}, enrolled: map[string]plan.Enrollment{},
		planChanged: make(chan struct{}), reported: make(chan struct{}), serials: map[string]bool{},
	}
}

// serve starts it on a listener with the certificate.
func (c *controller) serve(l net.Listener, cert tls.Certificate) *httptest.Server {
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: c, ErrorLog: log.New(io.Discard, "", 0)}}
	pool := x509.NewCertPool()
	pool.AddCert(c.ca.cert)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	s.StartTLS()
	return s
}

func (c *controller) allow(token, node string, life time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[token], c.node[token] = time.Now().Add(life), node
}

// give serves a plan from now on.
func (c *controller) give(p plan.Plan) { c.giveRaw(must(json.Marshal(p))(c.t), p.Hash()) }

func (c *controller) giveRaw(body []byte, hash string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.planBody, c.planHash = body, hash
	close(c.planChanged)
	c.planChanged = make(chan struct{})
}

func (c *controller) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// await returns the first report, from now on or the last one, that ok accepts.
func (c *controller) await(ok func(plan.Report) bool) plan.Report {
	c.t.Helper()
	limit := time.After(time.Hour)
	for {
		c.mu.Lock()
		next := c.reported
		if n := len(c.reports); n > 0 && ok(c.reports[n-1]) {
			defer c.mu.Unlock()
			return c.reports[n-1]
		}
		c.mu.Unlock()
		select {
		case <-next:
		case <-limit:
			c.mu.Lock()
			defer c.mu.Unlock()
			c.t.Fatalf("no such report; the last of %d: %+v", len(c.reports), c.reports[max(0, len(c.reports)-1):])
		}
	}
}

func (c *controller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.requests++
	down, slow := c.down, c.slow
	c.mu.Unlock()
	if r.URL.Path == wire.PathReport && slow > 0 {
		<-time.After(slow)
	}
	if down {
		http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
		return
	}
	if r.URL.Path == wire.PathRegister {
		c.register(w, r)
		return
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || time.Now().After(r.TLS.PeerCertificates[0].NotAfter) {
		answerError(w, model.Errorf(model.CodeMissingAuthToken, "no certificate"))
		return
	}
	leaf := r.TLS.PeerCertificates[0]
	node := leaf.Subject.CommonName
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serials[leaf.SerialNumber.String()] = true
	switch r.URL.Path {
	case wire.PathRenew:
		var req wire.RenewRequest
		decode(c.t, r, &req)
		csr := parseCSR(c.t, req.CSR)
		answerJSON(w, wire.Credentials{Certificate: certPEM(c.ca.issue(c.t, node, csr.PublicKey, c.certLife).Raw), CA: c.ca.pem()})
	case wire.PathPlan:
		c.plan(w, r)
	case wire.PathReport:
		var rep plan.Report
		decode(c.t, r, &rep)
		if rep.NodeID != node {
			c.t.Errorf("node %s reports as %s", node, rep.NodeID)
		}
		c.reports = append(c.reports, rep)
		close(c.reported)
		c.reported = make(chan struct{})
		answerJSON(w, c.answer)
	case wire.PathHeartbeat:
		var h wire.Heartbeat
		decode(c.t, r, &h)
		c.beats = append(c.beats, h)
		answerJSON(w, c.answer)
	default:
		c.t.Errorf("request to %s", r.URL.Path)
	}
}

func (c *controller) register(w http.ResponseWriter, r *http.Request) {
	var req wire.RegisterRequest
	decode(c.t, r, &req)
	csr := parseCSR(c.t, req.CSR)
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	key := hex.EncodeToString(sum[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	node, known := c.node[req.Token]
	before, again := c.enrolled[node]
	switch {
	case !known:
		answerError(w, model.Errorf(model.CodeInvalidAuthToken, "the token is not one of ours"))
	case again && before.KeyHash != key:
		answerError(w, model.Errorf(model.CodeInvalidRegistered, "the token was used with another key"))
	case !again && time.Now().After(c.tokens[req.Token]):
		answerError(w, model.Errorf(model.CodeExpiredAuthToken, "the token has expired").Do("make the node anew"))
	default:
		if !again {
			before = plan.Enrollment{NodeID: node, KeyHash: key, Certificate: c.ca.issue(c.t, node, csr.PublicKey, c.certLife).Raw}
			c.enrolled[node] = before
		}
		if c.lose > 0 {
			c.lose--
			panic(http.ErrAbortHandler)
		}
		answerJSON(w, wire.Credentials{Certificate: certPEM(before.Certificate), CA: c.ca.pem()})
	}
}

// plan answers with the lock held, but not while it waits.
func (c *controller) plan(w http.ResponseWriter, r *http.Request) {
	hold, err := time.ParseDuration(r.URL.Query().Get(wire.QueryWait))
	if err != nil {
		c.t.Errorf("wait: %v", err)
	}
	limit := time.After(hold)
	for c.planBody == nil || c.planHash == r.URL.Query().Get(wire.QueryHash) {
		changed := c.planChanged
		c.mu.Unlock()
		over := false
		select {
		case <-changed:
		case <-limit:
			over = true
		case <-r.Context().Done():
			over = true
		}
		c.mu.Lock()
		if over {
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	body := c.planBody
	c.mu.Unlock()
	_, _ = w.Write(body) // the node may have gone
	c.mu.Lock()
}

func decode(t *testing.T, r *http.Request, v any) {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		t.Errorf("%s: %v", r.URL.Path, err)
	}
}

func parseCSR(t *testing.T, text string) *x509.CertificateRequest {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Error("no PEM in the request")
		panic(http.ErrAbortHandler)
	}
	csr := must(x509.ParseCertificateRequest(block.Bytes))(t)
	if err := csr.CheckSignature(); err != nil {
		t.Errorf("certificate request: %v", err)
	}
	return csr
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the node may have gone
}

func answerError(w http.ResponseWriter, e *model.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code.Status())
	_ = json.NewEncoder(w).Encode(e)
}
