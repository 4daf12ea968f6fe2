package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/pleiad/pleiad/internal/plan"
)

// Deadlines of one look.
const (
	lookTimeout     = 5 * time.Second
	execLookTimeout = 30 * time.Second
	defaultInterval = 200 * time.Millisecond
)

// probe looks until it is true. Its error tells what the last look saw.
func (x *executor) probe(ctx context.Context, p *plan.Probe) error {
	timeout := seconds(p.TimeoutSeconds)
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	interval := time.Duration(p.IntervalMillis) * time.Millisecond
	if interval == 0 {
		interval = defaultInterval
	}
	var last error
	for looks := 1; ; looks++ {
		err := x.look(limited, p)
		if err == nil {
			return nil
		}
		// The look that the end of time cut off saw less than the one before it.
		if last == nil || limited.Err() == nil {
			last = err
		}
		if !pause(limited, interval) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("not true after %s and %d looks: %w", timeout, looks, last)
		}
	}
}

func (x *executor) look(ctx context.Context, p *plan.Probe) error {
	timeout := lookTimeout
	if len(p.Exec) > 0 {
		timeout = execLookTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case p.HTTP != nil:
		return x.lookHTTP(ctx, p.HTTP)
	case p.TCP != "":
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.TCP)
		if err != nil {
			return err
		}
		return conn.Close()
	case p.DNS != nil:
		return lookDNS(ctx, p.DNS)
	default:
		out, err := x.run(ctx, timeout, Cmd{Argv: p.Exec})
		if line := lastLine(out.Tail); err != nil && line != "" {
			return fmt.Errorf("%w: %s", err, line)
		}
		return err
	}
}

func (x *executor) lookHTTP(ctx context.Context, p *plan.HTTPProbe) error {
	// Read anew each time: the files may be made while the probe waits.
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if p.CAFile != "" {
		pem, err := os.ReadFile(x.path(p.CAFile))
		if err != nil {
			return err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s holds no PEM certificate", p.CAFile)
		}
	}
	if p.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(x.path(p.CertFile), x.path(p.KeyFile))
		if err != nil {
			return err
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("%s answered %s: %s", p.URL, resp.Status, lastLine(clean(body, len(body))))
	}
	return nil
}

// lookDNS asks the server itself for addresses of the name, whole as it is.
// The standard resolver would look into /etc/hosts and use the search list.
func lookDNS(ctx context.Context, p *plan.DNSProbe) error {
	var errs []error
	for _, t := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		err := askDNS(ctx, p, t)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		if !errors.Is(err, errNoAddress) {
			break
		}
	}
	return errors.Join(errs...)
}

var errNoAddress = errors.New("no address")

func askDNS(ctx context.Context, p *plan.DNSProbe, qtype dnsmessage.Type) error {
	name := p.Name
	if name == "" || name[len(name)-1] != '.' {
		name += "."
	}
	dnsName, err := dnsmessage.NewName(name)
	if err != nil {
		return fmt.Errorf("name %q: %w", p.Name, err)
	}
	question := dnsmessage.Question{Name: dnsName, Type: qtype, Class: dnsmessage.ClassINET}
	id := uint16(time.Now().UnixNano())
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{question},
	}
	packet, err := query.Pack()
	if err != nil {
		return fmt.Errorf("name %q: %w", p.Name, err)
	}
	server := p.Server
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, "53")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", server)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	// A lost packet must not cost the whole of the look's time.
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(packet); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || m.ID != id || !m.Response {
			continue // not the answer to this question
		}
		if m.RCode != dnsmessage.RCodeSuccess {
			return fmt.Errorf("%s says %s for %s", server, m.RCode, name)
		}
		for _, a := range m.Answers {
			if a.Header.Type == qtype {
				return nil
			}
		}
		return fmt.Errorf("%s knows %w of type %s for %s", server, errNoAddress, qtype, name)
	}
}
