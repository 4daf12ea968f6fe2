package client

import (
	"context"
	"net/http"

	"github.com/pleiad/pleiad/internal/model"
)

// Auth tells how to authenticate; it needs no token.
func (c *Client) Auth(ctx context.Context) (*model.AuthInfo, error) {
	return get[model.AuthInfo](ctx, c, at("auth"))
}

// Available returns nil if the API can be reached; it needs no token.
func (c *Client) Available(ctx context.Context) error {
	_, err := get[struct{}](ctx, c, at("available"))
	return err
}

// Info returns the server's versions.
func (c *Client) Info(ctx context.Context) (*model.Info, error) {
	return get[model.Info](ctx, c, at("info"))
}

// Status tells how the system's parts are.
func (c *Client) Status(ctx context.Context) (*model.SystemStatus, error) {
	return get[model.SystemStatus](ctx, c, at("status"))
}

// CreateToken makes an access token, shown this once.
func (c *Client) CreateToken(ctx context.Context, spec model.TokenCreateSpec) (*model.Token, error) {
	t := new(model.Token)
	if err := c.call(ctx, http.MethodPost, at("auth", "tokens"), spec, t); err != nil {
		return nil, err
	}
	return t, nil
}

// Deployments lists deployments. There is one: the system itself.
func (c *Client) Deployments(ctx context.Context) ([]model.Deployment, error) {
	return all[model.Deployment](ctx, c, at("deployments"))
}

// Deployment returns a deployment.
func (c *Client) Deployment(ctx context.Context, id string) (*model.Deployment, error) {
	return get[model.Deployment](ctx, c, at("deployments", id))
}

// DeploymentSize counts what there is.
func (c *Client) DeploymentSize(ctx context.Context, id string) (*model.DeploymentSize, error) {
	return get[model.DeploymentSize](ctx, c, at("deployments", id, "size"))
}

// DeploymentVMs lists all VMs.
func (c *Client) DeploymentVMs(ctx context.Context, id string) ([]model.VM, error) {
	return all[model.VM](ctx, c, at("deployments", id, "vms"))
}

// EnableClusterType enables a cluster type with a node image.
func (c *Client) EnableClusterType(ctx context.Context, deploymentID string, spec model.ClusterConfigurationSpec) (*model.Task, error) {
	return c.create(ctx, at("deployments", deploymentID, "enable_cluster_type"), spec)
}

// DisableClusterType disables a cluster type.
func (c *Client) DisableClusterType(ctx context.Context, deploymentID string, spec model.ClusterConfigurationSpec) (*model.Task, error) {
	return c.create(ctx, at("deployments", deploymentID, "disable_cluster_type"), spec)
}
