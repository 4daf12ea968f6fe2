package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/control"
	"github.com/pleiad/pleiad/internal/kind/kubernetes"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/nodeimage/archive"
)

// tasks asks for one thing after the other, until the first that fails.
type tasks struct {
	ctx context.Context
	c   *client.Client
	err error
}

// do waits for the task that ask starts, and returns the id of what it made.
func (t *tasks) do(ask func() (*model.Task, error)) (id string) {
	if t.err != nil {
		return ""
	}
	task, err := ask()
	if err == nil {
		task, err = t.c.WaitTask(t.ctx, task.ID, nil)
	}
	if t.err = err; err != nil {
		return ""
	}
	return task.Entity.ID
}

// tenancy sets up all that simulated clusters need, and returns the project they go to.
func (b *bench) tenancy(ctx context.Context, c *client.Client) (project string, err error) {
	t := &tasks{ctx: ctx, c: c}
	for i := range b.vms / vmsPerHost {
		t.do(func() (*model.Task, error) {
			return c.CreateHost(ctx, control.DeploymentID, model.HostCreateSpec{
				Address: fmt.Sprintf("sim-%d", i), Driver: "sim", UsageTags: []string{model.UsageCloud},
			})
		})
	}
	file, err := b.smallImage()
	if err != nil {
		return "", err
	}
	image := t.do(func() (*model.Task, error) { return c.CreateImage(ctx, "simulated", "EAGER", file) })
	t.do(func() (*model.Task, error) {
		return c.EnableClusterType(ctx, control.DeploymentID, model.ClusterConfigurationSpec{Type: string(model.Kubernetes), ImageID: image})
	})
	node := []model.QuotaLineItem{{Key: "vm.cpu", Value: 2, Unit: model.UnitCount}, {Key: "vm.memory", Value: 2, Unit: model.UnitGB}}
	disk := []model.QuotaLineItem{{Key: model.FlavorEphemeralDisk, Value: 1, Unit: model.UnitCount}}
	for _, f := range []model.FlavorCreateSpec{
		{Name: kubernetes.DefaultMasterFlavor, Kind: model.FlavorVM, Cost: node},
		{Name: kubernetes.DefaultOtherFlavor, Kind: model.FlavorVM, Cost: node},
		{Name: kubernetes.DefaultDiskFlavor, Kind: model.FlavorEphemeralDisk, Cost: disk},
	} {
		t.do(func() (*model.Task, error) { return c.CreateFlavor(ctx, f) })
	}
	t.do(func() (*model.Task, error) {
		return c.CreateSubnet(ctx, model.SubnetCreateSpec{Name: "nodes", PortGroups: []string{"vmnet"}, CIDR: "100.72.0.0/16", Gateway: "100.72.0.1"})
	})
	tenant := t.do(func() (*model.Task, error) { return c.CreateTenant(ctx, model.TenantCreateSpec{Name: "bench"}) })
	t.do(func() (*model.Task, error) {
		return c.CreateResourceTicket(ctx, tenant, model.ResourceTicketCreateSpec{Name: "all", Limits: []model.QuotaLineItem{
			{Key: "vm", Value: float64(b.vms), Unit: model.UnitCount},
			{Key: "vm.memory", Value: 2 * float64(b.vms), Unit: model.UnitGB},
		}})
	})
	project = t.do(func() (*model.Task, error) {
		return c.CreateProject(ctx, tenant, model.ProjectCreateSpec{Name: "bench", ResourceTicket: model.ResourceTicketReservation{
			Name: "all", Limits: []model.QuotaLineItem{{Key: "subdivide.percent", Value: 100, Unit: model.UnitCount}},
		}})
	})
	return project, t.err
}

// smallImage is the node image with a few random bytes for its payload: to the
// simulated hosts it is all the same.
func (b *bench) smallImage() (io.Reader, error) {
	whole, err := os.Open(b.image)
	if err != nil {
		return nil, err
	}
	defer whole.Close()
	m, err := archive.ReadManifest(whole)
	if err != nil {
		return nil, err
	}
	const name = "disk"
	content := make([]byte, 4096)
	if _, err := rand.Read(content); err != nil {
		return nil, err
	}
	if err := os.WriteFile(b.path(name), content, 0o600); err != nil {
		return nil, err
	}
	payload, err := archive.Describe(b.path(name), name, archive.QCOW2)
	if err != nil {
		return nil, err
	}
	m.Payloads = []archive.Payload{payload}
	var file bytes.Buffer
	return &file, archive.Write(&file, m, b.dir)
}

// makeClusters makes the clusters of the numbers from first to below last, several at
// a time, and returns when all are made.
func (b *bench) makeClusters(ctx context.Context, c *client.Client, project string, first, last int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers := clusterSize - 1
	next := atomic.Int64{}
	next.Store(int64(first))
	var wg sync.WaitGroup
	for range makers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < last && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				t := &tasks{ctx: ctx, c: c}
				t.do(func() (*model.Task, error) {
					return c.CreateCluster(ctx, project, model.ClusterCreateSpec{
						Name: fmt.Sprintf("bench-%d", i), Type: string(model.Kubernetes), WorkerCount: &workers,
					})
				})
				if t.err != nil {
					cancel(fmt.Errorf("cluster %d: %w", i, t.err))
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), context.Cause(ctx))
	}
	return nil
}
