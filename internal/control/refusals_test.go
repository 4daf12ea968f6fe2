package control

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pleiad/pleiad/internal/kind/kubernetes"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// TestClusterRefusals refuses at the request what cannot be, and leaves nothing behind.
func TestClusterRefusals(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.host("h2", 64*gib, map[string]int64{inotifyLimit: 2 * inotifyPerNode})
	w.setUp(s, []model.QuotaLineItem{
		{Key: "vm.memory", Value: 4095, Unit: model.UnitMB}, {Key: "vm", Value: 200, Unit: model.UnitCount}, {Key: "vm.cpu", Value: 700, Unit: model.UnitCount},
	}, "h1", "h2")
	ctx := context.Background()
	w.done(s.CreateFlavor(ctx, vmFlavor("tiny", 1.0/1024)))
	w.done(s.CreateFlavor(ctx, model.FlavorCreateSpec{Name: "monster", Kind: model.FlavorVM, Cost: []model.QuotaLineItem{
		{Key: "vm.cpu", Value: 600, Unit: model.UnitCount}, {Key: "vm.memory", Value: 1, Unit: model.UnitMB}}}))
	w.done(s.CreateFlavor(ctx, model.FlavorCreateSpec{Name: "many-cpus", Kind: model.FlavorVM, Cost: []model.QuotaLineItem{
		{Key: "vm.cpu", Value: 701, Unit: model.UnitCount}, {Key: "vm.memory", Value: 5, Unit: model.UnitGB}}}))
	small := w.done(s.CreateSubnet(ctx, model.SubnetCreateSpec{Name: "small", PortGroups: []string{"vmnet"},
		CIDR: "100.65.0.0/29", Gateway: "100.65.0.1", RangeStart: "100.65.0.1", RangeEnd: "100.65.0.3"}))
	dhcp := w.done(s.CreateSubnet(ctx, model.SubnetCreateSpec{Name: "dhcp", PortGroups: []string{"vmnet"}}))
	elsewhere := w.done(s.CreateSubnet(ctx, model.SubnetCreateSpec{Name: "elsewhere", PortGroups: []string{"other"}, CIDR: "100.66.0.0/24"}))
	w.done(s.CreateCluster(ctx, w.project, func() model.ClusterCreateSpec {
		c := clusterSpec("taken", 0)
		c.VMFlavor = "tiny"
		return c
	}()))
	before, tasks := w.dump(), w.tasks()

	count := func(n int) *int { return &n }
	for name, c := range map[string]struct {
		change func(*model.ClusterCreateSpec)
		code   model.Code
		says   []string // parts of the message
		data   map[string]string
	}{
		"quota exceeded by one MB": {
			func(c *model.ClusterCreateSpec) { c.WorkerCount = count(2) }, // 2 GB + 2 × 1 GB, and 1 MB is in use
			model.CodeQuotaError,
			[]string{"vm.memory is short of 2 MB", "limit 4095 MB", "usage 1 MB", "request 4 GB"},
			map[string]string{"key": "vm.memory", "limit": "4095 MB", "usage": "1 MB", "newUsage": "4097 MB"},
		},
		"all that lacks, in one message": {
			func(c *model.ClusterCreateSpec) { c.VMFlavor, c.WorkerCount = "many-cpus", count(0) },
			model.CodeQuotaError, []string{"vm.cpu is short of 2", "vm.memory is short of"}, map[string]string{"keys": "vm.cpu,vm.memory"},
		},
		"flavor that fits no host": {
			func(c *model.ClusterCreateSpec) { c.VMFlavor, c.WorkerCount = "monster", count(0) },
			model.CodeNotEnoughCPU, []string{"none of 2 hosts can take", "600 vCPU"}, nil,
		},
		"subnet without free addresses": {
			func(c *model.ClusterCreateSpec) { c.SubnetID, c.VMFlavor, c.WorkerCount = small, "tiny", count(2) },
			model.CodeInsufficientCapacity, []string{"subnet small has 2 free addresses of 2", "and 3 are needed"},
			map[string]string{"free": "2", "needed": "3"},
		},
		"subnet without addresses": {
			func(c *model.ClusterCreateSpec) { c.SubnetID = dhcp },
			model.CodeInvalidNetworkConfig, []string{"subnet dhcp has no range"}, nil,
		},
		"subnet on no host": {
			func(c *model.ClusterCreateSpec) { c.SubnetID, c.VMFlavor = elsewhere, "tiny" },
			model.CodeNoSuchResource, []string{"without network other"}, nil,
		},
		"pods among nodes": {
			func(c *model.ClusterCreateSpec) { c.PodCIDR = "100.64.0.0/16" },
			model.CodeInvalidNetworkConfig, []string{"100.64.0.0/18", "100.64.0.0/16", "overlap"}, nil,
		},
		"services among nodes": {
			func(c *model.ClusterCreateSpec) { c.ServiceCIDR = "100.64.0.0/20" },
			model.CodeInvalidNetworkConfig, []string{"100.64.0.0/18", "serviceCidr", "100.64.0.0/20", "overlap"}, nil,
		},
		"services among pods": {
			func(c *model.ClusterCreateSpec) { c.PodCIDR, c.ServiceCIDR = "10.0.0.0/8", "10.96.0.0/12" },
			model.CodeInvalidNetworkConfig, []string{"podCidr 10.0.0.0/8", "serviceCidr 10.96.0.0/12", "overlap"}, nil,
		},
		"control plane of 0": {
			func(c *model.ClusterCreateSpec) { c.ControlPlaneCount = count(0) }, model.CodeInvalidEntity, []string{"at least 1", "was 0"}, nil,
		},
		"control plane of 2": {
			func(c *model.ClusterCreateSpec) { c.ControlPlaneCount = count(2) }, model.CodeInvalidEntity, []string{"1, 3 or 5 (was 2)"}, nil,
		},
		"control plane of 4": {
			func(c *model.ClusterCreateSpec) { c.ControlPlaneCount = count(4) }, model.CodeInvalidEntity, []string{"1, 3 or 5 (was 4)"}, nil,
		},
		"1001 workers": {
			func(c *model.ClusterCreateSpec) { c.WorkerCount = count(1001) }, model.CodeInvalidEntity, []string{"0 to 1000 (was 1001)"}, nil,
		},
		"-1 workers": {
			func(c *model.ClusterCreateSpec) { c.WorkerCount = count(-1) }, model.CodeInvalidEntity, []string{"0 to 1000 (was -1)"}, nil,
		},
		"unknown type": {
			func(c *model.ClusterCreateSpec) { c.Type = "BEOWULF" }, model.CodeInvalidEntity, []string{"KUBERNETES", `"BEOWULF"`}, nil,
		},
		"unknown version": {
			func(c *model.ClusterCreateSpec) { c.Version = "v0.0.1" }, model.CodeInvalidEntity, []string{`"v0.0.1"`, version}, nil,
		},
		"unknown flavor": {
			func(c *model.ClusterCreateSpec) { c.VMFlavor = "nothing" }, model.CodeFlavorNotFound, []string{`"nothing"`, "master"}, nil,
		},
		"unknown subnet": {
			func(c *model.ClusterCreateSpec) { c.SubnetID = "nowhere" }, model.CodeNetworkNotFound, []string{`"nowhere"`}, nil,
		},
		"unknown image": {
			func(c *model.ClusterCreateSpec) { c.ImageID = "nothing" }, model.CodeImageNotFound, []string{`"nothing"`}, nil,
		},
		"bad name":   {func(c *model.ClusterCreateSpec) { c.Name = "1" }, model.CodeInvalidEntity, []string{"name must"}, nil},
		"taken name": {func(c *model.ClusterCreateSpec) { c.Name, c.VMFlavor = "taken", "tiny" }, model.CodeNameTaken, []string{"the name is taken"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			spec := clusterSpec("demo", 1)
			c.change(&spec)
			_, err := s.CreateCluster(ctx, w.project, spec)
			e := refused(t, err, c.code)
			for _, part := range c.says {
				if !strings.Contains(e.Message, part) {
					t.Errorf("%q does not say %q", e.Message, part)
				}
			}
			for k, v := range c.data {
				if e.Data[k] != v {
					t.Errorf("data %s is %q, want %q", k, e.Data[k], v)
				}
			}
			same(t, before, w.dump())
			if n := w.tasks(); n != tasks {
				t.Errorf("%d tasks more than before", n-tasks)
			}
		})
	}

	t.Run("unknown project", func(t *testing.T) {
		_, err := s.CreateCluster(ctx, "nothing", clusterSpec("demo", 1))
		refused(t, err, model.CodeProjectNotFound)
		same(t, before, w.dump())
	})
	t.Run("type not enabled", func(t *testing.T) {
		w.done(s.DisableClusterType(ctx, model.ClusterConfigurationSpec{Type: "kubernetes"}))
		_, err := s.CreateCluster(ctx, w.project, clusterSpec("demo", 1))
		refused(t, err, model.CodeClusterTypeNotConfigured)
		_, err = s.DisableClusterType(ctx, model.ClusterConfigurationSpec{Type: "kubernetes"})
		refused(t, err, model.CodeClusterTypeNotConfigured)
	})
}

func (w *world) tasks() int {
	w.t.Helper()
	n, err := store.Tasks.Count(w.store, store.Query{})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// A host whose kernel carries no more nodes is full, whatever memory it has.
func TestHostLimitsBoundNodes(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.host("h1", 64*gib, map[string]int64{inotifyLimit: 2*inotifyPerNode + 5})
	w.setUp(s, memory(100), "h1")
	_, err := s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 2))
	if e := refused(t, err, model.CodeHostLimits); !strings.Contains(e.Message, inotifyLimit) || e.Action == "" {
		t.Errorf("%v", e)
	}
	w.settled()
	w.done(s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 1)))
	_, err = s.CreateCluster(context.Background(), w.project, clusterSpec("more", 0))
	refused(t, err, model.CodeHostLimits)
}

// One name, asked for by many at once, is given to exactly one, and paid for once.
func TestOneNameAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(100), "h1", "h2")
	var wg sync.WaitGroup
	var won atomic.Pointer[model.Task]
	for range 32 {
		wg.Go(func() {
			task, err := s.CreateCluster(context.Background(), w.project, clusterSpec("demo", 1))
			switch {
			case err == nil && !won.CompareAndSwap(nil, task):
				t.Error("two clusters have one name")
			case err != nil && !errors.Is(err, model.ErrorOf(model.CodeNameTaken)):
				t.Errorf("refused with %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() == nil {
		t.Fatal("nobody got the name")
	}
	w.done(won.Load(), nil)
	w.settled()
}

// What has children, or is used, stays.
func TestDeletionRefusals(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	ctx := context.Background()
	zone := w.done(s.CreateZone(ctx, model.ZoneCreateSpec{Name: "zone"}))
	w.host("h1", 64*gib, nil)
	spec := hostSpec("h1")
	spec.AvailabilityZone = zone
	host := w.done(s.CreateHost(ctx, spec))
	w.setUp(s, memory(10))
	cluster := w.done(s.CreateCluster(ctx, w.project, clusterSpec("demo", 1)))
	disk, err := store.Flavors.Find(w.store, "name", store.Key(model.FlavorEphemeralDisk, kubernetes.DefaultDiskFlavor))
	if err != nil {
		t.Fatal(err)
	}
	before, tasks := w.dump(), w.tasks()

	type deletion func(context.Context, string) (*model.Task, error)
	for name, c := range map[string]struct {
		del  deletion
		id   string
		code model.Code
	}{
		"tenant with a project":       {s.DeleteTenant, w.tenant, model.CodeContainerNotEmpty},
		"ticket with a project":       {s.DeleteResourceTicket, w.ticket, model.CodeContainerNotEmpty},
		"project with a cluster":      {s.DeleteProject, w.project, model.CodeContainerNotEmpty},
		"enabled image":               {s.DeleteImage, w.image, model.CodeInvalidImageState},
		"flavor of a VM":              {s.DeleteFlavor, w.master, model.CodeFlavorInUse},
		"flavor of a disk":            {s.DeleteFlavor, disk.ID, model.CodeFlavorInUse},
		"subnet with nodes":           {s.DeleteSubnet, w.subnet, model.CodeContainerNotEmpty},
		"zone with a host":            {s.DeleteZone, zone, model.CodeContainerNotEmpty},
		"host with VMs":               {s.DeleteHost, host, model.CodeHostHasVMs},
		"tenant that is not there":    {s.DeleteTenant, "x", model.CodeTenantNotFound},
		"ticket that is not there":    {s.DeleteResourceTicket, "x", model.CodeResourceTicketNotFound},
		"project that is not there":   {s.DeleteProject, "x", model.CodeProjectNotFound},
		"image that is not there":     {s.DeleteImage, "x", model.CodeImageNotFound},
		"flavor that is not there":    {s.DeleteFlavor, "x", model.CodeFlavorNotFound},
		"subnet that is not there":    {s.DeleteSubnet, "x", model.CodeNetworkNotFound},
		"zone that is not there":      {s.DeleteZone, "x", model.CodeAvailabilityZoneNotFound},
		"host that is not there":      {s.DeleteHost, "x", model.CodeHostNotFound},
		"cluster that is not there":   {s.DeleteCluster, "x", model.CodeClusterNotFound},
		"an id longer than is quoted": {s.DeleteCluster, strings.Repeat("x", 10_000), model.CodeClusterNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.del(ctx, c.id)
			if e := refused(t, err, c.code); len(e.Message) > 300 {
				t.Errorf("the message has %d bytes", len(e.Message))
			}
			same(t, before, w.dump())
			if n := w.tasks(); n != tasks {
				t.Errorf("%d tasks more than before", n-tasks)
			}
		})
	}

	w.done(s.DisableClusterType(ctx, model.ClusterConfigurationSpec{Type: "KUBERNETES"}))
	_, err = s.DeleteImage(ctx, w.image)
	refused(t, err, model.CodeContainerNotEmpty)

	// From the leaves up, all of it goes.
	for _, c := range []struct {
		del deletion
		id  string
	}{
		{s.DeleteCluster, cluster}, {s.DeleteProject, w.project}, {s.DeleteResourceTicket, w.ticket}, {s.DeleteTenant, w.tenant},
		{s.DeleteImage, w.image}, {s.DeleteFlavor, w.master}, {s.DeleteFlavor, w.worker}, {s.DeleteFlavor, disk.ID},
		{s.DeleteSubnet, w.subnet}, {s.DeleteHost, host}, {s.DeleteZone, zone},
	} {
		w.done(c.del(ctx, c.id))
	}
	for key := range w.dump() {
		if !strings.HasPrefix(key, "deployments/") {
			t.Errorf("%s is left", key)
		}
	}
	if left := w.fleet.Host("h1").Images(); len(left) > 0 {
		t.Errorf("the host still has images %v", left)
	}
	if open := w.unfinished(); open != "" {
		t.Errorf("tasks that never ended: %s", open)
	}
}

// An upload that is no image leaves nothing.
func TestImageRefusals(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	ctx := context.Background()
	before, image := w.dump(), nodeImage(t)
	for name, c := range map[string]struct {
		name, replication string
		body              []byte
		code              model.Code
	}{
		"not an image": {"image", "EAGER", []byte("hello"), model.CodeUnsupportedImageFileType},
		"truncated":    {"image", "EAGER", image[:len(image)/2], model.CodeImageUploadError},
		"bad name":     {"../image", "EAGER", image, model.CodeInvalidEntity},
		"bad setting":  {"image", "SOON", image, model.CodeInvalidEntity},
	} {
		_, err := s.CreateImage(ctx, c.name, c.replication, bytes.NewReader(c.body))
		if e := model.AsError(err); e.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
		same(t, before, w.dump())
	}
	w.done(s.CreateImage(ctx, "image", "ON_DEMAND", bytes.NewReader(image)))
	_, err := s.CreateImage(ctx, "image", "ON_DEMAND", bytes.NewReader(image))
	refused(t, err, model.CodeNameTaken)
	images, _, err := store.Images.List(w.store, store.Query{})
	if err != nil || len(images) != 1 {
		t.Fatalf("%d images, %v", len(images), err)
	}
	if _, err := w.files.Describe(images[0].ID); err != nil {
		t.Errorf("the first image's file: %v", err)
	}
}
