package client

import (
	"context"

	"github.com/pleiad/pleiad/internal/model"
)

// Flavors lists flavors.
func (c *Client) Flavors(ctx context.Context) ([]model.Flavor, error) {
	return all[model.Flavor](ctx, c, at("flavors"))
}

// Flavor returns a flavor.
func (c *Client) Flavor(ctx context.Context, id string) (*model.Flavor, error) {
	return get[model.Flavor](ctx, c, at("flavors", id))
}

// CreateFlavor creates a flavor.
func (c *Client) CreateFlavor(ctx context.Context, spec model.FlavorCreateSpec) (*model.Task, error) {
	return c.create(ctx, at("flavors"), spec)
}

// DeleteFlavor deletes a flavor.
func (c *Client) DeleteFlavor(ctx context.Context, id string) (*model.Task, error) {
	return c.remove(ctx, at("flavors", id))
}

// Images lists images.
func (c *Client) Images(ctx context.Context) ([]model.Image, error) {
	return all[model.Image](ctx, c, at("images"))
}

// Image returns an image.
func (c *Client) Image(ctx context.Context, id string) (*model.Image, error) {
	return get[model.Image](ctx, c, at("images", id))
}

// DeleteImage deletes an image.
func (c *Client) DeleteImage(ctx context.Context, id string) (*model.Task, error) {
	return c.remove(ctx, at("images", id))
}

// Zones lists availability zones.
func (c *Client) Zones(ctx context.Context) ([]model.Zone, error) {
	return all[model.Zone](ctx, c, at("availabilityzones"))
}

// Zone returns an availability zone.
func (c *Client) Zone(ctx context.Context, id string) (*model.Zone, error) {
	return get[model.Zone](ctx, c, at("availabilityzones", id))
}

// CreateZone creates an availability zone.
func (c *Client) CreateZone(ctx context.Context, spec model.ZoneCreateSpec) (*model.Task, error) {
	return c.create(ctx, at("availabilityzones"), spec)
}

// DeleteZone deletes an availability zone.
func (c *Client) DeleteZone(ctx context.Context, id string) (*model.Task, error) {
	return c.remove(ctx, at("availabilityzones", id))
}

// Hosts lists the hosts of a deployment.
func (c *Client) Hosts(ctx context.Context, deploymentID string) ([]model.Host, error) {
	return all[model.Host](ctx, c, at("deployments", deploymentID, "hosts"))
}

// Host returns a host.
func (c *Client) Host(ctx context.Context, id string) (*model.Host, error) {
	return get[model.Host](ctx, c, at("hosts", id))
}

// CreateHost registers a host with a deployment.
func (c *Client) CreateHost(ctx context.Context, deploymentID string, spec model.HostCreateSpec) (*model.Task, error) {
	return c.create(ctx, at("deployments", deploymentID, "hosts"), spec)
}

// DeleteHost removes a host.
func (c *Client) DeleteHost(ctx context.Context, id string) (*model.Task, error) {
	return c.remove(ctx, at("hosts", id))
}

// HostVMs lists the VMs on a host.
func (c *Client) HostVMs(ctx context.Context, hostID string) ([]model.VM, error) {
	return all[model.VM](ctx, c, at("hosts", hostID, "vms"))
}

// Datastores lists datastores.
func (c *Client) Datastores(ctx context.Context) ([]model.Datastore, error) {
	return all[model.Datastore](ctx, c, at("datastores"))
}

// Datastore returns a datastore.
func (c *Client) Datastore(ctx context.Context, id string) (*model.Datastore, error) {
	return get[model.Datastore](ctx, c, at("datastores", id))
}

// Orphans lists VMs of ours that are left on hosts.
func (c *Client) Orphans(ctx context.Context) ([]model.Orphan, error) {
	return all[model.Orphan](ctx, c, at("orphans"))
}

// Orphan returns an orphan.
func (c *Client) Orphan(ctx context.Context, id string) (*model.Orphan, error) {
	return get[model.Orphan](ctx, c, at("orphans", id))
}

// Subnets lists subnets.
func (c *Client) Subnets(ctx context.Context) ([]model.Subnet, error) {
	return all[model.Subnet](ctx, c, at("subnets"))
}

// Subnet returns a subnet.
func (c *Client) Subnet(ctx context.Context, id string) (*model.Subnet, error) {
	return get[model.Subnet](ctx, c, at("subnets", id))
}

// CreateSubnet creates a subnet.
func (c *Client) CreateSubnet(ctx context.Context, spec model.SubnetCreateSpec) (*model.Task, error) {
	return c.create(ctx, at("subnets"), spec)
}

// DeleteSubnet deletes a subnet.
func (c *Client) DeleteSubnet(ctx context.Context, id string) (*model.Task, error) {
	return c.remove(ctx, at("subnets", id))
}

// SetDefaultSubnet makes a subnet the one that is used where none is given.
func (c *Client) SetDefaultSubnet(ctx context.Context, id string) (*model.Task, error) {
	return c.create(ctx, at("subnets", id, "set_default"), nil)
}
