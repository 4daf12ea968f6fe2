package api

import (
	"github.com/pleiad/pleiad/internal/model"
)

// noun is how objects of one type are served.
type noun[T any] struct {
	// kind is Photon's word for it, path where the objects are served.
	kind, path string
	notFound   model.Code
	head       func(*T) head
	// fields are what lists can be filtered by.
	fields map[string]func(*T) []string
	// complete gives an object empty lists for missing ones: none is served as
	// null. It may be nil, and must not change what v refers to.
	complete func(v *T)
}

// head is what tells objects of all nouns apart. kind is nil where the object's
// own kind is another matter: a flavor's is what it is a size of.
type head struct{ id, kind, selfLink *string }

func headOf(m *model.Meta) head { return head{&m.ID, &m.Kind, &m.SelfLink} }

func (n noun[T]) id(v *T) string { return *n.head(v).id }

// present returns a stored object as it is served.
func (n noun[T]) present(v *T) T {
	out := *v
	h := n.head(&out)
	*h.selfLink = n.path + "/" + *h.id
	if h.kind != nil {
		*h.kind = n.kind
	}
	if n.complete != nil {
		n.complete(&out)
	}
	return out
}

// missing is the error for an id that is not there.
func (n noun[T]) missing(id string) *model.Error {
	return model.Errorf(n.notFound, "there is no %s with id %q", n.kind, clip(id)).With("id", clip(id)).
		Do("check the id; the %s may have been deleted", n.kind)
}

func one(s string) []string { return []string{s} }

func orEmpty[T any](list *[]T) {
	if *list == nil {
		*list = []T{}
	}
}

var tenants = noun[model.Tenant]{
	kind: "tenant", path: "/v1/tenants", notFound: model.CodeTenantNotFound,
	head: func(v *model.Tenant) head { return headOf(&v.Meta) },
	fields: map[string]func(*model.Tenant) []string{
		"name": func(v *model.Tenant) []string { return one(v.Name) },
	},
}

var tickets = noun[model.ResourceTicket]{
	kind: "resource-ticket", path: "/v1/resource-tickets", notFound: model.CodeResourceTicketNotFound,
	head: func(v *model.ResourceTicket) head { return headOf(&v.Meta) },
	fields: map[string]func(*model.ResourceTicket) []string{
		"name":     func(v *model.ResourceTicket) []string { return one(v.Name) },
		"tenantId": func(v *model.ResourceTicket) []string { return one(v.TenantID) },
	},
	complete: func(v *model.ResourceTicket) {
		orEmpty(&v.Limits)
		orEmpty(&v.Usage)
	},
}

var projects = noun[model.Project]{
	kind: "project", path: "/v1/projects", notFound: model.CodeProjectNotFound,
	head: func(v *model.Project) head { return headOf(&v.Meta) },
	fields: map[string]func(*model.Project) []string{
		"name":     func(v *model.Project) []string { return one(v.Name) },
		"tenantId": func(v *model.Project) []string { return one(v.TenantID) },
	},
	complete: func(v *model.Project) {
		orEmpty(&v.ResourceTicket.Limits)
		orEmpty(&v.ResourceTicket.Usage)
	},
}

var flavors = noun[model.Flavor]{
	kind: "flavor", path: "/v1/flavors", notFound: model.CodeFlavorNotFound,
	head: func(v *model.Flavor) head { return head{&v.ID, nil, &v.SelfLink} },
	fields: map[string]func(*model.Flavor) []string{
		"name": func(v *model.Flavor) []string { return one(v.Name) },
		"kind": func(v *model.Flavor) []string { return one(v.Kind) },
	},
	complete: func(v *model.Flavor) { orEmpty(&v.Cost) },
}

var images = noun[model.Image]{
	kind: "image", path: "/v1/images", notFound: model.CodeImageNotFound,
	head: func(v *model.Image) head { return headOf(&v.Meta) },
	fields: map[string]func(*model.Image) []string{
		"name": func(v *model.Image) []string { return one(v.Name) },
	},
	complete: func(v *model.Image) { orEmpty(&v.Settings) },
}

var zones = noun[model.Zone]{
	kind: "availability-zone", path: "/v1/availabilityzones", notFound: model.CodeAvailabilityZoneNotFound,
	head: func(v *model.Zone) head { return headOf(&v.Meta) },
	fields: map[string]func(*model.Zone) []string{
		"name": func(v *model.Zone) []string { return one(v.Name) },
	},
}

var hosts = noun[model.Host]{
	kind: "host", path: "/v1/hosts", notFound: model.CodeHostNotFound,
	head:     func(v *model.Host) head { return headOf(&v.Meta) },
	complete: func(v *model.Host) { orEmpty(&v.UsageTags) },
}

var datastores = noun[model.Datastore]{
	kind: "datastore", path: "/v1/datastores", notFound: model.CodeDatastoreNotFound,
	head: func(v *model.Datastore) head { return headOf(&v.Meta) },
	fields: map[string]func(*model.Datastore) []string{
		"tag": func(v *model.Datastore) []string { return v.Tags },
	},
}

var orphans = noun[model.Orphan]{
	kind: "orphan", path: "/v1/orphans", notFound: model.CodeOrphanNotFound,
	head: func(v *model.Orphan) head { return headOf(&v.Meta) },
	fields: map[string]func(*model.Orphan) []string{
		"hostId": func(v *model.Orphan) []string { return one(v.HostID) },
	},
}

var subnets = noun[model.Subnet]{
	kind: "subnet", path: "/v1/subnets", notFound: model.CodeNetworkNotFound,
	head: func(v *model.Subnet) head { return headOf(&v.Meta) },
	fields: map[string]func(*model.Subnet) []string{
		"name": func(v *model.Subnet) []string { return one(v.Name) },
	},
	complete: func(v *model.Subnet) { orEmpty(&v.PortGroups) },
}

var deployments = noun[model.Deployment]{
	kind: "deployment", path: "/v1/deployments", notFound: model.CodeDeploymentNotFound,
	head: func(v *model.Deployment) head { return headOf(&v.Meta) },
	complete: func(v *model.Deployment) {
		orEmpty(&v.ImageDatastores)
		configurations := make([]model.ClusterConfiguration, len(v.ClusterConfigurations))
		for i, c := range v.ClusterConfigurations {
			c.Kind = "clusterConfig"
			configurations[i] = c
		}
		v.ClusterConfigurations = configurations
	},
}

var vms = noun[model.VM]{
	kind: "vm", path: "/v1/vms", notFound: model.CodeVMNotFound,
	head: func(v *model.VM) head { return headOf(&v.Meta) },
	fields: map[string]func(*model.VM) []string{
		"name":      func(v *model.VM) []string { return one(v.Name) },
		"projectId": func(v *model.VM) []string { return one(v.ProjectID) },
		"clusterId": func(v *model.VM) []string { return one(v.ClusterID) },
		"hostId":    func(v *model.VM) []string { return one(v.HostID) },
	},
	complete: func(v *model.VM) {
		orEmpty(&v.Cost)
		orEmpty(&v.AttachedDisks)
	},
}

var clusters = noun[model.Cluster]{
	kind: "cluster", path: "/v1/clusters", notFound: model.CodeClusterNotFound,
	head: func(v *model.Cluster) head { return headOf(&v.Meta) },
	fields: map[string]func(*model.Cluster) []string{
		"name":      func(v *model.Cluster) []string { return one(v.Name) },
		"projectId": func(v *model.Cluster) []string { return one(v.ProjectID) },
	},
	complete: func(v *model.Cluster) {
		orEmpty(&v.Pools)
		if v.ExtendedProperties == nil {
			v.ExtendedProperties = map[string]string{}
		}
	},
}

var tasks = noun[model.Task]{
	kind: "task", path: "/v1/tasks", notFound: model.CodeTaskNotFound,
	head: func(v *model.Task) head { return head{&v.ID, &v.Kind, &v.SelfLink} },
	fields: map[string]func(*model.Task) []string{
		"state":      func(v *model.Task) []string { return one(string(v.State)) },
		"kind":       func(v *model.Task) []string { return one(v.Entity.Kind) }, // Photon's name for it under a project
		"entityId":   func(v *model.Task) []string { return one(v.Entity.ID) },
		"entityKind": func(v *model.Task) []string { return one(v.Entity.Kind) },
		"projectId":  func(v *model.Task) []string { return one(v.ProjectID) },
		"tenantId":   func(v *model.Task) []string { return one(v.TenantID) },
	},
	complete: func(v *model.Task) { orEmpty(&v.Steps) },
}
