package pki

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

// RandomToken fills a pattern: each 'x' becomes one of a-z and 0-9, all equally
// likely; every other rune stays. A pattern without 'x' is an error, since its token would be no secret.
func RandomToken(pattern string, random io.Reader) (string, error) {
	if !strings.ContainsRune(pattern, 'x') {
		return "", errors.New("token: the pattern must have an x")
	}
	// Bytes from the last, incomplete run of the alphabet are thrown away: they would favour its beginning.
	const usable = 256 - 256%len(alphabet)
	var out strings.Builder
	var b [1]byte
	for _, r := range pattern {
		if r != 'x' {
			out.WriteRune(r)
			continue
		}
		for {
			if _, err := io.ReadFull(random, b[:]); err != nil {
				return "", fmt.Errorf("token: %w", err)
			}
			if int(b[0]) < usable {
				out.WriteByte(alphabet[int(b[0])%len(alphabet)])
				break
			}
		}
	}
	return out.String(), nil
}
