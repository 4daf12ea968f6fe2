package pki

import (
	"fmt"
	"io"
	"time"

	"github.com/pleiad/pleiad/internal/kind"
)

// Issue fulfils a kind's request with what was issued to the cluster before. A name
// that was issued already is returned as it is, so that a decision carried out twice changes nothing.
// Errors mean that the kind asked for something impossible, or that a stored secret is damaged.
func Issue(r kind.Request, issued map[string]kind.Secret, now time.Time, random io.Reader) (kind.Secret, error) {
	if s, ok := issued[r.Name]; ok {
		return s, nil
	}
	s, err := fulfil(r, issued, now, random)
	if err != nil {
		return kind.Secret{}, fmt.Errorf("issue %s: %w", r.Name, err)
	}
	return s, nil
}

func fulfil(r kind.Request, issued map[string]kind.Secret, now time.Time, random io.Reader) (kind.Secret, error) {
	set := 0
	for _, one := range []bool{r.CA != nil, r.Certificate != nil, r.KeyPair, r.Token != ""} {
		if one {
			set++
		}
	}
	if r.Name == "" || set != 1 {
		return kind.Secret{}, fmt.Errorf("a request must have a name and ask for exactly one thing (asks for %d)", set)
	}
	switch {
	case r.CA != nil:
		a, err := NewAuthority(r.CA.CommonName, AuthorityValidity, now, random)
		if err != nil {
			return kind.Secret{}, err
		}
		return kind.Secret{Certificate: a.Pair().Certificate, Key: a.Pair().Key}, nil
	case r.Certificate != nil:
		c := r.Certificate
		ca, ok := issued[c.Issuer]
		if !ok {
			return kind.Secret{}, fmt.Errorf("its issuer %q was not issued before", c.Issuer)
		}
		a, err := LoadAuthority(Pair{ca.Certificate, ca.Key})
		if err != nil {
			return kind.Secret{}, err
		}
		p, err := a.Issue(Leaf{
			CommonName: c.CommonName, Organization: c.Organization,
			DNSNames: c.DNSNames, IPs: c.IPs, Server: c.Server, Client: c.Client,
		}, now, random)
		if err != nil {
			return kind.Secret{}, err
		}
		return kind.Secret{Certificate: p.Certificate, Key: p.Key}, nil
	case r.KeyPair:
		p, err := NewKeyPair()
		if err != nil {
			return kind.Secret{}, err
		}
		return kind.Secret{Key: p.Key, PublicKey: p.PublicKey}, nil
	}
	token, err := RandomToken(r.Token, random)
	return kind.Secret{Token: token}, err
}
