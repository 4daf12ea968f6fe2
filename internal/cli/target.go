package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/pki"
)

func targetCommand(s *session) *cobra.Command {
	return groupCommand("target", "The server to work with, and who we are there",
		targetSet(s), targetShow(s), targetLogin(s), targetLogout(s), targetInfo(s))
}

// normalizeTarget returns a server's URL without path; https when it has no scheme.
func normalizeTarget(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", err
	}
	if u.Scheme != "https" {
		return "", fmt.Errorf("the target must be an https URL, since tokens must not travel in the clear (was %q)", text)
	}
	if u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("the target must be like https://host:port (was %q)", u.Redacted())
	}
	return "https://" + u.Host, nil
}

func targetSet(s *session) *cobra.Command {
	var fingerprint string
	var noCheck bool
	c := &cobra.Command{
		Use: "set URL", Short: "Set the server to work with", Args: args(1, 1),
		Long: `Set the server to work with.

A server whose certificate this machine does not trust already is trusted by the
SHA-256 of its CA, which "pleiad server" shows when it starts: it is shown here
to be compared, or it is given with --fingerprint. From then on only that CA is
accepted.

--nocertcheck trusts whatever CA the server shows now, unseen. It is for first
tries: whoever stands between here and the server at this moment is trusted.
Unlike with Photon, later calls are checked nevertheless, against that CA.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := normalizeTarget(args[0])
			if err != nil {
				return usageError{err}
			}
			if fingerprint != "" {
				if fingerprint, err = pki.ParseFingerprint(fingerprint); err != nil {
					return usageError{fmt.Errorf("--%w", err)}
				}
			}
			pin, err := s.trust(cmd.Context(), target, fingerprint, noCheck)
			if err != nil {
				return err
			}
			err = s.change(func(c *config) {
				if c.Target != target || c.Fingerprint != pin {
					*c = config{} // a token and ids mean nothing to another server
				}
				c.Target, c.Fingerprint = target, pin
			})
			if err != nil {
				return err
			}
			s.say("API target set to '%s'", target)
			return nil
		},
	}
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "`SHA256` of the server's CA, to confirm it without being asked")
	c.Flags().BoolVarP(&noCheck, "nocertcheck", "c", false, "trust the CA the server shows now without a look; it is pinned all the same")
	return c
}

// trust decides how a server is trusted and returns the fingerprint to pin;
// empty if the machine's roots vouch for it.
func (s *session) trust(ctx context.Context, target, fingerprint string, noCheck bool) (string, error) {
	if fingerprint == "" {
		api, err := s.newClient(config{Target: target})
		if err != nil {
			return "", err
		}
		defer api.Close()
		err = api.Available(ctx)
		var unknown x509.UnknownAuthorityError
		if !errors.As(err, &unknown) {
			return "", err
		}
	}
	shown, err := client.FetchCertificate(ctx, target)
	if err != nil {
		return "", err
	}
	readable := pki.FormatFingerprint(shown.Fingerprint)
	switch {
	case fingerprint != "":
		if shown.Fingerprint != fingerprint {
			return "", fmt.Errorf("the fingerprint of the server's CA is not the one given; the target is not changed\n  shown: %s\n  given: %s",
				readable, pki.FormatFingerprint(fingerprint))
		}
	case noCheck:
		s.say("Trusting the CA that the server shows, without a check: SHA-256 %s\nFrom now on only this CA is accepted.", readable)
	case s.pinned(target) == shown.Fingerprint:
		// agreed on before
	case !s.interactive():
		return "", fmt.Errorf("the server's CA is not trusted by this machine; confirm it with --fingerprint %s", readable)
	default:
		fmt.Fprintf(s.env.Stderr, "The CA of the server at %s isn't known to this machine.\n  Subject: %s\n  SHA-256: %s\nCompare this with what \"pleiad server\" showed when it started.\n",
			target, oneLine(shown.CA.Subject.String()), readable)
		yes, err := s.yesNo("Do you trust this certificate for future communication? (yes/no): ")
		if err != nil {
			return "", fmt.Errorf("%w; to confirm it without being asked, give --fingerprint", err)
		}
		if !yes {
			return "", errors.New("the server is not trusted; the target is not changed")
		}
	}
	return shown.Fingerprint, nil
}

// pinned returns the fingerprint the target is pinned to in the context file.
func (s *session) pinned(target string) string {
	c, err := s.config()
	if err != nil || c.Target != target {
		return ""
	}
	return c.Fingerprint
}

func targetShow(s *session) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the server that is set", Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			c, err := s.config()
			if err != nil {
				return err
			}
			if c.Target == "" {
				return errors.New("no target is set; set one with \"pleiad target set URL\"")
			}
			return printObject(s, []column[contextView]{
				{"Target", func(v contextView) string { return v.Target }},
				{"CA SHA-256", func(v contextView) string { return pki.FormatFingerprint(v.Fingerprint) }},
				{"Logged in", func(v contextView) string { return yesText(v.LoggedIn) }},
			}, contextView{c.Target, c.Fingerprint, c.Token != ""})
		},
	}
}

// contextView is what is shown of the context: not the token.
type contextView struct {
	Target      string `json:"target"`
	Fingerprint string `json:"caFingerprint,omitempty"`
	LoggedIn    bool   `json:"loggedIn"`
}

func targetLogin(s *session) *cobra.Command {
	var token, file string
	c := &cobra.Command{
		Use: "login [TOKEN]", Short: "Log in with an access token", Args: args(0, 1),
		Long: `Log in with an access token: that of the administrator, which the server wrote
to a file when it first started, or one made with "pleiad auth token create".

The token is asked for without echo, or read from --token-file. An argument or
--access_token is accepted as in Photon, but other users of this machine can see
it while the command runs.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.config()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				token = args[0]
			}
			if token == "" {
				if token, err = s.readSecret(file, "token-file", "Access token"); err != nil {
					return err
				}
			}
			tried := *c
			tried.Token = token
			if err := s.checkToken(cmd.Context(), tried); err != nil {
				return err
			}
			if err := s.remember(func(c *config) { c.Token = token }); err != nil {
				return err
			}
			s.say("Login successful")
			return nil
		},
	}
	c.Flags().StringVarP(&token, "access-token", "t", "", "access `TOKEN`; rather use --token-file or the question")
	c.Flags().StringVar(&file, "token-file", "", "`FILE` with the access token")
	must(c.MarkFlagFilename("token-file"))
	return c
}

// checkToken asks the server for something that needs a token.
func (s *session) checkToken(ctx context.Context, c config) error {
	if c.Target == "" {
		return errors.New("no target is set; set one with \"pleiad target set URL\"")
	}
	api, err := s.newClient(c)
	if err != nil {
		return err
	}
	defer api.Close()
	if _, err := api.Info(ctx); err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	return nil
}

func targetLogout(s *session) *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget the access token", Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			return s.remember(func(c *config) { c.Token = "" })
		},
	}
}

func targetInfo(s *session) *cobra.Command {
	return &cobra.Command{
		Use: "info", Short: "Show the server's version", Args: args(0, 0),
		RunE: s.run(func(ctx context.Context, api *client.Client, _ []string) error {
			info, err := api.Info(ctx)
			if err != nil {
				return err
			}
			return printObject(s, []column[model.Info]{
				{"Base version", func(i model.Info) string { return i.BaseVersion }},
				{"Full version", func(i model.Info) string { return i.FullVersion }},
				{"Git commit hash", func(i model.Info) string { return i.GitCommitHash }},
				{"Network type", func(i model.Info) string { return i.NetworkType }},
			}, *info)
		}),
	}
}
