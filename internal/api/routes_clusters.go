package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"
)

func (s *server) clusterRoutes() {
	tag := "clusters"
	listIn(s, op("listClusters", "GET /v1/projects/{id}/clusters", Authenticated, tag, "List a project's clusters"), s.projects, "projectId", s.clusters, "name")
	createIn(s, op("createCluster", "POST /v1/projects/{id}/clusters", Admin, tag, "Create a cluster"), s.projects, s.Operations.CreateCluster)
	get(s, op("getCluster", "GET /v1/clusters/{id}", Authenticated, tag, "Show a cluster"), s.clusters)
	createIn(s, op("resizeCluster", "POST /v1/clusters/{id}/resize", Admin, tag, "Change the number of a cluster's workers"), s.clusters, s.Operations.ResizeCluster)
	act(s, op("deleteCluster", "DELETE /v1/clusters/{id}", Admin, tag, "Delete a cluster, whatever its state"), s.clusters, s.Operations.DeleteCluster)
	listIn(s, op("listClusterVMs", "GET /v1/clusters/{id}/vms", Authenticated, tag, "List a cluster's nodes"), s.clusters, "clusterId", s.vms)
	listIn(s, op("listClusterTasks", "GET /v1/clusters/{id}/tasks", Authenticated, tag, "List a cluster's tasks"), s.clusters, "entityId", s.tasks, "state")
	s.kubeconfigRoute(op("getKubeconfig", "GET /v1/clusters/{id}/kubeconfig", Admin, tag, "The file kubectl reaches the cluster with"))

	tag = "vms"
	listIn(s, op("listVMs", "GET /v1/projects/{id}/vms", Authenticated, tag, "List a project's VMs"), s.projects, "projectId", s.vms, "name")
	get(s, op("getVM", "GET /v1/vms/{id}", Authenticated, tag, "Show a VM"), s.vms)
	listIn(s, op("listVMTasks", "GET /v1/vms/{id}/tasks", Authenticated, tag, "List a VM's tasks"), s.vms, "entityId", s.tasks, "state")
}

// file is an answer that is not JSON.
type file struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (s *server) kubeconfigRoute(o huma.Operation) {
	o.Responses = map[string]*huma.Response{"200": {
		Description: "The kubeconfig.",
		Content:     map[string]*huma.MediaType{"application/yaml": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}}
	huma.Register(s.huma, o, func(ctx context.Context, in *byID) (*file, error) {
		if _, err := s.clusters.find(ctx, in.ID); err != nil {
			return nil, httpError{s.userError(ctx, err)}
		}
		content, err := s.Operations.Access(ctx, in.ID, "kubeconfig")
		if err != nil {
			return nil, httpError{s.userError(ctx, err)}
		}
		return &file{"application/yaml", content}, nil
	})
}
