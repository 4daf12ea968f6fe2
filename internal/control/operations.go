package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// ledger is the group of all updates that take from or give back to quotas and
// hosts. They contend for the same few records, so they are committed together.
const ledger = "ledger"

// newID returns an id that grows with time, so that lists come in order of creation.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

func (c *Controller) meta(kind, name string) model.Meta {
	return model.Meta{ID: newID(), Kind: kind, Name: name, CreatedTime: c.now()}
}

// update runs fn in a transaction of its own and translates the store's errors.
func (c *Controller) update(ctx context.Context, fn func(tx *store.Tx) error) error {
	return c.updateIn(ctx, "", fn)
}

// updateIn runs fn in a transaction together with others of the group.
func (c *Controller) updateIn(ctx context.Context, group string, fn func(tx *store.Tx) error) error {
	_, err := c.Store.Update(ctx, group, fn)
	var taken *store.TakenError
	if errors.As(err, &taken) {
		return model.Errorf(model.CodeNameTaken, "the name is taken by %s in %s", taken.Holder, taken.Collection).
			With("id", taken.Holder).With("name", taken.Key).
			Do("choose another name, or delete what has it")
	}
	return err
}

// get reads an object; one that is missing is the error of its code, with its id.
func get[T any](r store.Reader, c *store.Collection[T], id string, code model.Code) (*T, error) {
	v, err := c.Get(r, id)
	if errors.Is(err, store.ErrNotFound) {
		noun := strings.ToLower(strings.TrimSuffix(string(code), "NotFound"))
		return nil, model.Errorf(code, "there is no %s with the id %q", noun, clip(id)).With("id", clip(id))
	}
	return v, err
}

// clip bounds what is repeated of a caller's input.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

func securityGroups(names []string) ([]model.SecurityGroup, error) {
	var groups []model.SecurityGroup
	for i, n := range names {
		if n == "" || len(n) > 255 {
			return nil, model.Errorf(model.CodeInvalidEntity, "securityGroups[%d] must have 1 to 255 characters", i)
		}
		groups = append(groups, model.SecurityGroup{Name: n})
	}
	return groups, nil
}

// CreateTenant creates a tenant.
func (c *Controller) CreateTenant(ctx context.Context, spec model.TenantCreateSpec) (*model.Task, error) {
	if err := model.ValidateName("name", spec.Name); err != nil {
		return nil, err
	}
	groups, err := securityGroups(spec.SecurityGroups)
	if err != nil {
		return nil, err
	}
	t := &model.Tenant{Meta: c.meta("tenant", spec.Name), SecurityGroups: groups}
	task := c.completedTask("CREATE_TENANT", model.Entity{ID: t.ID, Kind: "tenant"})
	task.TenantID = t.ID
	return task, c.update(ctx, func(tx *store.Tx) error {
		return errors.Join(store.Tenants.Put(tx, t), store.Tasks.Put(tx, task))
	})
}

// DeleteTenant deletes a tenant without projects, and its resource tickets.
func (c *Controller) DeleteTenant(ctx context.Context, id string) (*model.Task, error) {
	task := c.completedTask("DELETE_TENANT", model.Entity{ID: id, Kind: "tenant"})
	task.TenantID = id
	return task, c.update(ctx, func(tx *store.Tx) error {
		if _, err := get(tx, store.Tenants, id, model.CodeTenantNotFound); err != nil {
			return err
		}
		if n, err := store.Projects.Count(tx, store.Query{Index: "tenantId", Value: id}); err != nil {
			return err
		} else if n > 0 {
			return notEmpty("tenant", id, fmt.Sprintf("%d projects", n))
		}
		tickets, _, err := store.ResourceTickets.List(tx, store.Query{Index: "tenantId", Value: id})
		if err != nil {
			return err
		}
		for _, t := range tickets {
			if err := store.ResourceTickets.Delete(tx, t.ID); err != nil {
				return err
			}
		}
		return errors.Join(store.Tenants.Delete(tx, id), store.Tasks.Put(tx, task))
	})
}

// notEmpty refuses the deletion of what has children.
func notEmpty(kind, id, has string) *model.Error {
	return model.Errorf(model.CodeContainerNotEmpty, "%s %s still has %s", kind, id, has).
		With("kind", kind).With("id", id).With("message", has).
		Do("delete them first")
}

// CreateZone creates an availability zone.
func (c *Controller) CreateZone(ctx context.Context, spec model.ZoneCreateSpec) (*model.Task, error) {
	if err := model.ValidateName("name", spec.Name); err != nil {
		return nil, err
	}
	z := &model.Zone{Meta: c.meta("availability-zone", spec.Name), State: model.StateReady}
	task := c.completedTask("CREATE_AVAILABILITYZONE", model.Entity{ID: z.ID, Kind: z.Kind})
	return task, c.update(ctx, func(tx *store.Tx) error {
		return errors.Join(store.Zones.Put(tx, z), store.Tasks.Put(tx, task))
	})
}

// DeleteZone deletes an availability zone no host is in.
func (c *Controller) DeleteZone(ctx context.Context, id string) (*model.Task, error) {
	task := c.completedTask("DELETE_AVAILABILITYZONE", model.Entity{ID: id, Kind: "availability-zone"})
	return task, c.update(ctx, func(tx *store.Tx) error {
		if _, err := get(tx, store.Zones, id, model.CodeAvailabilityZoneNotFound); err != nil {
			return err
		}
		if n, err := store.Hosts.Count(tx, store.Query{Index: "zone", Value: id}); err != nil {
			return err
		} else if n > 0 {
			return notEmpty("availability-zone", id, fmt.Sprintf("%d hosts", n))
		}
		return errors.Join(store.Zones.Delete(tx, id), store.Tasks.Put(tx, task))
	})
}
