package kubernetes

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*model.Cluster, *model.NodeImage)
		code   model.Code
		says   string
	}{
		{name: "as it is"},
		{name: "no workers", change: func(c *model.Cluster, _ *model.NodeImage) { workers(c, 0) }},
		{name: "as many workers as there may be", change: func(c *model.Cluster, _ *model.NodeImage) {
			workers(c, 1000)
			c.PodCIDR = "10.240.0.0/14"
		}},
		{name: "no control plane", change: control(0), code: model.CodeInvalidEntity, says: "must be 1, 3 or 5 (was 0)"},
		{name: "two masters", change: control(2), code: model.CodeInvalidEntity, says: "must be 1, 3 or 5 (was 2)"},
		{name: "four masters", change: control(4), code: model.CodeInvalidEntity, says: "even number"},
		{name: "seven masters", change: control(7), code: model.CodeInvalidEntity, says: "was 7"},
		{name: "three masters", change: control(3), code: model.CodeUnsupported, says: "controlPlane.count is 3"},
		{name: "five masters", change: control(5), code: model.CodeUnsupported, says: "with 1 control plane node only"},
		{name: "1,001 workers", change: func(c *model.Cluster, _ *model.NodeImage) { workers(c, 1001) },
			code: model.CodeInvalidEntity, says: "workerCount must be 0 to 1000 (was 1001)"},
		{name: "fewer than none", change: func(c *model.Cluster, _ *model.NodeImage) { workers(c, -1) },
			code: model.CodeInvalidEntity, says: "count of pool workers must be 0 or more (was -1)"},
		{name: "count and pools differ", change: func(c *model.Cluster, _ *model.NodeImage) { c.WorkerCount = 5 },
			code: model.CodeInvalidEntity, says: "workerCount is 5, but the pools have 2"},
		{name: "bad pool", change: func(c *model.Cluster, _ *model.NodeImage) { c.Pools[0].Name = "GPU nodes" },
			code: model.CodeInvalidEntity, says: `was "GPU nodes"`},
		{name: "long pool", change: func(c *model.Cluster, _ *model.NodeImage) { c.Pools[0].Name = strings.Repeat("p", 21) },
			code: model.CodeInvalidEntity, says: "1 to 20"},
		{name: "pool with the name of a role", change: func(c *model.Cluster, _ *model.NodeImage) { c.Pools[0].Name = "master" },
			code: model.CodeInvalidEntity, says: "taken by a role"},
		{name: "same pool twice", change: func(c *model.Cluster, _ *model.NodeImage) {
			c.Pools = append(c.Pools, c.Pools[0])
			c.WorkerCount = 4
		}, code: model.CodeInvalidEntity, says: "two pools"},
		{name: "another version", change: func(c *model.Cluster, _ *model.NodeImage) { c.Version = "v1.0.0" },
			code: model.CodeInvalidEntity, says: `version "v1.0.0" is not in the image, which carries v9.8.7`},
		{name: "another kind's image", change: func(_ *model.Cluster, i *model.NodeImage) { i.ClusterType = "SWARM" },
			code: model.CodeInvalidImageState, says: "not a node image for KUBERNETES"},
		{name: "image without DNS", change: func(_ *model.Cluster, i *model.NodeImage) { delete(i.ContainerImages, "coredns") },
			code: model.CodeInvalidImageState, says: "no container image coredns"},
		{name: "image with strange tags", change: func(_ *model.Cluster, i *model.NodeImage) { i.ContainerImages["kube-scheduler"] = "x:1" },
			code: model.CodeInvalidImageState, says: `kube-scheduler "x:1"`},
		{name: "image of another version inside", change: func(_ *model.Cluster, i *model.NodeImage) { i.Version, i.ClusterType = "v2", "KUBERNETES" },
			code: model.CodeInvalidEntity, says: "version"},
		{name: "no pod range", change: func(c *model.Cluster, _ *model.NodeImage) { c.PodCIDR = "ten" },
			code: model.CodeInvalidNetworkConfig, says: `podCidr must be a range of IPv4 addresses such as 10.0.0.0/16 (was "ten")`},
		{name: "IPv6", change: func(c *model.Cluster, _ *model.NodeImage) { c.ServiceCIDR = "fd00::/108" },
			code: model.CodeInvalidNetworkConfig, says: "serviceCidr must be a range of IPv4"},
		{name: "bits behind the prefix", change: func(c *model.Cluster, _ *model.NodeImage) { c.PodCIDR = "10.244.1.0/16" },
			code: model.CodeInvalidNetworkConfig, says: "did you mean 10.244.0.0/16?"},
		{name: "pod range too small", change: func(c *model.Cluster, _ *model.NodeImage) { c.PodCIDR = "10.244.0.0/23" },
			code: model.CodeInvalidNetworkConfig, says: "room for 2 nodes of a /24 each, the cluster has 3"},
		{name: "pod range far too small", change: func(c *model.Cluster, _ *model.NodeImage) { c.PodCIDR = "10.244.0.0/25" },
			code: model.CodeInvalidNetworkConfig, says: "/8 to /24"},
		{name: "pod range too large", change: func(c *model.Cluster, _ *model.NodeImage) { c.PodCIDR = "0.0.0.0/7" },
			code: model.CodeInvalidNetworkConfig, says: "/8 to /24"},
		{name: "service range too small", change: func(c *model.Cluster, _ *model.NodeImage) { c.ServiceCIDR = "10.96.0.0/25" },
			code: model.CodeInvalidNetworkConfig, says: "/12 to /24"},
		{name: "service range too large", change: func(c *model.Cluster, _ *model.NodeImage) { c.ServiceCIDR = "16.0.0.0/8" },
			code: model.CodeInvalidNetworkConfig, says: "/12 to /24"},
		{name: "ranges that overlap", change: func(c *model.Cluster, _ *model.NodeImage) { c.PodCIDR = "10.96.0.0/16" },
			code: model.CodeInvalidNetworkConfig, says: "podCidr 10.96.0.0/16 and serviceCidr 10.96.0.0/12 overlap"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(&model.Cluster{Meta: model.Meta{Name: "demo"}, WorkerCount: 2})
			if tt.change != nil {
				tt.change(w.view.Cluster, w.view.Image)
			}
			err := Kind{}.Validate(w.view.Cluster, w.view.Image)
			if tt.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, model.ErrorOf(tt.code)) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %s with %q", err, tt.code, tt.says)
			}
		})
	}
	if err := (Kind{}).Validate(newWorld(&model.Cluster{}).view.Cluster, nil); !errors.Is(err, model.ErrorOf(model.CodeInvalidImageState)) {
		t.Errorf("without an image: %v", err)
	}
}

func workers(c *model.Cluster, n int) { c.WorkerCount, c.Pools[0].Count = n, n }

func control(n int) func(*model.Cluster, *model.NodeImage) {
	return func(c *model.Cluster, _ *model.NodeImage) { c.ControlPlane.Count = n }
}

func TestDefault(t *testing.T) {
	c := &model.Cluster{WorkerCount: 3, ExtendedProperties: map[string]string{"container_network": "10.2.0.0/16"}}
	Kind{}.Default(c)
	if c.ControlPlane != (model.NodeGroup{Count: 1, Flavor: "cluster-master-vm", DiskFlavor: "cluster-vm-disk"}) {
		t.Errorf("control plane %+v", c.ControlPlane)
	}
	want := model.Pool{Name: "workers", NodeGroup: model.NodeGroup{Count: 3, Flavor: "cluster-other-vm", DiskFlavor: "cluster-vm-disk"}}
	if len(c.Pools) != 1 || !reflect.DeepEqual(c.Pools[0], want) {
		t.Errorf("pools %+v", c.Pools)
	}
	if c.PodCIDR != "10.2.0.0/16" || c.ServiceCIDR != "10.96.0.0/12" {
		t.Errorf("ranges %s and %s", c.PodCIDR, c.ServiceCIDR)
	}

	// What was asked for stays, and the sum of the pools is the count of workers.
	c = &model.Cluster{PodCIDR: "10.3.0.0/16", Pools: []model.Pool{
		{NodeGroup: model.NodeGroup{Count: 1, Flavor: "big"}}, {Name: "gpu", NodeGroup: model.NodeGroup{Count: 2}},
	}}
	Kind{}.Default(c)
	if c.WorkerCount != 3 || c.Pools[0].Name != "workers" || c.Pools[0].Flavor != "big" || c.Pools[1].Flavor != "cluster-other-vm" || c.PodCIDR != "10.3.0.0/16" {
		t.Errorf("spec %+v", c)
	}
}

func TestNodeNames(t *testing.T) {
	long := strings.Repeat("x", model.NameLimit)
	c := func(name string) *model.Cluster {
		return &model.Cluster{Meta: model.Meta{Name: name}, ControlPlane: model.NodeGroup{Count: 1},
			Pools: []model.Pool{{Name: DefaultPool, NodeGroup: model.NodeGroup{Count: 2}},
				{Name: strings.Repeat("p", maxPoolName), NodeGroup: model.NodeGroup{Count: 1000}}}}
	}
	var names []string
	seen := map[string]bool{}
	for _, n := range (Kind{}).Nodes(c(long)) {
		if len(n.Name) > 63 || seen[n.Name] {
			t.Errorf("%s is too long or there twice", n.Name)
		}
		seen[n.Name] = true
	}
	for _, n := range (Kind{}).Nodes(c("Demo"))[:4] {
		names = append(names, n.Name)
	}
	if got, want := strings.Join(names, " "), "demo-master-0 demo-worker-0 demo-worker-1 pppppppppppppppppppp-0"; got != strings.ReplaceAll(want, " p", " demo-p") {
		t.Errorf("names are %s", got)
	}
	if clusterPart(long) == clusterPart(long[1:]) || clusterPart(strings.Repeat("y", 36)) != strings.Repeat("y", 36) {
		t.Error("long names are not told apart, or short ones are changed")
	}
}
