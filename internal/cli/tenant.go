package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/quota"
)

var tenants = resource[model.Tenant]{
	noun: "tenant", short: "Tenants: companies or departments",
	head: func(t model.Tenant) ref { return ref{t.ID, t.Name} },
	columns: []column[model.Tenant]{
		{"ID", func(t model.Tenant) string { return t.ID }},
		{"Name", func(t model.Tenant) string { return t.Name }},
		{"Security groups", func(t model.Tenant) string { return groupsText(t.SecurityGroups) }},
	},
	list:   all((*client.Client).Tenants),
	get:    byID((*client.Client).Tenant),
	remove: byID((*client.Client).DeleteTenant),
}

func tenantCommand(s *session) *cobra.Command {
	return tenants.command(s, tenantCreate(s), tenantSet(s), chosenCommand(s, "tenant", func(c *config) *ref { return c.Tenant }))
}

func tenantCreate(s *session) *cobra.Command {
	var name, groups string
	c := &cobra.Command{
		Use: "create [NAME]", Short: "Create a tenant", Args: args(0, 1),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			if len(args) == 1 {
				name = args[0]
			}
			if err := s.ask(question{flag: "name", prompt: "Tenant name", value: &name}); err != nil {
				return err
			}
			task, err := api.CreateTenant(ctx, model.TenantCreateSpec{Name: name, SecurityGroups: splitList(groups)})
			if err != nil {
				return err
			}
			return tenants.created(ctx, s, task, name)
		}),
	}
	c.Flags().StringVarP(&name, "name", "n", "", "tenant's `NAME`")
	c.Flags().StringVarP(&groups, "security-groups", "s", "", "`GROUPS` of users who may use the tenant, comma separated")
	return c
}

func tenantSet(s *session) *cobra.Command {
	return &cobra.Command{
		Use: "set ID|NAME", Short: "Work in a tenant from now on", Args: args(1, 1),
		ValidArgsFunction: tenants.complete(s),
		RunE: s.run(func(ctx context.Context, _ *client.Client, args []string) error {
			t, err := tenants.find(ctx, s, args[0])
			if err != nil {
				return err
			}
			err = s.remember(func(c *config) {
				if c.Tenant == nil || c.Tenant.ID != t.ID {
					c.Project = nil
				}
				c.Tenant = &ref{t.ID, t.Name}
			})
			if err == nil {
				s.say("Tenant set to '%s'", t.Name)
			}
			return err
		}),
	}
}

// chosenCommand shows the tenant or project that is set.
func chosenCommand(s *session, noun string, chosen func(*config) *ref) *cobra.Command {
	return &cobra.Command{
		Use: "get", Short: "Show the " + noun + " that is set", Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			c, err := s.config()
			if err != nil {
				return err
			}
			r := chosen(c)
			if r == nil {
				return fmt.Errorf("no %s is set; set one with \"pleiad %s set NAME\"", noun, noun)
			}
			return printObject(s, []column[ref]{
				{"ID", func(r ref) string { return r.ID }},
				{"Name", func(r ref) string { return r.Name }},
			}, *r)
		},
	}
}

var tickets = resource[model.ResourceTicket]{
	noun: "resource-ticket", short: "Resource tickets: what a tenant may use", scope: inTenant,
	head: func(t model.ResourceTicket) ref { return ref{t.ID, t.Name} },
	columns: []column[model.ResourceTicket]{
		{"ID", func(t model.ResourceTicket) string { return t.ID }},
		{"Name", func(t model.ResourceTicket) string { return t.Name }},
		{"Limits", func(t model.ResourceTicket) string { return quotaText(t.Limits) }},
	},
	details: []column[model.ResourceTicket]{
		{"ID", func(t model.ResourceTicket) string { return t.ID }},
		{"Name", func(t model.ResourceTicket) string { return t.Name }},
		{"Tenant ID", func(t model.ResourceTicket) string { return t.TenantID }},
		{"Used", func(t model.ResourceTicket) string { return usageText(t.Limits, t.Usage) }},
	},
	list:   byID((*client.Client).ResourceTickets),
	get:    byID((*client.Client).ResourceTicket),
	remove: byID((*client.Client).DeleteResourceTicket),
}

func ticketCommand(s *session) *cobra.Command { return tickets.command(s, ticketCreate(s)) }

func ticketCreate(s *session) *cobra.Command {
	var name, limits string
	c := &cobra.Command{
		Use: "create", Short: "Grant a tenant resources", Args: args(0, 0),
		RunE: s.run(func(ctx context.Context, api *client.Client, _ []string) error {
			tenant, err := s.tenant(ctx)
			if err != nil {
				return err
			}
			err = s.ask(
				question{flag: "name", prompt: "Resource ticket name", value: &name},
				question{flag: "limits", prompt: "Limits (key value unit, …)", value: &limits})
			if err != nil {
				return err
			}
			lines, err := parseLines("limits", limits)
			if err != nil {
				return err
			}
			if err := s.confirm("Creating resource ticket %s of tenant %s: %s", name, tenant.Name, quotaText(lines)); err != nil {
				return err
			}
			task, err := api.CreateResourceTicket(ctx, tenant.ID, model.ResourceTicketCreateSpec{Name: name, Limits: lines})
			if err != nil {
				return err
			}
			return tickets.created(ctx, s, task, name)
		}),
	}
	s.scopeFlags(c, inTenant)
	c.Flags().StringVarP(&name, "name", "n", "", "ticket's `NAME`")
	c.Flags().StringVarP(&limits, "limits", "l", "", "`LIMITS`, as \"vm.memory 64 GB, vm.cpu 32 COUNT\"")
	return c
}

// parseLines reads --limits or --cost; a mistake in it is one of the command line.
func parseLines(flag, text string) ([]model.QuotaLineItem, error) {
	lines, err := quota.ParseTriples("--"+flag, text)
	if err != nil {
		return nil, usageError{errors.New(model.AsError(err).Message)}
	}
	return lines, nil
}

var projects = resource[model.Project]{
	noun: "project", short: "Projects: reservations out of a tenant's resource tickets", scope: inTenant,
	head: func(p model.Project) ref { return ref{p.ID, p.Name} },
	columns: []column[model.Project]{
		{"ID", func(p model.Project) string { return p.ID }},
		{"Name", func(p model.Project) string { return p.Name }},
		{"Limits", func(p model.Project) string { return quotaText(p.ResourceTicket.Limits) }},
		{"Usage", func(p model.Project) string { return quotaText(p.ResourceTicket.Usage) }},
	},
	details: []column[model.Project]{
		{"ID", func(p model.Project) string { return p.ID }},
		{"Name", func(p model.Project) string { return p.Name }},
		{"Tenant ID", func(p model.Project) string { return p.TenantID }},
		{"Resource ticket", func(p model.Project) string { return p.ResourceTicket.TenantTicketName }},
		{"Security groups", func(p model.Project) string { return groupsText(p.SecurityGroups) }},
		{"Used", func(p model.Project) string { return usageText(p.ResourceTicket.Limits, p.ResourceTicket.Usage) }},
	},
	list:   byID((*client.Client).Projects),
	get:    byID((*client.Client).Project),
	remove: byID((*client.Client).DeleteProject),
}

func projectCommand(s *session) *cobra.Command {
	return projects.command(s, projectCreate(s), projectSet(s), chosenCommand(s, "project", func(c *config) *ref { return c.Project }))
}

func projectCreate(s *session) *cobra.Command {
	var name, ticket, limits, groups string
	var percent float64
	c := &cobra.Command{
		Use: "create [NAME]", Short: "Create a project out of a resource ticket", Args: args(0, 1),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			if len(args) == 1 {
				name = args[0]
			}
			if limits != "" && percent != 0 {
				return usagef("--limits and --percent exclude each other")
			}
			tenant, err := s.tenant(ctx)
			if err != nil {
				return err
			}
			err = s.ask(
				question{flag: "name", prompt: "Project name", value: &name},
				question{flag: "resource-ticket", prompt: "Resource ticket name", value: &ticket})
			if err == nil && percent == 0 {
				err = s.ask(question{flag: "limits", prompt: "Limits (key value unit, …)", value: &limits})
			}
			if err != nil {
				return err
			}
			lines := []model.QuotaLineItem{{Key: quota.KeyPercent, Value: percent, Unit: model.UnitCount}}
			if percent == 0 {
				if lines, err = parseLines("limits", limits); err != nil {
					return err
				}
			}
			if err := s.confirm("Creating project %s of tenant %s out of %s: %s", name, tenant.Name, ticket, quotaText(lines)); err != nil {
				return err
			}
			task, err := api.CreateProject(ctx, tenant.ID, model.ProjectCreateSpec{
				Name:           name,
				ResourceTicket: model.ResourceTicketReservation{Name: ticket, Limits: lines},
				SecurityGroups: splitList(groups),
			})
			if err != nil {
				return err
			}
			return projects.created(ctx, s, task, name)
		}),
	}
	s.scopeFlags(c, inTenant)
	c.Flags().StringVarP(&name, "name", "n", "", "project's `NAME`")
	c.Flags().StringVarP(&ticket, "resource-ticket", "r", "", "`NAME` of the ticket to reserve from")
	c.Flags().StringVarP(&limits, "limits", "l", "", "`LIMITS` to reserve, as \"vm.memory 16 GB, vm.cpu 8 COUNT\"")
	c.Flags().Float64VarP(&percent, "percent", "p", 0, "`PERCENT` of the ticket to reserve, instead of limits")
	c.Flags().StringVarP(&groups, "security-groups", "g", "", "`GROUPS` of users who may use the project, comma separated")
	return c
}

func projectSet(s *session) *cobra.Command {
	c := &cobra.Command{
		Use: "set ID|NAME", Short: "Work in a project from now on", Args: args(1, 1),
		ValidArgsFunction: projects.complete(s),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			p, err := projects.find(ctx, s, args[0])
			if err != nil {
				return err
			}
			tenant, err := api.Tenant(ctx, p.TenantID)
			if err != nil {
				return err
			}
			err = s.remember(func(c *config) {
				c.Tenant, c.Project = &ref{tenant.ID, tenant.Name}, &ref{p.ID, p.Name}
			})
			if err == nil {
				s.say("Project set to '%s'", p.Name)
			}
			return err
		}),
	}
	s.scopeFlags(c, inTenant)
	return c
}
