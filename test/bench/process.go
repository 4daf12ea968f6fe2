package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pleiad/pleiad/internal/client"
)

// endGrace is how long a child may take to clean up before it is killed.
const endGrace = time.Minute

// command is a child in a process group of its own, so that a terminal's Ctrl-C
// reaches us alone. When ctx ends the whole group is told to end, and cleans up.
func (b *bench) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = endGrace
	cmd.Stderr = b.raw
	return cmd
}

// output runs a child and returns what it printed, which goes to the raw output, too.
func (b *bench) output(cmd *exec.Cmd) (string, error) {
	var out strings.Builder
	cmd.Stdout = io.MultiWriter(&out, b.raw)
	fmt.Fprintln(b.raw, "$", strings.Join(cmd.Args, " "))
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w; the raw output says more", cmd.Args[0], err)
	}
	return out.String(), nil
}

// server is a running server, ours to stop.
type server struct {
	cmd    *exec.Cmd
	client client.Options // how to reach it; without a token
	// startUp is the time from its start to its first answer that it is healthy.
	startUp time.Duration
}

// serve starts a server and waits until it is healthy.
func (b *bench) serve(ctx context.Context, program string, args ...string) (_ *server, err error) {
	cmd := b.command(ctx, program, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	var url, fingerprint string
	for lines := bufio.NewScanner(out); fingerprint == "" && lines.Scan(); {
		if after, ok := strings.CutPrefix(lines.Text(), "serving on "); ok {
			url = after
		}
		if after, ok := strings.CutPrefix(lines.Text(), "SHA-256 of its CA: "); ok {
			fingerprint = after
		}
	}
	if url == "" || fingerprint == "" {
		return nil, fmt.Errorf("%s did not say where it serves; the raw output says why", program)
	}
	seen, err := client.FetchCertificate(ctx, url)
	if err != nil {
		return nil, err
	}
	if err := healthy(ctx, url, seen); err != nil {
		return nil, err
	}
	s.startUp = time.Since(began)
	s.client = client.Options{Endpoints: []string{url}, CAFingerprint: fingerprint}
	return s, nil
}

// healthy asks a server once whether it is; it must say yes.
func healthy(ctx context.Context, url string, seen client.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(seen.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/healthz", nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(request)
	if err != nil {
		return err
	}
	if err := answer.Body.Close(); err != nil || answer.StatusCode != http.StatusOK {
		return errors.Join(err, fmt.Errorf("/healthz answers %s", answer.Status))
	}
	return nil
}

// stop ends the server in good order.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(endGrace, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("the server ended: %w", err)
	}
	return nil
}

// memory is what of a process is resident.
type memory struct{ all, files int64 } // bytes; files are pages of mapped files: its program and the store's

func (m memory) String() string {
	return fmt.Sprintf("%s (%s of it mapped files)", megabytes(m.all), megabytes(m.files))
}

func (s *server) memory() (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kb, err := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			m.all = kb << 10
		case "RssFile:":
			m.files = kb << 10
		default:
			continue
		}
		if err != nil {
			return m, err
		}
	}
	if m.all == 0 {
		return m, errors.New("/proc does not say how much memory the server has")
	}
	return m, nil
}
