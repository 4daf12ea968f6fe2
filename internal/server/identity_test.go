package server

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/api"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/pki"
	"github.com/pleiad/pleiad/internal/store/storetest"
)

// installation is the identity of a new installation, whose clock the test sets.
func installation(t *testing.T, now *time.Time) *identity {
	t.Helper()
	id, err := loadIdentity(t.Context(), storetest.Open(t), func() time.Time { return *now })
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// issued is a new token by the rules of IssueToken, and who it makes of its bearer.
func issued(t *testing.T, id *identity, caller api.Principal, subject string, ttl time.Duration) (string, api.Principal) {
	t.Helper()
	token, err := id.IssueToken(t.Context(), caller, model.TokenCreateSpec{Subject: subject, TTLSeconds: int64(ttl / time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := id.Authenticate(t.Context(), token.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if token.ExpiresTime != p.Expires.UnixMilli() {
		t.Errorf("the answer says that the token ends at %d, the token %d", token.ExpiresTime, p.Expires.UnixMilli())
	}
	return token.AccessToken, p
}

// wholeSeconds is a time as tokens and certificates carry it.
func wholeSeconds() time.Time { return time.Unix(time.Now().Unix(), 0) }

func TestAuthenticate(t *testing.T) {
	now := wholeSeconds()
	ours, theirs := installation(t, &now), installation(t, &now)
	admin := api.Principal{Subject: adminSubject, Admin: true, Expires: now.Add(adminTokenTTL)}
	token, p := issued(t, ours, admin, "ada", time.Hour)
	if p.Subject != "ada" || p.Admin || !p.Expires.Equal(now.Add(time.Hour)) {
		t.Errorf("the token makes its bearer %+v", p)
	}
	forNodes, err := ours.tokens.Sign(pki.Claims{Subject: adminSubject, Audience: pki.AudienceNode, ID: "1", Expires: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := issued(t, theirs, admin, adminSubject, time.Hour)
	for name, bad := range map[string]string{"of another installation": foreign, "for nodes": forNodes, "no token": "x", "empty": ""} {
		if p, err := ours.Authenticate(t.Context(), bad); !errors.Is(err, model.ErrorOf(model.CodeInvalidAuthToken)) || p.Subject != "" {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	now = now.Add(time.Hour)
	if p, err := ours.Authenticate(t.Context(), token); !errors.Is(err, model.ErrorOf(model.CodeExpiredAuthToken)) || p.Subject != "" {
		t.Errorf("expired: %+v, %v", p, err)
	}
}

// TestTokenDoesNotOutliveItsOwn: who has a token cannot have tokens for ever.
func TestTokenDoesNotOutliveItsOwn(t *testing.T) {
	now := wholeSeconds()
	id := installation(t, &now)
	admin := api.Principal{Subject: adminSubject, Admin: true, Expires: now.Add(2 * time.Hour)}
	_, ada := issued(t, id, admin, "ada", time.Hour)
	for _, c := range []struct {
		name    string
		caller  api.Principal
		subject string
		ttl     time.Duration
		want    time.Duration
	}{
		{"one's own, longer", ada, "ada", 24 * time.Hour, time.Hour},
		{"one's own, by default", ada, "ada", 0, time.Hour},
		{"one's own, shorter", ada, "ada", time.Minute, time.Minute},
		{"the administrator's own", admin, adminSubject, 24 * time.Hour, 2 * time.Hour},
		{"by the administrator for another", admin, "ada", 24 * time.Hour, 24 * time.Hour},
	} {
		if _, p := issued(t, id, c.caller, c.subject, c.ttl); !p.Expires.Equal(now.Add(c.want)) {
			t.Errorf("%s: ends after %s, want %s", c.name, p.Expires.Sub(now), c.want)
		}
	}
	_, err := id.IssueToken(t.Context(), ada, model.TokenCreateSpec{Subject: adminSubject})
	if !errors.Is(err, model.ErrorOf(model.CodeAccessForbidden)) {
		t.Errorf("a token for somebody else: %v", err)
	}
}

func TestAdminToken(t *testing.T) {
	now := wholeSeconds()
	id, other := installation(t, &now), installation(t, &now)
	path := filepath.Join(t.TempDir(), "admin.token")
	write := func(by *identity) string {
		t.Helper()
		if err := by.writeAdminToken(path, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		token := strings.TrimSpace(string(b))
		if p, err := by.Authenticate(t.Context(), token); err != nil || !p.Admin {
			t.Fatalf("the token written makes its bearer %+v, %v", p, err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
			t.Errorf("beside it lies %v", left)
		}
		return token
	}
	first := write(id)
	if again := write(id); again != first {
		t.Error("a good token was replaced")
	}
	now = now.Add(adminTokenTTL)
	if write(id) == first {
		t.Error("an expired token was kept")
	}
	ada, _ := issued(t, id, api.Principal{Subject: adminSubject, Admin: true, Expires: now.Add(time.Hour)}, "ada", time.Hour)
	foreign := write(other)
	for name, content := range map[string]string{
		"empty": "", "part of one": first[:len(first)/2], "of another installation": foreign, "somebody else's": ada,
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			write(id)
		})
	}
}
