package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

func TestRequestID(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"abc-123", "A.b:c_9", strings.Repeat("x", 64)} {
		if got := f.do("GET", "/v1/available", "", nil, "REQUEST-ID", id).Header.Get("REQUEST-ID"); got != id {
			t.Errorf("request id %q became %q", id, got)
		}
	}
	seen := map[string]bool{}
	for _, id := range []string{"", "a b", "a\"b", "<script>", "ü", strings.Repeat("x", 65)} {
		got := f.do("GET", "/v1/available", "", nil, "REQUEST-ID", id).Header.Get("REQUEST-ID")
		if got == id || !decentID(got) || seen[got] {
			t.Errorf("request id %q became %q", id, got)
		}
		seen[got] = true
	}
}

func TestLogAndMetrics(t *testing.T) {
	f := newFixture(t)
	f.do("GET", "/v1/tenants/tenant?x=secret-query", "admin", nil, "REQUEST-ID", "r1")
	f.do("GET", "/v1/tenants/tenant", "admin", nil, "REQUEST-ID", "r2")
	f.do("GET", "/etc/passwd", "", nil, "REQUEST-ID", "r3")
	f.do("GET", "/healthz", "", nil, "REQUEST-ID", "r4")
	metrics := f.do("GET", "/metrics", "user", nil).text
	for _, line := range []string{
		`pleiad_http_requests_total{code="200",route="GET /v1/tenants/{id}"} 2`,
		`pleiad_http_requests_total{code="404",route="none"} 1`,
		`pleiad_http_request_duration_seconds_count{route="GET /v1/tenants/{id}"} 2`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
	f.Close()
	lines := map[string]map[string]any{}
	for line := range strings.Lines(f.log.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		id, _ := entry["request"].(string)
		if lines[id] != nil {
			t.Errorf("two lines for request %s", id)
		}
		lines[id] = entry
	}
	for id, want := range map[string]map[string]any{
		"r2": {"level": "INFO", "route": "GET /v1/tenants/{id}", "status": 200.0, "principal": "administrator", "method": "GET"},
		"r3": {"level": "INFO", "route": "none", "status": 404.0, "principal": ""},
		"r4": {"level": "DEBUG", "route": "GET /healthz", "status": 200.0},
	} {
		for key, value := range want {
			if lines[id][key] != value {
				t.Errorf("request %s: %s is %v, want %v", id, key, lines[id][key], value)
			}
		}
	}
	if strings.Contains(f.log.String(), "secret-query") {
		t.Error("a query is in the log")
	}
}

func TestHealth(t *testing.T) {
	f := newFixture(t)
	if r := f.do("GET", "/healthz", "", nil); r.StatusCode != http.StatusOK || r.text != "{\"status\":\"ok\"}\n" {
		t.Errorf("%d %q", r.StatusCode, r.text)
	}
	f.api.Healthy = func(context.Context) error { return errors.New("etcd at 100.64.0.1 is gone") }
	r := f.do("GET", "/healthz", "", nil)
	if r.StatusCode != http.StatusServiceUnavailable || strings.Contains(r.text, "100.64") {
		t.Errorf("%d %q", r.StatusCode, r.text)
	}
	f.api.Healthy = func(context.Context) error { return model.Errorf("StoreUnavailable", "etcd at 100.64.0.1 is gone") }
	r = f.do("GET", "/healthz", "", nil)
	if want := "{\"status\":\"error\",\"code\":\"StoreUnavailable\"}\n"; r.StatusCode != http.StatusServiceUnavailable || r.text != want {
		t.Errorf("%d %q, want %q", r.StatusCode, r.text, want)
	}
}

// No body of a request makes the server fail, or is accepted if it isn't JSON.
func FuzzBodies(f *testing.F) {
	var targets []string
	for _, row := range table {
		method, path, _ := strings.Cut(row.pattern, " ")
		if row.body == "" || method != http.MethodPost || row.access == byNode {
			continue
		}
		if row.path != "" {
			path = row.path
		}
		f.Add(len(targets), []byte(row.body))
		targets = append(targets, path)
	}
	f.Add(0, []byte(`{"name":1e999}`))
	f.Add(0, []byte("{\"name\":\"\xff\"}"))
	f.Add(1, []byte(`{"name":"a","limits":[[[[{}]]]]}`))
	handler := New(newConfig(&operations{}, &agents{}, &strings.Builder{}, nil))
	f.Fuzz(func(t *testing.T, target int, body []byte) {
		if target < 0 || target >= len(targets) {
			return
		}
		r := httptest.NewRequest("POST", targets[target], strings.NewReader(string(body)))
		r.Header.Set("Authorization", "Bearer admin")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		switch {
		case !json.Valid(w.Body.Bytes()):
			t.Errorf("the answer is not JSON: %q", w.Body)
		case w.Code == http.StatusInternalServerError && strings.Contains(string(body), `"panic"`):
			// what the fake operation does on request
		case w.Code >= http.StatusInternalServerError:
			t.Errorf("status %d: %s", w.Code, w.Body)
		case w.Code < 300 && !json.Valid(body):
			t.Errorf("accepted %q", body)
		case w.Code >= 300:
			var e model.Error
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Code == "" || e.Message == "" || e.Data == nil {
				t.Errorf("error %s", w.Body)
			}
		}
	})
}

// No page link makes the server fail.
func FuzzPageLink(f *testing.F) {
	c := cursor{Path: "/v1/flavors", Filter: map[string]string{"kind": "vm"}, Size: 3, After: "1003"}
	_, token, _ := strings.Cut(c.link(), "=")
	f.Add(token, "3")
	f.Add("", "0")
	handler := New(newConfig(&operations{}, &agents{}, &strings.Builder{}, nil))
	f.Fuzz(func(t *testing.T, link, size string) {
		r := httptest.NewRequest("GET", "/v1/flavors", nil)
		q := r.URL.Query()
		q.Set("pageLink", link)
		q.Set("pageSize", size)
		r.URL.RawQuery = q.Encode()
		r.Header.Set("Authorization", "Bearer user")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}
