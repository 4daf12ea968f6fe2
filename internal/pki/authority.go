package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"time"
)

const (
	// Skew is how long before they are made certificates start to be valid.
	Skew = 10 * time.Minute
	// AuthorityValidity is for authorities: longer than anything they sign for.
	AuthorityValidity = 10 * 365 * 24 * time.Hour
	// LeafValidity is for certificates of servers and clients.
	LeafValidity = 365 * 24 * time.Hour
)

// Authority is a certificate authority. It signs leaf certificates only.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pair        Pair
}

// NewAuthority makes a self-signed authority. random is for its serial number.
func NewAuthority(commonName string, validity time.Duration, now time.Time, random io.Reader) (*Authority, error) {
	if commonName == "" {
		return nil, errors.New("authority: the common name must not be empty")
	}
	serial, err := newSerial(random)
	if err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-Skew),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", commonName, err)
	}
	private, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return LoadAuthority(Pair{encodeCertificate(der), private})
}

// LoadAuthority reads an authority made before, or one that was given to us.
func LoadAuthority(p Pair) (*Authority, error) {
	c, err := ParseCertificate(p.Certificate)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	key, err := ParseKey(p.Key)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", c.Subject.CommonName, err)
	}
	if !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("authority %s: the certificate is not one of an authority", c.Subject.CommonName)
	}
	if !key.PublicKey.Equal(c.PublicKey) {
		return nil, fmt.Errorf("authority %s: the private key is not that of the certificate", c.Subject.CommonName)
	}
	return &Authority{c, key, p}, nil
}

// Pair returns certificate and private key, to be kept.
func (a *Authority) Pair() Pair { return a.pair }

// Certificate returns the authority's certificate, PEM.
func (a *Authority) Certificate() []byte { return a.pair.Certificate }

// Fingerprint returns that of the authority's certificate.
func (a *Authority) Fingerprint() string { return Fingerprint(a.certificate.Raw) }

// Pool returns a pool that trusts this authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// Leaf is what a certificate of a server or client says.
type Leaf struct {
	CommonName   string
	Organization []string
	DNSNames     []string
	IPs          []netip.Addr
	// Server and Client are what it may be used for; at least one.
	Server, Client bool
	// Validity is LeafValidity if zero.
	Validity time.Duration
}

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(leaf Leaf, now time.Time, random io.Reader) (Pair, error) {
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	certificate, err := a.sign(leaf, &key.PublicKey, now, random)
	if err != nil {
		return Pair{}, err
	}
	private, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{certificate, private}, nil
}

// SignRequest makes a certificate for the key of a PEM certificate request. Every name and use comes
// from leaf: what the request says of them is not looked at, since whoever sent it could say anything. The
// request's signature shows that the sender has the key, which must be ECDSA on P-256.
func (a *Authority) SignRequest(request []byte, leaf Leaf, now time.Time, random io.Reader) ([]byte, error) {
	public, err := requestKey(request)
	if err != nil {
		return nil, err
	}
	return a.sign(leaf, public, now, random)
}

func requestKey(request []byte) (*ecdsa.PublicKey, error) {
	der, _, err := onlyBlock(request, blockRequest)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	public, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("certificate request: the key must be ECDSA on P-256")
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return public, nil
}

// NewRequest makes a key and a PEM certificate request for it, without names: the
// authority knows better.
func NewRequest() (request, key []byte, err error) {
	private, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}
	if key, err = encodeKey(private); err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockRequest, Bytes: der}), key, nil
}

func (a *Authority) sign(leaf Leaf, public *ecdsa.PublicKey, now time.Time, random io.Reader) ([]byte, error) {
	if leaf.CommonName == "" {
		return nil, errors.New("certificate: the common name must not be empty")
	}
	if !leaf.Server && !leaf.Client {
		return nil, fmt.Errorf("certificate %s: must be for a server, a client or both", leaf.CommonName)
	}
	if !now.Before(a.certificate.NotAfter) {
		return nil, fmt.Errorf("certificate %s: authority %s ended at %s", leaf.CommonName,
			a.certificate.Subject.CommonName, a.certificate.NotAfter.Format(time.RFC3339))
	}
	serial, err := newSerial(random)
	if err != nil {
		return nil, err
	}
	validity := leaf.Validity
	if validity == 0 {
		validity = LeafValidity
	}
	end := now.Add(validity)
	if end.After(a.certificate.NotAfter) {
		end = a.certificate.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organization},
		DNSNames:              leaf.DNSNames,
		NotBefore:             now.Add(-Skew),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	for _, ip := range leaf.IPs {
		if !ip.IsValid() {
			return nil, fmt.Errorf("certificate %s: has an empty IP address", leaf.CommonName)
		}
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.Unmap().AsSlice()))
	}
	if leaf.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if leaf.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", leaf.CommonName, err)
	}
	return encodeCertificate(der), nil
}

// newSerial returns a positive number of 127 random bits.
func newSerial(random io.Reader) (*big.Int, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	b[0] &= 0x7f
	b[15] |= 1 // never zero
	return new(big.Int).SetBytes(b[:]), nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})
}
