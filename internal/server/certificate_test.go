package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/pki"
)

// TestServingCertificate: it is replaced after two thirds of its life, and
// serves on when it cannot be.
func TestServingCertificate(t *testing.T) {
	now := wholeSeconds()
	id := installation(t, &now)
	names, fails := []string{"one.example", "127.0.0.1", "127.0.0.1"}, error(nil)
	s, err := newServingCertificate(id, func() ([]string, error) { return names, fails }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	config := s.tlsConfig()
	shown := func() *tls.Certificate {
		t.Helper()
		c, err := config.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !now.Before(c.Leaf.NotAfter) {
			t.Fatalf("at %s a certificate is shown that ended at %s", now, c.Leaf.NotAfter)
		}
		return c
	}
	first := shown()
	if len(first.Certificate) != 2 || !slices.Equal(first.Leaf.DNSNames, []string{"one.example"}) || fmt.Sprint(first.Leaf.IPAddresses) != "[127.0.0.1]" {
		t.Errorf("%d certificates, for %v and %v", len(first.Certificate), first.Leaf.DNSNames, first.Leaf.IPAddresses)
	}
	begun := now
	now = begun.Add(pki.LeafValidity*2/3 - time.Second)
	if shown() != first {
		t.Error("replaced before two thirds of its life")
	}
	now, fails = begun.Add(pki.LeafValidity*2/3), errors.New("no addresses")
	if shown() != first {
		t.Error("another one, though none could be made")
	}
	names, fails = []string{"two.example"}, nil
	second := shown()
	if second == first || !slices.Equal(second.Leaf.DNSNames, names) {
		t.Errorf("not replaced after two thirds of its life: for %v", second.Leaf.DNSNames)
	}
	if shown() != second {
		t.Error("replaced again at once")
	}
	now = begun.Add(pki.LeafValidity * 5)
	shown() // nobody came for years
}
