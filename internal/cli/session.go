package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

// session is what the commands of one command line share.
type session struct {
	env   Env
	flags struct {
		nonInteractive, detail bool
		output, logFile        string
		// tenant and project are names, from the flags of commands that work in one.
		tenant, project string
	}
	format  format
	logFile *os.File

	// Filled when first needed: commands such as completion need neither.
	path    string
	loaded  *config
	connect *client.Client
}

func newSession(env Env) *session { return &session{env: env} }

// begin checks the global flags and opens the log.
func (s *session) begin() error {
	f := &s.flags
	if f.detail && (f.nonInteractive || f.output != "") {
		return usagef("--detail is for people: it cannot be used with --non-interactive or --output")
	}
	switch strings.ToLower(f.output) {
	case "":
		if f.nonInteractive {
			s.format = formatBare
		}
	case "table":
		s.format = formatTable
	case "json":
		s.format = formatJSON
	case "yaml":
		s.format = formatYAML
	default:
		return usagef("--output must be json, yaml or table (was %q)", f.output)
	}
	if f.logFile != "" {
		file, err := os.OpenFile(f.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("--log-file: %w", err)
		}
		s.logFile = file
	}
	if f.detail {
		return s.printDetail()
	}
	return nil
}

// close ends the session.
func (s *session) close() {
	if s.connect != nil {
		s.connect.Close()
	}
	if s.logFile != nil {
		_ = s.logFile.Close()
	}
}

// interactive reports whether the user may be asked. Documents are for programs.
func (s *session) interactive() bool {
	return !s.flags.nonInteractive && !s.format.structured()
}

// say writes a remark for people; programs don't see it.
func (s *session) say(format string, args ...any) {
	if s.format == formatTable {
		fmt.Fprintf(s.env.Stdout, format+"\n", args...)
	}
}

func (s *session) printDetail() error {
	c, err := s.config()
	if err != nil {
		return err
	}
	s.say("Using target '%s'", c.Target)
	for _, chosen := range []struct {
		word string
		ref  *ref
	}{{"tenant", c.Tenant}, {"project", c.Project}} {
		if chosen.ref != nil {
			s.say("Using %s '%s'", chosen.word, chosen.ref.Name)
		}
	}
	return nil
}

// config returns the context file's content, with what the environment overrides.
func (s *session) config() (*config, error) {
	if s.loaded != nil {
		return s.loaded, nil
	}
	path, err := configPath(s.env.Getenv)
	if err != nil {
		return nil, err
	}
	c, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	if target := s.env.Getenv("PLEIAD_TARGET"); target != "" {
		if target, err = normalizeTarget(target); err != nil {
			return nil, fmt.Errorf("PLEIAD_TARGET: %w", err)
		}
		if target != c.Target {
			c = config{Target: target} // what belongs to one server is not shown to another
		}
	}
	if fingerprint := s.env.Getenv("PLEIAD_FINGERPRINT"); fingerprint != "" {
		c.Fingerprint = fingerprint
	}
	if token := s.env.Getenv("PLEIAD_TOKEN"); token != "" {
		c.Token = token
	}
	s.path, s.loaded = path, &c
	return s.loaded, nil
}

// change changes the context file. The environment's overrides are not written.
func (s *session) change(f func(*config)) error {
	path, err := configPath(s.env.Getenv)
	if err != nil {
		return err
	}
	c, err := loadConfig(path)
	if err != nil {
		return err
	}
	f(&c)
	return c.save(path)
}

// remember changes what the context file says of the target. It refuses when
// PLEIAD_TARGET names another server: what belongs to that one is not the file's.
func (s *session) remember(f func(*config)) error {
	used, err := s.config()
	if err != nil {
		return err
	}
	kept, err := loadConfig(s.path)
	if err != nil {
		return err
	}
	if used.Target != kept.Target {
		return fmt.Errorf("PLEIAD_TARGET names another server (%s) than the context file (%q), which is not changed; unset it, or use \"pleiad target set\"",
			used.Target, kept.Target)
	}
	return s.change(f)
}

// api returns the client of the target.
func (s *session) api() (*client.Client, error) {
	if s.connect != nil {
		return s.connect, nil
	}
	c, err := s.config()
	if err != nil {
		return nil, err
	}
	if c.Target == "" {
		return nil, errors.New("no target is set; set one with \"pleiad target set URL\"")
	}
	s.connect, err = s.newClient(*c)
	return s.connect, err
}

// newClient returns a client of the server that a context names.
func (s *session) newClient(c config) (*client.Client, error) {
	return client.New(client.Options{
		Endpoints:     []string{c.Target},
		Token:         c.Token,
		CAFingerprint: c.Fingerprint,
		UserAgent:     "pleiad-cli/" + s.env.Version,
	})
}

// run adapts a command that works with the API.
func (s *session) run(f func(ctx context.Context, api *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		api, err := s.api()
		if err != nil {
			return err
		}
		return f(c.Context(), api, args)
	}
}

// tenant returns the tenant to work in: that of --tenant, or the one that is set.
func (s *session) tenant(ctx context.Context) (ref, error) {
	api, err := s.api()
	if err != nil {
		return ref{}, err
	}
	c, err := s.config()
	if err != nil {
		return ref{}, err
	}
	if s.flags.tenant == "" {
		if c.Tenant == nil {
			return ref{}, errors.New("no tenant is set; set one with \"pleiad tenant set NAME\", or give --tenant")
		}
		return *c.Tenant, nil
	}
	all, err := api.Tenants(ctx)
	if err != nil {
		return ref{}, err
	}
	return pick("tenant", s.flags.tenant, all, func(t model.Tenant) ref { return ref{t.ID, t.Name} })
}

// project returns the project to work in: that of --project, or the one that is set.
func (s *session) project(ctx context.Context) (ref, error) {
	c, err := s.config()
	if err != nil {
		return ref{}, err
	}
	if s.flags.project == "" {
		if c.Project == nil || s.flags.tenant != "" {
			return ref{}, errors.New("no project is set; set one with \"pleiad project set NAME\", or give --project")
		}
		return *c.Project, nil
	}
	tenant, err := s.tenant(ctx)
	if err != nil {
		return ref{}, err
	}
	api, err := s.api()
	if err != nil {
		return ref{}, err
	}
	all, err := api.Projects(ctx, tenant.ID)
	if err != nil {
		return ref{}, err
	}
	return pick("project", s.flags.project, all, func(p model.Project) ref { return ref{p.ID, p.Name} })
}

// pick returns the one object that has the given id or name.
func pick[T any](noun, wanted string, all []T, head func(T) ref) (ref, error) {
	var found []ref
	for _, item := range all {
		r := head(item)
		if r.ID == wanted {
			return r, nil
		}
		if r.Name == wanted {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return ref{}, fmt.Errorf("there is no %s %q; \"pleiad %s list\" shows those there are", noun, wanted, noun)
	default:
		ids := make([]string, len(found))
		for i, r := range found {
			ids[i] = r.ID
		}
		return ref{}, fmt.Errorf("there are %d of name %q; use an id instead: %s", len(found), wanted, strings.Join(ids, ", "))
	}
}

// logger writes to the file of --log-file, or nowhere.
func (s *session) logger() *slog.Logger {
	if s.logFile == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(s.logFile, nil))
}

// logEnd logs how a command ended; its arguments may be secrets and are left out.
func (s *session) logEnd(c *cobra.Command, elapsed time.Duration, code int, err error) {
	attrs := []any{"command", c.CommandPath(), "exit", code, "elapsed", elapsed.Round(time.Millisecond)}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	var refused *client.ResponseError
	if errors.As(err, &refused) {
		attrs = append(attrs, "status", refused.Status, "request", refused.RequestID)
	}
	s.logger().Info("command", attrs...)
}
