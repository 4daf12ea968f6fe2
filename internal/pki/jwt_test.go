package pki

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func tokens(t testing.TB, clock func() time.Time) (*Tokens, KeyPair) {
	t.Helper()
	pair, err := NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	tk, err := NewTokens(pair.Key, clock)
	if err != nil {
		t.Fatal(err)
	}
	return tk, pair
}

func TestTokens(t *testing.T) {
	clock := now
	tk, pair := tokens(t, func() time.Time { return clock })
	claims := Claims{Subject: "vm-1", Audience: AudienceNode, ID: "once", Expires: now.Add(time.Hour)}
	token, err := tk.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tk.Verify(token, AudienceNode)
	if err != nil || got.Subject != "vm-1" || got.ID != "once" || got.Audience != AudienceNode || !got.Expires.Equal(claims.Expires) {
		t.Fatalf("%+v, %v", got, err)
	}

	stranger, _ := tokens(t, func() time.Time { return now })
	foreign, err := stranger.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	registered := jwt.RegisteredClaims{Subject: "admin", Audience: jwt.ClaimStrings{AudienceUser}, ID: "1", ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour))}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, registered).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	// The classic confusion: the public key, which is no secret, used as the secret of an HMAC.
	public, err := x509.MarshalPKIXPublicKey(&tk.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	hmac := func(secret []byte) string {
		s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, registered).SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ours := func(c jwt.Claims) string {
		s, err := jwt.NewWithClaims(jwt.SigningMethodES256, c).SignedString(tk.key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	part := strings.Split(token, ".")
	changed := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"vm-2","aud":["pleiad-node"],"jti":"once","exp":9999999999}`))
	noExpiry, twoAudiences, notYet := registered, registered, registered
	noExpiry.ExpiresAt = nil
	twoAudiences.Audience = jwt.ClaimStrings{AudienceUser, AudienceNode}
	notYet.NotBefore = jwt.NewNumericDate(now.Add(time.Hour))
	for name, c := range map[string]struct {
		token, audience string
		at              time.Time
		want            error
	}{
		"empty":               {"", AudienceNode, now, ErrTokenMalformed},
		"words":               {"not a token", AudienceNode, now, ErrTokenMalformed},
		"two parts":           {part[0] + "." + part[1], AudienceNode, now, ErrTokenMalformed},
		"not base64":          {part[0] + ".%%%." + part[2], AudienceNode, now, ErrTokenMalformed},
		"too long":            {strings.Repeat("a", tokenLimit+1), AudienceNode, now, ErrTokenMalformed},
		"changed":             {part[0] + "." + changed + "." + part[2], AudienceNode, now, ErrTokenSignature},
		"no signature":        {part[0] + "." + part[1] + ".", AudienceNode, now, ErrTokenSignature},
		"other key":           {foreign, AudienceNode, now, ErrTokenSignature},
		"alg none":            {none, AudienceUser, now, ErrTokenSignature},
		"HS256 of public DER": {hmac(public), AudienceUser, now, ErrTokenSignature},
		"HS256 of public PEM": {hmac(pair.PublicKey), AudienceUser, now, ErrTokenSignature},
		"other audience":      {token, AudienceUser, now, ErrTokenAudience},
		"no audience":         {token, "", now, ErrTokenAudience},
		"expired":             {token, AudienceNode, now.Add(time.Hour), ErrTokenExpired},
		"expired and foreign": {foreign, AudienceNode, now.Add(time.Hour), ErrTokenSignature},
		"expired, elsewhere":  {token, AudienceUser, now.Add(time.Hour), ErrTokenAudience},
		"no expiry":           {ours(noExpiry), AudienceUser, now, ErrTokenMalformed},
		"two audiences":       {ours(twoAudiences), AudienceUser, now, ErrTokenMalformed},
		"not yet valid":       {ours(notYet), AudienceUser, now, ErrTokenMalformed},
		"no claims":           {ours(jwt.MapClaims{}), AudienceUser, now, ErrTokenMalformed},
	} {
		clock = c.at
		if got, err := tk.Verify(c.token, c.audience); !errors.Is(err, c.want) || got != (Claims{}) {
			t.Errorf("%s: %+v, %v; want %v", name, got, err, c.want)
		}
	}
	clock = now.Add(time.Hour - time.Second)
	if _, err := tk.Verify(token, AudienceNode); err != nil {
		t.Errorf("in its last second: %v", err)
	}
	for name, c := range map[string]Claims{
		"no subject":  {Audience: "a", ID: "i", Expires: now},
		"no audience": {Subject: "s", ID: "i", Expires: now},
		"no id":       {Subject: "s", Audience: "a", Expires: now},
		"no expiry":   {Subject: "s", Audience: "a", ID: "i"},
	} {
		if _, err := tk.Sign(c); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := NewTokens([]byte("no key"), time.Now); err == nil {
		t.Error("made from no key")
	}
}

func FuzzVerify(f *testing.F) {
	tk, _ := tokens(f, func() time.Time { return now })
	token, err := tk.Sign(Claims{Subject: "vm-1", Audience: AudienceNode, ID: "once", Expires: now.Add(time.Hour)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := tk.Verify(text, AudienceNode)
		if err == nil && (c.Subject != "vm-1" || c.ID != "once") {
			t.Fatalf("%q was accepted as %+v", text, c)
		}
	})
}
