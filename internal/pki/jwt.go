package pki

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Audiences of tokens: a token for one is refused by the other.
const (
	// AudienceUser is for people and programs that use the API.
	AudienceUser = "pleiad"
	// AudienceNode is for the one request with which a node's agent registers.
	AudienceNode = "pleiad-node"
)

// Why Verify refuses a token. Match with errors.Is.
var (
	ErrTokenMalformed = errors.New("the token is malformed")
	ErrTokenSignature = errors.New("the token's signature is not ours")
	ErrTokenExpired   = errors.New("the token has expired")
	ErrTokenAudience  = errors.New("the token is for another use")
)

// tokenLimit bounds what Verify reads, in bytes.
const tokenLimit = 8 << 10

// Claims is what a token says.
type Claims struct {
	// Subject is a user's name or a VM's id.
	Subject  string
	Audience string
	// ID tells the token apart, so that it can be used once, or revoked.
	ID string
	// Expires has a resolution of a second.
	Expires time.Time
}

// Tokens signs and verifies tokens with one key.
type Tokens struct {
	key    *ecdsa.PrivateKey
	now    func() time.Time
	parser *jwt.Parser
}

// NewTokens returns Tokens that use a PEM private key and a clock.
func NewTokens(key []byte, now func() time.Time) (*Tokens, error) {
	private, err := ParseKey(key)
	if err != nil {
		return nil, err
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodES256.Alg()}),
		jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(now),
		jwt.WithStrictDecoding(),
	)
	return &Tokens{private, now, parser}, nil
}

// Sign makes a token. All claims must be set.
func (t *Tokens) Sign(c Claims) (string, error) {
	if c.Subject == "" || c.Audience == "" || c.ID == "" || c.Expires.IsZero() {
		return "", errors.New("sign token: subject, audience, id and expiry must all be set")
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.RegisteredClaims{
		Subject:   c.Subject,
		Audience:  jwt.ClaimStrings{c.Audience},
		ID:        c.ID,
		IssuedAt:  jwt.NewNumericDate(t.now()),
		ExpiresAt: jwt.NewNumericDate(c.Expires),
	}).SignedString(t.key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}

// Verify returns the claims of a token that was signed by Sign with the same key for
// the audience and has not expired. The error is one of ErrTokenMalformed,
// ErrTokenSignature, ErrTokenAudience and ErrTokenExpired, in this order where several would do; it never
// shows the token.
func (t *Tokens) Verify(token, audience string) (Claims, error) {
	if len(token) > tokenLimit {
		return Claims{}, ErrTokenMalformed
	}
	var c jwt.RegisteredClaims
	_, err := t.parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return &t.key.PublicKey, nil })
	switch {
	case err == nil, errors.Is(err, jwt.ErrTokenInvalidClaims):
		// The signature is ours: the claims tell the rest.
	case errors.Is(err, jwt.ErrTokenMalformed):
		return Claims{}, ErrTokenMalformed
	default:
		return Claims{}, ErrTokenSignature
	}
	if c.Subject == "" || c.ID == "" || c.ExpiresAt == nil || len(c.Audience) != 1 {
		return Claims{}, ErrTokenMalformed
	}
	if c.Audience[0] != audience {
		return Claims{}, ErrTokenAudience
	}
	if errors.Is(err, jwt.ErrTokenExpired) {
		return Claims{}, ErrTokenExpired
	}
	if err != nil {
		return Claims{}, ErrTokenMalformed
	}
	return Claims{Subject: c.Subject, Audience: audience, ID: c.ID, Expires: c.ExpiresAt.Time}, nil
}
