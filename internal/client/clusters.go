package client

import (
	"context"
	"net/http"

	"github.com/pleiad/pleiad/internal/model"
)

// Clusters lists a project's clusters.
func (c *Client) Clusters(ctx context.Context, projectID string) ([]model.Cluster, error) {
	return all[model.Cluster](ctx, c, at("projects", projectID, "clusters"))
}

// Cluster returns a cluster.
func (c *Client) Cluster(ctx context.Context, id string) (*model.Cluster, error) {
	return get[model.Cluster](ctx, c, at("clusters", id))
}

// CreateCluster creates a cluster in a project.
func (c *Client) CreateCluster(ctx context.Context, projectID string, spec model.ClusterCreateSpec) (*model.Task, error) {
	return c.create(ctx, at("projects", projectID, "clusters"), spec)
}

// ResizeCluster changes the number of a cluster's workers.
func (c *Client) ResizeCluster(ctx context.Context, id string, op model.ClusterResizeOperation) (*model.Task, error) {
	return c.create(ctx, at("clusters", id, "resize"), op)
}

// DeleteCluster deletes a cluster, whatever its state.
func (c *Client) DeleteCluster(ctx context.Context, id string) (*model.Task, error) {
	return c.remove(ctx, at("clusters", id))
}

// ClusterVMs lists a cluster's nodes.
func (c *Client) ClusterVMs(ctx context.Context, id string) ([]model.VM, error) {
	return all[model.VM](ctx, c, at("clusters", id, "vms"))
}

// Kubeconfig returns the file with which kubectl reaches a cluster. It is a secret.
func (c *Client) Kubeconfig(ctx context.Context, clusterID string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	response, err := c.open(ctx, request{method: http.MethodGet, path: at("clusters", clusterID, "kubeconfig")})
	if err != nil {
		return nil, err
	}
	return readAnswer(response)
}

// VMs lists a project's VMs.
func (c *Client) VMs(ctx context.Context, projectID string) ([]model.VM, error) {
	return all[model.VM](ctx, c, at("projects", projectID, "vms"))
}

// VM returns a VM.
func (c *Client) VM(ctx context.Context, id string) (*model.VM, error) {
	return get[model.VM](ctx, c, at("vms", id))
}
