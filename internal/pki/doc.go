// Package pki makes certificate authorities, certificates, keys and tokens: those
// of Pleiad itself and those that kinds of clusters ask for.
//
// All keys are ECDSA on P-256. Private keys are PEM-encoded PKCS #8; SEC 1 is
// read too. Certificates are valid from Skew before they are made, since the
// clocks of new nodes are not set yet, and never longer than their authority.
// Tokens are JWTs signed with ES256, and with nothing else.
//
// The clock is the caller's. Random readers are parameters where Go lets them be: keys
// and signatures always come from the system's secure source. Everything here is
// safe for concurrent use. Values of Pair and kind.Secret hold private keys: they
// belong into files of mode 0600 or sealed records, never into logs.
package pki
