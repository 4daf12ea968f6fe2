package server

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	id     string
	ca     *pki.Authority
	host   pki.Pair
	tokens *pki.Tokens
	clock  func() time.Time
}

// loadIdentity reads the installation's keys; the first replica to start makes
// them, and the deployment with them. Whatever ends, ends by clock.
func loadIdentity(ctx context.Context, st *store.Store, clock func() time.Time) (*identity, error) {
	fresh, err := newIdentity(clock())
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
			Meta:  model.Meta{ID: control.DeploymentID, Kind: "deployment", CreatedTime: clock().UnixMilli()},
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
	tokens, err := pki.NewTokens(v["tokens.key"], clock)
	if err != nil {
		return nil, err
	}
	return &identity{
		id: string(v["id"]), ca: ca, tokens: tokens, clock: clock,
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

// nodeFromCertificate returns whose certificate it is, if it is a node's.
func nodeFromCertificate(c *x509.Certificate) (string, error) {
	if !slices.Contains(c.Subject.Organization, control.NodeOrganization) || c.Subject.CommonName == "" {
		return "", model.Errorf(model.CodeAccessForbidden, "the certificate is not a node's")
	}
	return c.Subject.CommonName, nil
}

// writeAdminToken makes sure that the file at path holds a token of the
// administrator's that is good here. One that is missing, empty, expired or of
// another installation is replaced: whoever deletes the file gets a new one at
// the next start.
func (i *identity) writeAdminToken(path string, log *slog.Logger) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("administrator's token: %w", err)
	}
	if claims, err := i.tokens.Verify(strings.TrimSpace(string(old)), pki.AudienceUser); err == nil && claims.Subject == adminSubject {
		return nil
	}
	token, err := i.tokens.Sign(pki.Claims{
		Subject: adminSubject, Audience: pki.AudienceUser, ID: uuid.NewString(), Expires: i.clock().Add(adminTokenTTL),
	})
	if err != nil {
		return fmt.Errorf("administrator's token: %w", err)
	}
	if err := replaceFile(path, []byte(token+"\n")); err != nil {
		return fmt.Errorf("administrator's token: %w", err)
	}
	log.Info("the administrator's token was written", "file", path)
	return nil
}

// replaceFile puts a file of mode 0600 in the place of what is at path: after a
// crash the old content is there or the new, never a part.
func replaceFile(path string, content []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Authenticate says whose token it is.
func (i *identity) Authenticate(_ context.Context, token string) (api.Principal, error) {
	claims, err := i.tokens.Verify(token, pki.AudienceUser)
	switch {
	case errors.Is(err, pki.ErrTokenExpired):
		return api.Principal{}, model.Errorf(model.CodeExpiredAuthToken, "the token has expired").
			Do("get another one from an administrator, and set it with 'pleiad target login'; " +
				"the administrator's own is renewed when the server starts, in admin.token of its data directory")
	case errors.Is(err, pki.ErrTokenMalformed):
		return api.Principal{}, model.Errorf(model.CodeInvalidAuthToken, "the token is not one").
			Do("set a token with 'pleiad target login'")
	case err != nil:
		return api.Principal{}, model.Errorf(model.CodeInvalidAuthToken, "the token is not good here: %v", err).
			Do("set a token of this installation with 'pleiad target login'")
	}
	return api.Principal{Subject: claims.Subject, Admin: claims.Subject == adminSubject, Expires: claims.Expires}, nil
}

// IssueToken makes an access token. One for the caller's own subject ends with
// the token it is asked for with: else whoever once had a token could have
// tokens for ever.
func (i *identity) IssueToken(_ context.Context, caller api.Principal, spec model.TokenCreateSpec) (model.Token, error) {
	if spec.Subject != caller.Subject && !caller.Admin {
		return model.Token{}, model.Errorf(model.CodeAccessForbidden, "only an administrator makes tokens for others")
	}
	ttl := defaultTokenTTL
	if spec.TTLSeconds > 0 {
		ttl = time.Duration(spec.TTLSeconds) * time.Second
	}
	expires := i.clock().Add(ttl)
	if spec.Subject == caller.Subject && expires.After(caller.Expires) {
		expires = caller.Expires
	}
	token, err := i.tokens.Sign(pki.Claims{
		Subject: spec.Subject, Audience: pki.AudienceUser, ID: uuid.NewString(), Expires: expires,
	})
	if err != nil {
		return model.Token{}, err
	}
	return model.Token{AccessToken: token, Subject: spec.Subject, ExpiresTime: expires.UnixMilli()}, nil
}
