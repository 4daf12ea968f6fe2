package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/quota"
	"github.com/pleiad/pleiad/internal/store"
)

// CreateResourceTicket grants a tenant resources.
func (c *Controller) CreateResourceTicket(ctx context.Context, tenantID string, spec model.ResourceTicketCreateSpec) (*model.Task, error) {
	if err := model.ValidateName("name", spec.Name); err != nil {
		return nil, err
	}
	limits, err := quota.Parse("limits", spec.Limits)
	if err != nil {
		return nil, err
	}
	t := &model.ResourceTicket{
		Meta: c.meta("resource-ticket", spec.Name), TenantID: tenantID,
		Limits: limits.Lines(), Usage: limits.Zero().Lines(),
	}
	task := c.completedTask("CREATE_RESOURCE_TICKET", model.Entity{ID: t.ID, Kind: t.Kind})
	task.TenantID = tenantID
	return task, c.update(ctx, func(tx *store.Tx) error {
		if _, err := get(tx, store.Tenants, tenantID, model.CodeTenantNotFound); err != nil {
			return err
		}
		return errors.Join(store.ResourceTickets.Put(tx, t), store.Tasks.Put(tx, task))
	})
}

// DeleteResourceTicket deletes a ticket no project has reserved from.
func (c *Controller) DeleteResourceTicket(ctx context.Context, id string) (*model.Task, error) {
	task := c.completedTask("DELETE_RESOURCE_TICKET", model.Entity{ID: id, Kind: "resource-ticket"})
	return task, c.update(ctx, func(tx *store.Tx) error {
		t, err := get(tx, store.ResourceTickets, id, model.CodeResourceTicketNotFound)
		if err != nil {
			return err
		}
		task.TenantID = t.TenantID
		if n, err := store.Projects.Count(tx, store.Query{Index: "ticket", Value: id}); err != nil {
			return err
		} else if n > 0 {
			return notEmpty("resource-ticket", id, fmt.Sprintf("%d projects", n))
		}
		return errors.Join(store.ResourceTickets.Delete(tx, id), store.Tasks.Put(tx, task))
	})
}

// CreateProject reserves a part of a ticket for a project.
func (c *Controller) CreateProject(ctx context.Context, tenantID string, spec model.ProjectCreateSpec) (*model.Task, error) {
	if err := model.ValidateName("name", spec.Name); err != nil {
		return nil, err
	}
	groups, err := securityGroups(spec.SecurityGroups)
	if err != nil {
		return nil, err
	}
	p := &model.Project{Meta: c.meta("project", spec.Name), TenantID: tenantID, SecurityGroups: groups}
	task := c.completedTask("CREATE_PROJECT", model.Entity{ID: p.ID, Kind: "project"})
	task.TenantID, task.ProjectID = tenantID, p.ID
	return task, c.updateIn(ctx, ledger, func(tx *store.Tx) error {
		if _, err := get(tx, store.Tenants, tenantID, model.CodeTenantNotFound); err != nil {
			return err
		}
		ticket, err := ticketNamed(tx, tenantID, spec.ResourceTicket.Name)
		if err != nil {
			return err
		}
		limits, err := reserveTicket(ticket, spec.ResourceTicket.Limits)
		if err != nil {
			return err
		}
		p.ResourceTicket = model.ProjectTicket{
			TenantTicketID: ticket.ID, TenantTicketName: ticket.Name,
			Limits: limits.Lines(), Usage: limits.Zero().Lines(),
		}
		return errors.Join(store.ResourceTickets.Put(tx, ticket), store.Projects.Put(tx, p), store.Tasks.Put(tx, task))
	})
}

func ticketNamed(tx *store.Tx, tenantID, name string) (*model.ResourceTicket, error) {
	tickets, _, err := store.ResourceTickets.List(tx, store.Query{Index: "tenantId", Value: tenantID})
	if err != nil {
		return nil, err
	}
	for _, t := range tickets {
		if t.Name == name {
			return t, nil
		}
	}
	return nil, model.Errorf(model.CodeResourceTicketNotFound, "the tenant has no resource ticket named %q", clip(name)).
		With("id", clip(name))
}

// reserveTicket takes lines out of the ticket and returns the project's limits.
func reserveTicket(t *model.ResourceTicket, lines []model.QuotaLineItem) (quota.Set, error) {
	limits, err := quota.Parse("ticket limits", t.Limits)
	if err != nil {
		return nil, err
	}
	usage, err := quota.Parse("ticket usage", t.Usage)
	if err != nil {
		return nil, err
	}
	part, err := quota.Subdivide("resourceTicket.limits", limits, lines)
	if err != nil {
		return nil, err
	}
	usage, err = quota.Reserve(limits, usage, part)
	if err != nil {
		return nil, err
	}
	t.Usage = usage.Lines()
	return part, nil
}

// DeleteProject deletes a project that has nothing left, and returns its reservation.
func (c *Controller) DeleteProject(ctx context.Context, id string) (*model.Task, error) {
	task := c.completedTask("DELETE_PROJECT", model.Entity{ID: id, Kind: "project"})
	task.ProjectID = id
	return task, c.updateIn(ctx, ledger, func(tx *store.Tx) error {
		p, err := get(tx, store.Projects, id, model.CodeProjectNotFound)
		if err != nil {
			return err
		}
		task.TenantID = p.TenantID
		in := store.Query{Index: "projectId", Value: id}
		clusters, err := store.Clusters.Count(tx, in)
		if err != nil {
			return err
		}
		vms, err := store.VMs.Count(tx, in)
		if err != nil {
			return err
		}
		if clusters > 0 || vms > 0 {
			return notEmpty("project", id, fmt.Sprintf("%d clusters and %d VMs", clusters, vms))
		}
		ticket, err := store.ResourceTickets.Get(tx, p.ResourceTicket.TenantTicketID)
		if err != nil {
			return err
		}
		if err := c.returnTo(ticket.Limits, &ticket.Usage, p.ResourceTicket.Limits, ticket.ID); err != nil {
			return err
		}
		return errors.Join(store.ResourceTickets.Put(tx, ticket), store.Projects.Delete(tx, id), store.Tasks.Put(tx, task))
	})
}

// reserveProject takes a cost out of a project's quota.
func reserveProject(p *model.Project, cost quota.Set) error {
	limits, err := quota.Parse("project limits", p.ResourceTicket.Limits)
	if err != nil {
		return err
	}
	usage, err := quota.Parse("project usage", p.ResourceTicket.Usage)
	if err != nil {
		return err
	}
	usage, err = quota.Reserve(limits, usage, cost)
	if err != nil {
		return err
	}
	p.ResourceTicket.Usage = usage.Lines()
	return nil
}

// returnTo gives lines back to a ledger. What is more than was used cannot
// stop a deletion: it is logged, as it says that the ledger was wrong.
func (c *Controller) returnTo(limitLines []model.QuotaLineItem, usageLines *[]model.QuotaLineItem, lines []model.QuotaLineItem, holder string) error {
	limits, err := quota.Parse("limits", limitLines)
	if err != nil {
		return err
	}
	usage, err := quota.Parse("usage", *usageLines)
	if err != nil {
		return err
	}
	amount, err := quota.Parse("reserved", lines)
	if err != nil {
		return err
	}
	rest, err := quota.Return(limits, usage, amount)
	if errors.Is(err, quota.ErrReturnedTooMuch) {
		c.log.Error("quota ledger was wrong", "holder", holder, "error", err)
	}
	*usageLines = rest.Lines()
	return nil
}
