package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pleiad/pleiad/internal/node/bootstrap"
)

// errAbsent says that a source has no document for us, which may change.
var errAbsent = errors.New("no bootstrap document there")

// lxdSockets are where LXD and Incus serve an instance its own configuration.
var lxdSockets = []string{"/dev/lxd/sock", "/dev/incus/sock"}

// source is a place where a hypervisor leaves the document.
type source struct {
	name string
	read func(ctx context.Context) (bootstrap.Bootstrap, error)
}

// sources in the order in which they are asked.
func sources(root string) []source {
	out := []source{{bootstrap.Path, func(context.Context) (bootstrap.Bootstrap, error) {
		return readDocument(filepath.Join(root, bootstrap.Path))
	}}}
	for _, s := range lxdSockets {
		out = append(out, source{s, func(ctx context.Context) (bootstrap.Bootstrap, error) {
			return readDevLXD(ctx, filepath.Join(root, s))
		}})
	}
	return out
}

func readDocument(path string) (bootstrap.Bootstrap, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return bootstrap.Bootstrap{}, errAbsent
	}
	if err != nil {
		return bootstrap.Bootstrap{}, err
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, bootstrap.MaxSize+1))
	if err != nil {
		return bootstrap.Bootstrap{}, err
	}
	return bootstrap.Parse(raw)
}

// readDevLXD asks the hypervisor for the instance's user data.
func readDevLXD(ctx context.Context, socket string) (bootstrap.Bootstrap, error) {
	if _, err := os.Stat(socket); err != nil {
		return bootstrap.Bootstrap{}, errAbsent
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	for _, key := range []string{"cloud-init.user-data", "user.user-data"} {
		raw, err := getDevLXD(ctx, client, "http://lxd/1.0/config/"+key)
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, errAbsent) {
			continue
		}
		if err != nil {
			return bootstrap.Bootstrap{}, fmt.Errorf("%s: %w", key, err)
		}
		b, err := bootstrap.ParseUserData(raw)
		if errors.Is(err, bootstrap.ErrNotOurs) {
			continue
		}
		return b, err
	}
	return bootstrap.Bootstrap{}, errAbsent
}

func getDevLXD(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusOK:
		return io.ReadAll(io.LimitReader(resp.Body, bootstrap.MaxSize+1))
	case http.StatusNotFound:
		return nil, errAbsent
	default:
		return nil, fmt.Errorf("answered %s", resp.Status)
	}
}

// findBootstrap returns the document of the first source that has one, or else
// the one saved before; it looks until there is one or ctx ends. A document for
// another node than the saved one means that the disk was copied: then
// everything saved is another node's and is forgotten.
func findBootstrap(ctx context.Context, s *state, from []source, log *slog.Logger) (bootstrap.Bootstrap, error) {
	out := outage{log: log, what: "search for the bootstrap document"}
	for wait := newBackoff(); ; {
		saved, have, err := s.bootstrap()
		if err != nil {
			return bootstrap.Bootstrap{}, err
		}
		b, name, err := ask(ctx, from)
		switch {
		case err == nil:
			if have && saved.NodeID != b.NodeID {
				log.Warn("this disk was another node's, forgetting its state", "node", b.NodeID, "other", saved.NodeID)
				if err := s.forget(); err != nil {
					return bootstrap.Bootstrap{}, err
				}
			}
			if err := s.saveBootstrap(b); err != nil {
				return bootstrap.Bootstrap{}, err
			}
			log.Info("bootstrap document found", "source", name, "bootstrap", b)
			return b, nil
		case have && ctx.Err() == nil:
			log.Info("using the saved bootstrap document", "because", err, "bootstrap", saved)
			return saved, nil
		}
		if ctx.Err() != nil {
			return bootstrap.Bootstrap{}, ctx.Err()
		}
		out.failed(err)
		if !pause(ctx, wait.next()) {
			return bootstrap.Bootstrap{}, ctx.Err()
		}
	}
}

// ask asks each source once. A broken document does not hide a good one.
func ask(ctx context.Context, from []source) (bootstrap.Bootstrap, string, error) {
	var errs []error
	for _, src := range from {
		b, err := src.read(ctx)
		if err == nil {
			return b, src.name, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", src.name, err))
	}
	return bootstrap.Bootstrap{}, "", errors.Join(errs...)
}
