package store_test

import (
	"errors"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
	"github.com/pleiad/pleiad/internal/store/storetest"
)

// TestSchema writes one object of each noun, and finds it by its unique key and indexes.
func TestSchema(t *testing.T) {
	s := storetest.Open(t)
	meta := func(id string) model.Meta { return model.Meta{ID: id, Name: "n"} }
	_, err := s.Update(t.Context(), "", func(tx *store.Tx) error {
		return errors.Join(
			store.Tenants.Create(tx, &model.Tenant{Meta: meta("tenant")}),
			store.ResourceTickets.Create(tx, &model.ResourceTicket{Meta: meta("ticket"), TenantID: "tenant"}),
			store.Projects.Create(tx, &model.Project{Meta: meta("project"), TenantID: "tenant",
				ResourceTicket: model.ProjectTicket{TenantTicketID: "ticket"}}),
			store.Flavors.Create(tx, &model.Flavor{ID: "flavor", Name: "n", Kind: model.FlavorVM}),
			store.Flavors.Create(tx, &model.Flavor{ID: "disk", Name: "n", Kind: model.FlavorEphemeralDisk}),
			store.Images.Create(tx, &model.Image{Meta: meta("image")}),
			store.Zones.Create(tx, &model.Zone{Meta: meta("zone")}),
			store.Hosts.Create(tx, &model.Host{Meta: meta("host"), Address: "unix:/run/x", AvailabilityZone: "zone"}),
			store.Datastores.Create(tx, &model.Datastore{Meta: meta("datastore"), HostID: "host"}),
			store.Subnets.Create(tx, &model.Subnet{Meta: meta("subnet")}),
			store.VMs.Create(tx, &model.VM{Meta: meta("vm"), ProjectID: "project", ClusterID: "cluster", HostID: "host",
				SourceImageID: "image", Flavor: "n", Networks: []model.VMNetwork{{SubnetID: "subnet"}}}),
			store.Orphans.Create(tx, &model.Orphan{Meta: meta("orphan"), HostID: "host"}),
			store.Clusters.Create(tx, &model.Cluster{Meta: meta("cluster"), ProjectID: "project", ImageID: "image", SubnetID: "subnet",
				ControlPlane: model.NodeGroup{Flavor: "n"}, Pools: []model.Pool{{NodeGroup: model.NodeGroup{Flavor: "big"}}}}),
			store.Tasks.Create(tx, &model.Task{ID: "task", State: model.TaskQueued, Entity: model.Entity{ID: "cluster"},
				ProjectID: "project", TenantID: "tenant"}),
			store.Deployments.Create(tx, &model.Deployment{Meta: meta("deployment")}),
			store.Secrets.Create(tx, &model.Secret{ID: "host", Values: map[string][]byte{"password": []byte("x")}}),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	found(t, s, store.Tenants, "name", store.Key("n"))
	found(t, s, store.ResourceTickets, "name", store.Key("tenant", "n"), "tenantId", "tenant")
	found(t, s, store.Projects, "name", store.Key("tenant", "n"), "tenantId", "tenant", "ticket", "ticket")
	found(t, s, store.Flavors, "name", store.Key("vm", "n"), "kind", "vm")
	found(t, s, store.Images, "name", store.Key("n"))
	found(t, s, store.Zones, "name", store.Key("n"))
	found(t, s, store.Hosts, "address", store.Key("unix:/run/x"), "zone", "zone")
	found(t, s, store.Datastores, "name", store.Key("host", "n"), "hostId", "host")
	found(t, s, store.Subnets, "name", store.Key("n"))
	found(t, s, store.VMs, "", "", "projectId", "project", "clusterId", "cluster", "hostId", "host", "image", "image", "flavor", "n", "subnet", "subnet")
	found(t, s, store.Orphans, "", "", "hostId", "host")
	found(t, s, store.Clusters, "name", store.Key("project", "n"), "projectId", "project", "image", "image", "subnet", "subnet", "flavor", "n", "flavor", "big")
	found(t, s, store.Tasks, "", "", "entityId", "cluster", "open", "cluster", "state", "QUEUED", "projectId", "project", "tenantId", "tenant")
	found(t, s, store.Deployments, "", "")
	found(t, s, store.Secrets, "", "")
}

// found checks that one object has the unique key, and one each index value.
func found[T any](t *testing.T, s *store.Store, c *store.Collection[T], unique, key string, indexes ...string) {
	t.Helper()
	if unique != "" {
		if _, err := c.Find(s, unique, key); err != nil {
			t.Error(err)
		}
	}
	for i := 0; i < len(indexes); i += 2 {
		n, err := c.Count(s, store.Query{Index: indexes[i], Value: indexes[i+1]})
		if n != 1 || err != nil {
			t.Errorf("%s=%s: %d objects, %v", indexes[i], indexes[i+1], n, err)
		}
	}
}
