package bootstrap

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/pleiad/pleiad/internal/model"
)

// Limits of a document.
const (
	maxControllers = 16
	maxNetworks    = 16
)

// Validate checks every field; its error names the first that is wrong, never
// the token's value.
func (b Bootstrap) Validate() error {
	if !isID(b.NodeID) {
		return fmt.Errorf("nodeId %q is not 1 to 128 letters, digits, '.', '_' or '-'", b.NodeID)
	}
	if !isHostname(b.Hostname) {
		return fmt.Errorf("hostname %q is not a host name (RFC 1123, at most 63 characters)", b.Hostname)
	}
	if n := len(b.ControllerURLs); n == 0 || n > maxControllers {
		return fmt.Errorf("controllerUrls has %d entries, 1 to %d are allowed", n, maxControllers)
	}
	for _, s := range b.ControllerURLs {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
			(u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("controllerUrls: %q is not like https://host:port", s)
		}
	}
	if err := b.validateTrust(); err != nil {
		return err
	}
	if b.Token == "" {
		return errors.New("token is missing")
	}
	if len(b.Network) > maxNetworks {
		return fmt.Errorf("network has %d entries, at most %d are allowed", len(b.Network), maxNetworks)
	}
	for i, n := range b.Network {
		if err := validateNetwork(n, len(b.Network) == 1); err != nil {
			return fmt.Errorf("network[%d]: %w", i, err)
		}
	}
	return nil
}

func (b Bootstrap) validateTrust() error {
	if b.CAFingerprint == "" && b.CA == "" {
		return errors.New("caFingerprint or ca is required: without one the node cannot know its controller")
	}
	if b.CAFingerprint != "" {
		if sum, err := hex.DecodeString(b.CAFingerprint); err != nil || len(sum) != sha256.Size {
			return fmt.Errorf("caFingerprint %q is not a SHA-256 of 64 hexadecimal digits", b.CAFingerprint)
		}
	}
	if b.CA == "" {
		return nil
	}
	block, rest := pem.Decode([]byte(b.CA))
	if block == nil || block.Type != "CERTIFICATE" || len(strings.TrimSpace(string(rest))) != 0 {
		return errors.New("ca is not one PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	if !cert.IsCA {
		return errors.New("ca is not the certificate of a CA")
	}
	if sum := Fingerprint(cert); b.CAFingerprint != "" && !strings.EqualFold(b.CAFingerprint, sum) {
		return fmt.Errorf("caFingerprint %s is not that of ca, %s", b.CAFingerprint, sum)
	}
	return nil
}

// Fingerprint is the SHA-256 of a certificate's DER, in lower-case hexadecimal.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// validateNetwork checks one interface. Only the only one may be without a MAC
// address: two could not be told apart.
func validateNetwork(n model.VMNetwork, only bool) error {
	if n.MACAddress != "" || !only {
		// In the one spelling by which the interface is looked for.
		if hw, err := net.ParseMAC(n.MACAddress); err != nil || len(hw) != 6 || !strings.EqualFold(hw.String(), n.MACAddress) {
			return fmt.Errorf("macAddress %q is not like 00:16:3e:12:34:56", n.MACAddress)
		}
	}
	for _, s := range n.DNS {
		if _, err := parseAddr(s); err != nil {
			return fmt.Errorf("dns %q is not an IP address", s)
		}
	}
	if n.IPAddress == "" {
		if n.Prefix != 0 || n.Gateway != "" {
			return errors.New("prefix and gateway need an ipAddress")
		}
		return nil
	}
	addr, err := parseAddr(n.IPAddress)
	if err != nil || !addr.IsGlobalUnicast() {
		return fmt.Errorf("ipAddress %q is not a unicast IP address", n.IPAddress)
	}
	if n.Prefix < 1 || n.Prefix > addr.BitLen() {
		return fmt.Errorf("prefix %d is not 1 to %d", n.Prefix, addr.BitLen())
	}
	if n.Gateway == "" {
		return nil
	}
	subnet := netip.PrefixFrom(addr, n.Prefix).Masked()
	gateway, err := parseAddr(n.Gateway)
	if err != nil || !subnet.Contains(gateway) || gateway == addr {
		return fmt.Errorf("gateway %q is not another address in %s", n.Gateway, subnet)
	}
	return nil
}

// parseAddr parses an IP address; one with a zone means nothing in another machine's configuration.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err == nil && a.Zone() != "" {
		err = errors.New("address has a zone")
	}
	return a, err
}

func isID(s string) bool {
	return s != "" && len(s) <= 128 && strings.IndexFunc(s, func(r rune) bool {
		return !isAlnum(r) && r != '.' && r != '_' && r != '-'
	}) < 0
}

func isHostname(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.IndexFunc(label, func(r rune) bool { return !isAlnum(r) && r != '-' }) >= 0 {
			return false
		}
	}
	return true
}

func isAlnum(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}
