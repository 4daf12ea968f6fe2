package lxd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/lxc/incus/v6/shared/api"
)

const (
	consoleKept = 64 << 10 // what is remembered of each console
	consoleMost = 4 << 20  // what is read of one answer
)

// ConsoleTail implements hypervisor.Driver. LXD gives out what a running container
// wrote since the last look, so what was seen is kept here; of a stopped one it
// gives everything. Another controller that looks at the same console takes
// its share away until the VM stops.
func (d *Driver) ConsoleTail(ctx context.Context, id string, most int) (string, error) {
	var tail string
	err := d.call(ctx, "show the console of "+id, queryTimeout, func(ctx context.Context, c client) error {
		inst, err := ours(c, id)
		if err != nil {
			return err
		}
		text, err := d.readConsole(ctx, inst.Name)
		if err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if inst.StatusCode == api.Stopped && text != "" {
			d.consoles[id] = last(text, consoleKept)
		} else {
			d.consoles[id] = last(d.consoles[id]+text, consoleKept)
		}
		tail = last(d.consoles[id], most)
		return nil
	})
	return tail, err
}

func (d *Driver) readConsole(ctx context.Context, name string) (string, error) {
	return d.readText(ctx, "/1.0/instances/"+url.PathEscape(name)+"/console")
}

// startLog returns the end of what LXC wrote when it last started an instance; empty if there is none.
func (d *Driver) startLog(ctx context.Context, name string) string {
	text, err := d.readText(ctx, "/1.0/instances/"+url.PathEscape(name)+"/logs/lxc.log")
	if err != nil {
		return ""
	}
	return last(text, 2000)
}

// readText gets what is no JSON; empty where there is nothing.
func (d *Driver) readText(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://host"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusInternalServerError, http.StatusNotFound:
		return "", nil // this is how LXD says that there is nothing new, or nothing at all
	default:
		_, err := decode(resp)
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, consoleMost))
	return string(data), err
}

// forgetConsole drops what was kept of a VM that is gone.
func (d *Driver) forgetConsole(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.consoles, id)
}

func last(s string, n int) string { return s[max(0, len(s)-max(n, 0)):] }

// decode reads an answer of the daemon that did not go through the client.
func decode(resp *http.Response) (*api.Response, error) {
	var answer api.Response
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("unexpected answer, status %s: %w", resp.Status, err)
	}
	if answer.Type == api.ErrorResponse {
		return nil, api.StatusErrorf(resp.StatusCode, "%s", answer.Error)
	}
	return &answer, nil
}
