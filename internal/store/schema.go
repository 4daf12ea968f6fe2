package store

import (
	"strconv"

	"github.com/pleiad/pleiad/internal/model"
)

// The collections of the model's nouns. Names of unique keys and indexes are
// part of the stored keys or used by other packages: they do not change.
var (
	// Tenants: unique by name.
	Tenants = NewCollection("tenants", Schema[model.Tenant]{
		ID:     func(t *model.Tenant) string { return t.ID },
		Unique: map[string]func(*model.Tenant) string{"name": func(t *model.Tenant) string { return Key(t.Name) }},
	})

	// ResourceTickets: unique by name in their tenant, Key(tenant id, name).
	ResourceTickets = NewCollection("resource-tickets", Schema[model.ResourceTicket]{
		ID: func(t *model.ResourceTicket) string { return t.ID },
		Unique: map[string]func(*model.ResourceTicket) string{
			"name": func(t *model.ResourceTicket) string { return Key(t.TenantID, t.Name) },
		},
		Index: map[string]func(*model.ResourceTicket) []string{
			"tenantId": func(t *model.ResourceTicket) []string { return []string{t.TenantID} },
		},
	})

	// Projects: unique by name in their tenant, Key(tenant id, name).
	Projects = NewCollection("projects", Schema[model.Project]{
		ID: func(p *model.Project) string { return p.ID },
		Unique: map[string]func(*model.Project) string{
			"name": func(p *model.Project) string { return Key(p.TenantID, p.Name) },
		},
		Index: map[string]func(*model.Project) []string{
			"tenantId": func(p *model.Project) []string { return []string{p.TenantID} },
			"ticket":   func(p *model.Project) []string { return []string{p.ResourceTicket.TenantTicketID} },
		},
	})

	// Flavors: unique by name in their kind, Key(kind, name).
	Flavors = NewCollection("flavors", Schema[model.Flavor]{
		ID: func(f *model.Flavor) string { return f.ID },
		Unique: map[string]func(*model.Flavor) string{
			"name": func(f *model.Flavor) string { return Key(f.Kind, f.Name) },
		},
		Index: map[string]func(*model.Flavor) []string{
			"kind": func(f *model.Flavor) []string { return []string{f.Kind} },
		},
	})

	// Images: unique by name.
	Images = NewCollection("images", Schema[model.Image]{
		ID:     func(i *model.Image) string { return i.ID },
		Unique: map[string]func(*model.Image) string{"name": func(i *model.Image) string { return Key(i.Name) }},
	})

	// Zones: unique by name.
	Zones = NewCollection("availability-zones", Schema[model.Zone]{
		ID:     func(z *model.Zone) string { return z.ID },
		Unique: map[string]func(*model.Zone) string{"name": func(z *model.Zone) string { return Key(z.Name) }},
	})

	// Hosts: unique by address.
	Hosts = NewCollection("hosts", Schema[model.Host]{
		ID:     func(h *model.Host) string { return h.ID },
		Unique: map[string]func(*model.Host) string{"address": func(h *model.Host) string { return Key(h.Address) }},
		Index: map[string]func(*model.Host) []string{
			"zone": func(h *model.Host) []string { return []string{h.AvailabilityZone} },
		},
	})

	// Datastores: unique by name on their host, Key(host id, name).
	Datastores = NewCollection("datastores", Schema[model.Datastore]{
		ID: func(d *model.Datastore) string { return d.ID },
		Unique: map[string]func(*model.Datastore) string{
			"name": func(d *model.Datastore) string { return Key(d.HostID, d.Name) },
		},
		Index: map[string]func(*model.Datastore) []string{
			"hostId": func(d *model.Datastore) []string { return []string{d.HostID} },
		},
	})

	// Subnets: unique by name. Index default has the one that is used when none is named.
	Subnets = NewCollection("subnets", Schema[model.Subnet]{
		ID:     func(n *model.Subnet) string { return n.ID },
		Unique: map[string]func(*model.Subnet) string{"name": func(n *model.Subnet) string { return Key(n.Name) }},
		Index: map[string]func(*model.Subnet) []string{
			"default": func(n *model.Subnet) []string { return []string{strconv.FormatBool(n.IsDefault)} },
		},
	})

	// VMs: names need not be unique. Index flavor is by name.
	VMs = NewCollection("vms", Schema[model.VM]{
		ID: func(v *model.VM) string { return v.ID },
		Index: map[string]func(*model.VM) []string{
			"projectId": func(v *model.VM) []string { return []string{v.ProjectID} },
			"clusterId": func(v *model.VM) []string { return []string{v.ClusterID} },
			"hostId":    func(v *model.VM) []string { return []string{v.HostID} },
			"image":     func(v *model.VM) []string { return []string{v.SourceImageID} },
			"flavor":    func(v *model.VM) []string { return []string{v.Flavor} },
			"subnet": func(v *model.VM) (ids []string) {
				for _, n := range v.Networks {
					ids = append(ids, n.SubnetID)
				}
				return ids
			},
		},
	})

	// Orphans are VMs by id that nothing else knows.
	Orphans = NewCollection("orphans", Schema[model.Orphan]{
		ID: func(o *model.Orphan) string { return o.ID },
		Index: map[string]func(*model.Orphan) []string{
			"hostId": func(o *model.Orphan) []string { return []string{o.HostID} },
		},
	})

	// Clusters: unique by name in their project, Key(project id, name). Index flavor is by name.
	Clusters = NewCollection("clusters", Schema[model.Cluster]{
		ID: func(c *model.Cluster) string { return c.ID },
		Unique: map[string]func(*model.Cluster) string{
			"name": func(c *model.Cluster) string { return Key(c.ProjectID, c.Name) },
		},
		Index: map[string]func(*model.Cluster) []string{
			"projectId": func(c *model.Cluster) []string { return []string{c.ProjectID} },
			"image":     func(c *model.Cluster) []string { return []string{c.ImageID} },
			"subnet":    func(c *model.Cluster) []string { return []string{c.SubnetID} },
			"flavor": func(c *model.Cluster) []string {
				names := []string{c.ControlPlane.Flavor, c.ControlPlane.DiskFlavor}
				for _, p := range c.Pools {
					names = append(names, p.Flavor, p.DiskFlavor)
				}
				return names
			},
		},
	})

	// Tasks: index entityId is by the id of what the task works on; open is the
	// same of those not finished.
	Tasks = NewCollection("tasks", Schema[model.Task]{
		ID: func(t *model.Task) string { return t.ID },
		Index: map[string]func(*model.Task) []string{
			"entityId": func(t *model.Task) []string { return []string{t.Entity.ID} },
			"open": func(t *model.Task) []string {
				if t.State.Finished() {
					return nil
				}
				return []string{t.Entity.ID}
			},
			"state":     func(t *model.Task) []string { return []string{string(t.State)} },
			"projectId": func(t *model.Task) []string { return []string{t.ProjectID} },
			"tenantId":  func(t *model.Task) []string { return []string{t.TenantID} },
		},
	})

	// Deployments holds the one object of the system's settings.
	Deployments = NewCollection("deployments", Schema[model.Deployment]{
		ID: func(d *model.Deployment) string { return d.ID },
	})

	// Secrets have the id of the object they belong to.
	Secrets = NewCollection("secrets", Schema[model.Secret]{
		ID: func(s *model.Secret) string { return s.ID },
	})
)
