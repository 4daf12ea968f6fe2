package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/pleiad/pleiad/internal/api"
	"github.com/pleiad/pleiad/internal/control"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/pki"
	"github.com/pleiad/pleiad/internal/store"
)

// identityID is the id of the secret that holds the installation's keys.
const identityID = "installation"

const (
	adminTokenTTL   = 365 * 24 * time.Hour
	defaultTokenTTL = 24 * time.Hour
	// adminSubject is the one user there is until users are objects.
	adminSubject = "admin"
)

// identity is the installation's keys, made at the first start and kept in the
// store, so that all replicas have the same.
type identity struct {
	id        string
	ca        *pki.Authority
	host      pki.Pair
	tokens    *pki.Tokens
	clockFunc func() time.Time
}

// loadIdentity reads the installation's keys; the first replica to start makes
// them, and the deployment with them.
func loadIdentity(ctx context.Context, st *store.Store) (*identity, error) {
	fresh, err := newIdentity(time.Now())
	if err != nil {
		return nil, err
	}
	var secret *model.Secret
	_, err = st.Update(ctx, "", func(tx *store.Tx) error {
		var err error
		secret, err = store.Secrets.Get(tx, identityID)
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		secret = fresh
		return errors.Join(store.Secrets.Put(tx, fresh), store.Deployments.Put(tx, &model.Deployment{
			Meta:  model.Meta{ID: control.DeploymentID, Kind: "deployment", CreatedTime: time.Now().UnixMilli()},
			State: model.StateReady, ImageDatastores: []string{}, Auth: model.AuthInfo{Enabled: true},
			ClusterConfigurations: []model.ClusterConfiguration{},
		}))
	})
	if err != nil {
		return nil, err
	}
	v := secret.Values
	ca, err := pki.LoadAuthority(pki.Pair{Certificate: v["ca.crt"], Key: v["ca.key"]})
	if err != nil {
		return nil, err
	}
	tokens, err := pki.NewTokens(v["tokens.key"], time.Now)
	if err != nil {
		return nil, err
	}
	return &identity{
		id: string(v["id"]), ca: ca, tokens: tokens, clockFunc: time.Now,
		host: pki.Pair{Certificate: v["host.crt"], Key: v["host.key"]},
	}, nil
}

func newIdentity(now time.Time) (*model.Secret, error) {
	ca, err := pki.NewAuthority("Pleiad", pki.AuthorityValidity, now, rand.Reader)
	if err != nil {
		return nil, err
	}
	// Hypervisors trust this certificate itself, not its issuer, and have no way
	// to be told of a successor: it lasts as long as the CA.
	host, err := ca.Issue(pki.Leaf{CommonName: "pleiad", Client: true, Validity: pki.AuthorityValidity}, now, rand.Reader)
	if err != nil {
		return nil, err
	}
	tokens, err := pki.NewKeyPair()
	if err != nil {
		return nil, err
	}
	return &model.Secret{ID: identityID, Values: map[string][]byte{
		"id":     []byte(uuid.NewString()),
		"ca.crt": ca.Pair().Certificate, "ca.key": ca.Pair().Key,
		"host.crt": host.Certificate, "host.key": host.Key,
		"tokens.key": tokens.Key,
	}}, nil
}

func (i *identity) control() *control.Identity {
	return &control.Identity{ID: i.id, CA: i.ca, HostCertificate: i.host.Certificate, HostKey: i.host.Key, Tokens: i.tokens}
}

func (i *identity) fingerprint() string { return i.ca.Fingerprint() }

// tlsConfig makes this replica's serving certificate, anew at each start, so
// that it always has the machine's present addresses.
func (i *identity) tlsConfig(o *Options) (*tls.Config, error) {
	names, err := o.names()
	if err != nil {
		return nil, err
	}
	leaf := pki.Leaf{CommonName: "pleiad-server", Server: true}
	for _, n := range names {
		if ip, err := netip.ParseAddr(n); err == nil {
			if !slices.Contains(leaf.IPs, ip) {
				leaf.IPs = append(leaf.IPs, ip)
			}
		} else if !slices.Contains(leaf.DNSNames, n) {
			leaf.DNSNames = append(leaf.DNSNames, n)
		}
	}
	pair, err := i.ca.Issue(leaf, i.clockFunc(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	// The CA goes with it: who pins its fingerprint must see it.
	cert, err := tls.X509KeyPair(slices.Concat(pair.Certificate, i.ca.Certificate()), pair.Key)
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.VerifyClientCertIfGiven,
		ClientCAs:    i.ca.Pool(),
		NextProtos:   []string{"h2", "http/1.1"},
	}, nil
}

// nodeFromCertificate returns whose certificate it is, if it is a node's.
func nodeFromCertificate(c *x509.Certificate) (string, error) {
	if !slices.Contains(c.Subject.Organization, control.NodeOrganization) || c.Subject.CommonName == "" {
		return "", model.Errorf(model.CodeAccessForbidden, "the certificate is not a node's")
	}
	return c.Subject.CommonName, nil
}

func (i *identity) adminToken() (string, error) {
	return i.tokens.Sign(pki.Claims{
		Subject: adminSubject, Audience: pki.AudienceUser, ID: uuid.NewString(), Expires: i.clockFunc().Add(adminTokenTTL),
	})
}

// Authenticate says whose token it is.
func (i *identity) Authenticate(_ context.Context, token string) (api.Principal, error) {
	claims, err := i.tokens.Verify(token, pki.AudienceUser)
	switch {
	case errors.Is(err, pki.ErrTokenExpired):
		return api.Principal{}, model.Errorf(model.CodeExpiredAuthToken, "the token has expired").
			Do("get another one with 'pleiad auth token create', and set it with 'pleiad target login'")
	case errors.Is(err, pki.ErrTokenMalformed):
		return api.Principal{}, model.Errorf(model.CodeInvalidAuthToken, "the token is not one").
			Do("set a token with 'pleiad target login'")
	case err != nil:
		return api.Principal{}, model.Errorf(model.CodeInvalidAuthToken, "the token is not good here: %v", err).
			Do("set a token of this installation with 'pleiad target login'")
	}
	return api.Principal{Subject: claims.Subject, Admin: claims.Subject == adminSubject}, nil
}

// IssueToken makes an access token.
func (i *identity) IssueToken(_ context.Context, caller api.Principal, spec model.TokenCreateSpec) (model.Token, error) {
	if spec.Subject != caller.Subject && !caller.Admin {
		return model.Token{}, model.Errorf(model.CodeAccessForbidden, "only an administrator makes tokens for others")
	}
	ttl := defaultTokenTTL
	if spec.TTLSeconds > 0 {
		ttl = time.Duration(spec.TTLSeconds) * time.Second
	}
	expires := i.clockFunc().Add(ttl)
	token, err := i.tokens.Sign(pki.Claims{
		Subject: spec.Subject, Audience: pki.AudienceUser, ID: uuid.NewString(), Expires: expires,
	})
	if err != nil {
		return model.Token{}, err
	}
	return model.Token{AccessToken: token, Subject: spec.Subject, ExpiresTime: expires.UnixMilli()}, nil
}
