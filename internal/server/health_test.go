package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/model"
)

// TestHealthIsRemembered: the store is asked once a second at most, whoever asks.
func TestHealthIsRemembered(t *testing.T) {
	now, asked, fails := wholeSeconds(), 0, error(nil)
	life, end := context.WithCancel(t.Context())
	h := &health{life: life, clock: func() time.Time { return now }, probe: func(ctx context.Context) error {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > healthTimeout {
			t.Errorf("the store is asked until %v", deadline)
		}
		if ctx.Err() != nil {
			t.Error("the answer depends on who asks")
		}
		asked++
		return fails
	}}
	gone, leave := context.WithCancel(t.Context())
	leave()
	check := func(wantAsked int, want error) {
		t.Helper()
		err := h.check(gone)
		if (want == nil) != (err == nil) || want != nil && !errors.Is(err, want) || asked != wantAsked {
			t.Errorf("asked %d times: %v; want %d times, %v", asked, err, wantAsked, want)
		}
	}
	check(1, nil)
	fails = errors.New("etcd does not answer")
	now = now.Add(healthLasts - 1)
	check(1, nil)
	now = now.Add(1)
	check(2, model.ErrorOf(codeStoreUnavailable))
	check(2, fails)
	fails = model.Errorf(model.CodeStorageFull, "the disk is full")
	now = now.Add(healthLasts)
	check(3, model.ErrorOf(model.CodeStorageFull))
	fails = nil
	now = now.Add(healthLasts)
	check(4, nil)
	end()
	check(4, model.ErrorOf(codeStopping))
}

// TestStoreGone: without its store a server is not healthy, and says so within its time.
func TestStoreGone(t *testing.T) {
	endpoint, stopEtcd := startEtcd(t)
	r := start(t, Options{EtcdEndpoints: []string{endpoint}})
	anyone := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer anyone.CloseIdleConnections()
	health := func() (int, string) {
		t.Helper()
		began := time.Now()
		response, err := anyone.Get(r.url + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > healthTimeout+5*time.Second {
			t.Errorf("the answer took %s", took)
		}
		return response.StatusCode, strings.TrimSpace(string(text))
	}
	if status, text := health(); status != http.StatusOK || text != `{"status":"ok"}` {
		t.Errorf("%d %s", status, text)
	}
	stopEtcd()
	eventually(t, "the loss of the store", func() bool {
		status, text := health()
		return status == http.StatusServiceUnavailable && text == `{"status":"error","code":"StoreUnavailable"}`
	})
}
