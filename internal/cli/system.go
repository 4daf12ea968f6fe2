package cli

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

func systemCommand(s *session) *cobra.Command {
	return groupCommand("system", "The system's health", &cobra.Command{
		Use: "status", Short: "Show how the system's parts are", Args: args(0, 0),
		RunE: s.run(func(ctx context.Context, api *client.Client, _ []string) error {
			status, err := api.Status(ctx)
			if err != nil {
				return err
			}
			if s.format.structured() {
				return s.printDocument(status)
			}
			s.say("Overall status: %s\n", status.Status)
			if s.format == formatBare {
				if err := printRow(s.env.Stdout, []column[model.SystemStatus]{
					{"Status", func(v model.SystemStatus) string { return v.Status }},
				}, *status); err != nil {
					return err
				}
			}
			return printList(s, []column[model.ComponentStatus]{
				{"Component", func(c model.ComponentStatus) string { return c.Component }},
				{"Status", func(c model.ComponentStatus) string { return c.Status }},
				{"Message", func(c model.ComponentStatus) string { return c.Message }},
			}, status.Components, nil)
		}),
	})
}

func authCommand(s *session) *cobra.Command {
	show := &cobra.Command{
		Use: "show", Short: "Show how to authenticate", Args: args(0, 0),
		RunE: s.run(func(ctx context.Context, api *client.Client, _ []string) error {
			auth, err := api.Auth(ctx)
			if err != nil {
				return err
			}
			return printObject(s, []column[model.AuthInfo]{
				{"Enabled", func(a model.AuthInfo) string { return yesText(a.Enabled) }},
				{"Endpoint", func(a model.AuthInfo) string { return a.Endpoint }},
				{"Port", func(a model.AuthInfo) string {
					if a.Port == 0 {
						return ""
					}
					return strconv.Itoa(a.Port)
				}},
			}, *auth)
		}),
	}
	return groupCommand("auth", "Authentication", show, groupCommand("token", "Access tokens", tokenCreate(s)))
}

func tokenCreate(s *session) *cobra.Command {
	var subject string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "create", Short: "Make an access token, shown this once", Args: args(0, 0),
		RunE: s.run(func(ctx context.Context, api *client.Client, _ []string) error {
			if ttl < time.Second {
				return usagef("--ttl must be a second or more (was %s)", ttl)
			}
			token, err := api.CreateToken(ctx, model.TokenCreateSpec{Subject: subject, TTLSeconds: int64(ttl / time.Second)})
			if err != nil {
				return err
			}
			accessToken := column[model.Token]{"Access token", func(t model.Token) string { return t.AccessToken }}
			if s.format == formatBare {
				return printRow(s.env.Stdout, []column[model.Token]{accessToken}, *token)
			}
			return printObject(s, []column[model.Token]{
				accessToken,
				{"Subject", func(t model.Token) string { return t.Subject }},
				{"Expires", func(t model.Token) string { return timeText(t.ExpiresTime) }},
			}, *token)
		}),
	}
	c.Flags().StringVar(&subject, "subject", "", "`NAME` of whom the token is for; ourselves when left out")
	c.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "`TIME` it is valid, as 8h or 90m")
	return c
}

func versionCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show this program's version", Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			type version struct {
				Version string `json:"version"`
			}
			return printObject(s, []column[version]{
				{"Version", func(v version) string { return v.Version }},
			}, version{s.env.Version})
		},
	}
}
