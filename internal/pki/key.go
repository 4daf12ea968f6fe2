package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// pemLimit bounds PEM input, in bytes: nodes and operators send it.
const pemLimit = 64 << 10

// PEM block types.
const (
	blockCertificate = "CERTIFICATE"
	blockRequest     = "CERTIFICATE REQUEST"
	blockPKCS8       = "PRIVATE KEY"
	blockSEC1        = "EC PRIVATE KEY"
	blockPublic      = "PUBLIC KEY"
)

// Pair is a PEM certificate and its PEM private key.
type Pair struct {
	Certificate, Key []byte
}

// KeyPair is a PEM private key and its PEM public key.
type KeyPair struct {
	Key, PublicKey []byte
}

// NewKeyPair makes a key pair, e.g. the one that signs service account tokens.
func NewKeyPair() (KeyPair, error) {
	key, err := newKey()
	if err != nil {
		return KeyPair{}, err
	}
	private, err := encodeKey(key)
	if err != nil {
		return KeyPair{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return KeyPair{}, fmt.Errorf("encode public key: %w", err)
	}
	return KeyPair{private, pem.EncodeToMemory(&pem.Block{Type: blockPublic, Bytes: public})}, nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockPKCS8, Bytes: der}), nil
}

// ParseKey reads a private key, PKCS #8 or SEC 1, which must be ECDSA on P-256.
// Errors never show what was read.
func ParseKey(text []byte) (*ecdsa.PrivateKey, error) {
	der, kind, err := onlyBlock(text, blockPKCS8, blockSEC1)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	var key *ecdsa.PrivateKey
	if kind == blockSEC1 {
		key, err = x509.ParseECPrivateKey(der)
	} else {
		var parsed any
		if parsed, err = x509.ParsePKCS8PrivateKey(der); err == nil {
			key, _ = parsed.(*ecdsa.PrivateKey)
		}
	}
	if err != nil {
		return nil, errors.New("private key: not valid PKCS #8 or SEC 1")
	}
	if key == nil || key.Curve != elliptic.P256() {
		return nil, errors.New("private key: must be ECDSA on P-256")
	}
	return key, nil
}

// ParseCertificate reads one certificate.
func ParseCertificate(text []byte) (*x509.Certificate, error) {
	der, _, err := onlyBlock(text, blockCertificate)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return c, nil
}

// onlyBlock returns the contents and type of the one PEM block in text, which must be of one of the types.
// Anything else beside it is refused rather than skipped.
func onlyBlock(text []byte, types ...string) (der []byte, kind string, err error) {
	if len(text) > pemLimit {
		return nil, "", fmt.Errorf("must be at most %d bytes of PEM", pemLimit)
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, "", fmt.Errorf("must be PEM of type %s", types[0])
	}
	if !slices.Contains(types, block.Type) {
		return nil, "", fmt.Errorf("must be PEM of type %s (was %.40q)", types[0], block.Type)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, "", errors.New("must be one PEM block only")
	}
	return block.Bytes, block.Type, nil
}
