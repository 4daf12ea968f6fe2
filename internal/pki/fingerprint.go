package pki

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Fingerprint returns the SHA-256 of a DER certificate as the store and the API have it: 64 small hexadecimal digits.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// FormatFingerprint returns a fingerprint as people compare it: capital bytes with colons between.
func FormatFingerprint(fingerprint string) string {
	var out strings.Builder
	for i, r := range strings.ToUpper(fingerprint) {
		if i > 0 && i%2 == 0 {
			out.WriteByte(':')
		}
		out.WriteRune(r)
	}
	return out.String()
}

// ParseFingerprint reads a fingerprint as people copy it, with or without colons, spaces
// and a leading "SHA256:" or "sha256:", and returns it like Fingerprint.
func ParseFingerprint(text string) (string, error) {
	s := strings.ToLower(strings.TrimSpace(text))
	s = strings.TrimPrefix(s, "sha256:")
	s = strings.NewReplacer(":", "", " ", "").Replace(s)
	if b, err := hex.DecodeString(s); err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf("fingerprint: must be %d hexadecimal digits (was %.80q)", 2*sha256.Size, text)
	}
	return s, nil
}
