package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pleiad/pleiad/internal/model"
)

func (s *server) deploymentRoutes() {
	const tag = "deployments"
	list(s, op("listDeployments", "GET /v1/deployments", Admin, tag, "List deployments: there is one, the system itself"), s.deployments)
	get(s, op("getDeployment", "GET /v1/deployments/{id}", Admin, tag, "Show the deployment"), s.deployments)
	huma.Register(s.huma, op("getDeploymentSize", "GET /v1/deployments/{id}/size", Admin, tag, "Count what there is"), s.deploymentSize)
	listIn(s, op("listHosts", "GET /v1/deployments/{id}/hosts", Admin, tag, "List hosts"), s.deployments, "", s.hosts)
	createIn(s, op("createHost", "POST /v1/deployments/{id}/hosts", Admin, tag, "Register a host"), s.deployments,
		inDeployment(s, s.Operations.CreateHost))
	listIn(s, op("listDeploymentVMs", "GET /v1/deployments/{id}/vms", Admin, tag, "List all VMs"), s.deployments, "", s.vms)
	createIn(s, op("enableClusterType", "POST /v1/deployments/{id}/enable_cluster_type", Admin, tag, "Enable a cluster type with a node image"), s.deployments,
		inDeployment(s, s.Operations.EnableClusterType))
	createIn(s, op("disableClusterType", "POST /v1/deployments/{id}/disable_cluster_type", Admin, tag, "Disable a cluster type"), s.deployments,
		inDeployment(s, s.Operations.DisableClusterType))
}

// inDeployment checks that the deployment in the path is the one there is.
func inDeployment[S any](s *server, do func(context.Context, S) (*model.Task, error)) func(context.Context, string, S) (*model.Task, error) {
	return func(ctx context.Context, id string, spec S) (*model.Task, error) {
		if _, err := s.deployments.find(ctx, id); err != nil {
			return nil, err
		}
		return do(ctx, spec)
	}
}

func (s *server) deploymentSize(ctx context.Context, in *byID) (*answer[model.DeploymentSize], error) {
	var size model.DeploymentSize
	_, err := s.deployments.find(ctx, in.ID)
	for _, c := range []struct {
		number *int
		count  func(context.Context) (int, error)
	}{
		{&size.NumberHosts, s.hosts.source.Count},
		{&size.NumberVMs, s.vms.source.Count},
		{&size.NumberTenants, s.tenants.source.Count},
		{&size.NumberProjects, s.projects.source.Count},
		{&size.NumberDatastores, s.datastores.source.Count},
		{&size.NumberClusters, s.clusters.source.Count},
	} {
		if err == nil {
			*c.number, err = c.count(ctx)
		}
	}
	return answered(ctx, s, size, err)
}
