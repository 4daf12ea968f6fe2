package client

import (
	"context"

	"github.com/pleiad/pleiad/internal/model"
)

// Tenants lists tenants.
func (c *Client) Tenants(ctx context.Context) ([]model.Tenant, error) {
	return all[model.Tenant](ctx, c, at("tenants"))
}

// Tenant returns a tenant.
func (c *Client) Tenant(ctx context.Context, id string) (*model.Tenant, error) {
	return get[model.Tenant](ctx, c, at("tenants", id))
}

// CreateTenant creates a tenant.
func (c *Client) CreateTenant(ctx context.Context, spec model.TenantCreateSpec) (*model.Task, error) {
	return c.create(ctx, at("tenants"), spec)
}

// DeleteTenant deletes a tenant that has no projects and no tickets.
func (c *Client) DeleteTenant(ctx context.Context, id string) (*model.Task, error) {
	return c.remove(ctx, at("tenants", id))
}

// ResourceTickets lists a tenant's resource tickets.
func (c *Client) ResourceTickets(ctx context.Context, tenantID string) ([]model.ResourceTicket, error) {
	return all[model.ResourceTicket](ctx, c, at("tenants", tenantID, "resource-tickets"))
}

// ResourceTicket returns a resource ticket.
func (c *Client) ResourceTicket(ctx context.Context, id string) (*model.ResourceTicket, error) {
	return get[model.ResourceTicket](ctx, c, at("resource-tickets", id))
}

// CreateResourceTicket creates a resource ticket of a tenant.
func (c *Client) CreateResourceTicket(ctx context.Context, tenantID string, spec model.ResourceTicketCreateSpec) (*model.Task, error) {
	return c.create(ctx, at("tenants", tenantID, "resource-tickets"), spec)
}

// DeleteResourceTicket deletes a resource ticket that no project uses.
func (c *Client) DeleteResourceTicket(ctx context.Context, id string) (*model.Task, error) {
	return c.remove(ctx, at("resource-tickets", id))
}

// Projects lists a tenant's projects.
func (c *Client) Projects(ctx context.Context, tenantID string) ([]model.Project, error) {
	return all[model.Project](ctx, c, at("tenants", tenantID, "projects"))
}

// Project returns a project.
func (c *Client) Project(ctx context.Context, id string) (*model.Project, error) {
	return get[model.Project](ctx, c, at("projects", id))
}

// CreateProject creates a project of a tenant.
func (c *Client) CreateProject(ctx context.Context, tenantID string, spec model.ProjectCreateSpec) (*model.Task, error) {
	return c.create(ctx, at("tenants", tenantID, "projects"), spec)
}

// DeleteProject deletes an empty project; its ticket gets the reservation back.
func (c *Client) DeleteProject(ctx context.Context, id string) (*model.Task, error) {
	return c.remove(ctx, at("projects", id))
}
