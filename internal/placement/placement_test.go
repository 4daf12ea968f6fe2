package placement

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

const gb = 1 << 30

// randomHosts are hosts of different sizes, filled to the given share.
func randomHosts(r *rand.Rand, count int, fill float64) []Host {
	hosts := make([]Host, count)
	for i := range hosts {
		h := Host{ID: fmt.Sprintf("h%d", i), Zone: fmt.Sprintf("z%d", r.IntN(3)), State: model.HostReady, Networks: []string{"br0", fmt.Sprintf("net%d", r.IntN(4))}}
		size := int64(1 << r.IntN(3))
		h.Capacity = model.Capacity{MilliCPU: size * 4000, Memory: size * 16 * gb}
		part := func(whole int64) int64 { return int64(float64(whole) * min(1, fill*(0.8+0.4*r.Float64()))) }
		h.Used = model.Capacity{MilliCPU: part(4 * h.Capacity.MilliCPU), Memory: part(h.Capacity.Memory)}
		for s := range 1 + r.IntN(2) {
			h.Datastores = append(h.Datastores, Datastore{Name: fmt.Sprintf("s%d", s), Capacity: size * 100 * gb, Used: part(size * 100 * gb)})
		}
		if r.IntN(10) == 0 {
			h.State = model.HostMaintenance
		}
		h.Silent = r.IntN(10) == 0
		if r.IntN(5) == 0 {
			h.MaxVMs, h.VMs = 10, 5+r.IntN(6)
		}
		hosts[i] = h
	}
	return hosts
}

func fleetOf(hosts []Host) *Fleet {
	f := NewFleet(DefaultPolicy)
	for _, h := range hosts {
		f.Set(h)
	}
	return f
}

// room returns how many nodes like n the host takes: the rule written down a second time, without
// any of Fleet's layout.
func room(h Host, n Node) int {
	if h.State != model.HostReady || h.Silent || n.Resources.MilliCPU > h.Capacity.MilliCPU {
		return 0
	}
	for _, want := range n.Networks {
		has := false
		for _, have := range h.Networks {
			has = has || have == want
		}
		if !has {
			return 0
		}
	}
	k := int((h.Capacity.Memory - h.Used.Memory) / n.Resources.Memory)
	k = min(k, int((4*h.Capacity.MilliCPU-h.Used.MilliCPU)/n.Resources.MilliCPU))
	stores := 0
	for _, s := range h.Datastores {
		stores += int((s.Capacity - s.Used) / n.Resources.Disk)
	}
	k = min(k, stores)
	if h.MaxVMs > 0 {
		k = min(k, h.MaxVMs-h.VMs)
	}
	return max(k, 0)
}

func randomNode(r *rand.Rand) Node {
	n := Node{Name: "n", Resources: model.Capacity{
		MilliCPU: 500 * (1 + r.Int64N(12)), Memory: gb / 4 * (1 + r.Int64N(40)), Disk: gb * (1 + r.Int64N(40))}}
	if r.IntN(3) == 0 {
		n.Networks = []string{fmt.Sprintf("net%d", r.IntN(4))}
	}
	return n
}

// However full the fleet, any number of equal nodes is placed if and only if there
// is room for them, no host is filled beyond what it has, and no level of spreading is higher than it must be.
func TestNoFalseShortageAndEvenSpread(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	placed, refused := 0, 0
	for round := range 200 {
		hosts := randomHosts(r, 1+r.IntN(400), 0.7+0.3*r.Float64())
		f := fleetOf(hosts)
		n := randomNode(r)
		n.SpreadBy = "w"
		var slots []int
		total := 0
		for _, h := range hosts {
			slots = append(slots, room(h, n))
			total += slots[len(slots)-1]
		}
		count := 1 + r.IntN(5)
		if total > 0 && total < 200 && r.IntN(3) == 0 {
			count = total + r.IntN(2) // the last place, or one more than there are
		}
		nodes := make([]Node, count)
		for i := range nodes {
			nodes[i] = n
		}
		places, err := f.Place(Request{Nodes: nodes}, rand.NewPCG(uint64(round), 0))
		if (err == nil) != (count <= total) {
			t.Fatalf("round %d: %d nodes, room for %d: %v", round, count, total, err)
		}
		if err != nil {
			refused++
			continue
		}
		placed++
		checkCapacity(t, f, hosts)
		on := map[string]int{}
		for _, p := range places {
			on[p.HostID]++
		}
		level := 0 // the lowest number of nodes on a host with which all find a place
		for sum := 0; sum < count; level++ {
			sum = 0
			for _, k := range slots {
				sum += min(k, level+1)
			}
		}
		for i, h := range hosts {
			if k := on[h.ID]; k > level || k < min(slots[i], level-1) {
				t.Fatalf("round %d: %d nodes on a host with room for %d, where %d is enough", round, k, slots[i], level)
			}
		}
	}
	if placed < 30 || refused < 30 {
		t.Fatalf("placed %d, refused %d: the test does not test", placed, refused)
	}
}

// checkCapacity compares what is used with what there is.
func checkCapacity(t *testing.T, f *Fleet, hosts []Host) {
	t.Helper()
	for _, h := range hosts {
		h, _ := f.Host(h.ID)
		over := h.Used.Memory > h.Capacity.Memory || h.Used.MilliCPU > 4*h.Capacity.MilliCPU || h.MaxVMs > 0 && h.VMs > h.MaxVMs
		for _, s := range h.Datastores {
			over = over || s.Used > s.Capacity
		}
		if over {
			t.Fatalf("over capacity: %+v", h)
		}
	}
}

// Different nodes at once never take more than there is either, in whichever of the two ways they are packed.
func TestMixedNodesNeverOverCapacity(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	placed := 0
	for range 300 {
		hosts := randomHosts(r, 1+r.IntN(30), 0.5*r.Float64())
		f := fleetOf(hosts)
		var request Request
		for i := range 1 + r.IntN(30) {
			n := randomNode(r)
			n.Name = fmt.Sprintf("n%d", i)
			request.Nodes = append(request.Nodes, n)
		}
		places, err := f.Place(request, rand.NewPCG(r.Uint64(), 0))
		if err != nil {
			continue
		}
		placed++
		checkCapacity(t, f, hosts)
		for i, p := range places {
			n := request.Nodes[i]
			if p.Node != n.Name || p.Resources != n.Resources {
				t.Fatalf("place %d is %+v, of %+v", i, p, n)
			}
		}
		for _, p := range places {
			f.Release(p)
		}
		for _, h := range hosts {
			now, _ := f.Host(h.ID)
			now.Used.Disk = h.Used.Disk
			if fmt.Sprint(now) != fmt.Sprint(h) {
				t.Fatalf("after release %+v, before %+v", now, h)
			}
		}
	}
	if placed < 50 {
		t.Fatalf("placed only %d", placed)
	}
}

// In a fleet that is sampled, nodes are still spread over hosts and evenly over zones,
// also if one zone has far fewer hosts than the others.
func TestLargeFleetSpreadsOverZones(t *testing.T) {
	f := NewFleet(DefaultPolicy)
	for i := range 3000 {
		zone := "big-" + fmt.Sprint(i%2)
		if i < 20 {
			zone = "small"
		}
		f.Set(Host{ID: fmt.Sprint(i), Zone: zone, State: model.HostReady, Capacity: model.Capacity{MilliCPU: 8000, Memory: 64 * gb}})
	}
	nodes := make([]Node, 30)
	for i := range nodes {
		nodes[i] = Node{Name: fmt.Sprint(i), Resources: model.Capacity{MilliCPU: 1000, Memory: gb}, SpreadBy: "w"}
	}
	places, err := f.Choose(Request{Nodes: nodes}, rand.NewPCG(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	hosts, zones := map[string]int{}, map[string]int{}
	for _, p := range places {
		h, _ := f.Host(p.HostID)
		hosts[p.HostID]++
		zones[h.Zone]++
	}
	if len(hosts) != 30 || zones["small"] != 10 || zones["big-0"] != 10 || zones["big-1"] != 10 {
		t.Errorf("%d hosts, zones %v", len(hosts), zones)
	}
}

// A sample gives hosts with more room, not just any.
func TestSamplePrefersEmptyHosts(t *testing.T) {
	f := NewFleet(DefaultPolicy)
	for i := range 10_000 {
		f.Set(Host{ID: fmt.Sprint(i), State: model.HostReady, Capacity: model.Capacity{MilliCPU: 64000, Memory: 100 * gb},
			Used: model.Capacity{Memory: int64(i) * gb / 100}})
	}
	source := rand.NewPCG(1, 1)
	var free int64
	for range 1000 {
		p, err := f.Choose(Request{Nodes: []Node{{Resources: model.Capacity{MilliCPU: 1000, Memory: gb}}}}, source)
		if err != nil {
			t.Fatal(err)
		}
		h, _ := f.Host(p[0].HostID)
		free += (h.Capacity.Memory - h.Used.Memory) / gb
	}
	if mean := free / 1000; mean < 95 {
		t.Errorf("chosen hosts have %d of 100 GB free on average", mean)
	}
}

func TestSameSourceSameChoice(t *testing.T) {
	f := fleetOf(randomHosts(rand.New(rand.NewPCG(5, 6)), 1000, 0.5))
	request := Request{Nodes: []Node{{Name: "a", Resources: model.Capacity{MilliCPU: 1000, Memory: gb}, SpreadBy: "w"}, {Name: "b", Resources: model.Capacity{MilliCPU: 1000, Memory: gb}, SpreadBy: "w"}}}
	first, err := f.Choose(request, rand.NewPCG(7, 8))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if again, err := f.Choose(request, rand.NewPCG(7, 8)); err != nil || fmt.Sprint(again) != fmt.Sprint(first) {
			t.Fatalf("%v, %v; before %v", again, err, first)
		}
	}
}

func TestFleetChanges(t *testing.T) {
	f := NewFleet(Policy{})
	h := Host{ID: "h1", Zone: "a", State: model.HostReady, Capacity: model.Capacity{MilliCPU: 2000, Memory: 4 * gb}, Datastores: []Datastore{{Name: "s", Capacity: 10 * gb}}}
	f.Set(h)
	f.Set(Host{ID: "h2", Zone: "a"})
	node := Node{Name: "n", Resources: model.Capacity{MilliCPU: 1500, Memory: gb, Disk: gb}, Zones: []string{"b"}}
	if _, err := f.Choose(Request{Nodes: []Node{node}}, nil); !errors.Is(err, model.ErrorOf(model.CodeUnfulfillableAffinities)) {
		t.Fatalf("no host in zone b: %v", err)
	}
	h.Zone = "b"
	f.Set(h)
	h.Datastores[0].Capacity = 0 // the caller's own from now on
	places, err := f.Choose(Request{Nodes: []Node{node}}, nil)
	if err != nil || places[0].HostID != "h1" || places[0].Datastore != "s" {
		t.Fatalf("%v, %v", places, err)
	}
	if err := f.Reserve(places[0]); err != nil {
		t.Fatal(err)
	}
	// Overcommitment below 1 counts as 1.
	if err := f.Reserve(places[0]); !errors.Is(err, model.ErrorOf(model.CodeNotEnoughCPU)) {
		t.Fatalf("reserved twice: %v", err)
	}
	f.Release(places[0])
	f.Release(places[0])
	if h, _ := f.Host("h1"); h.Used != (model.Capacity{}) || h.Datastores[0].Used != 0 || h.VMs != 0 {
		t.Fatalf("released twice: %+v", h)
	}
	f.Remove("h1")
	f.Remove("h1")
	f.Release(places[0])
	if err := f.Reserve(places[0]); !errors.Is(err, model.ErrorOf(model.CodeHostNotFound)) {
		t.Fatalf("host is gone: %v", err)
	}
	if _, ok := f.Host("h1"); ok || f.Len() != 1 {
		t.Fatal("h1 is still there")
	}
}

// Eight callers place, release and change hosts at once; nothing is ever over capacity and
// in the end nothing is left.
func TestConcurrentUse(t *testing.T) {
	hosts := make([]Host, 100)
	for i := range hosts {
		hosts[i] = Host{ID: fmt.Sprint(i), Zone: fmt.Sprint(i % 3), State: model.HostReady, Capacity: model.Capacity{MilliCPU: 1000, Memory: 3 * gb}}
	}
	f := fleetOf(hosts)
	request := Request{Nodes: []Node{{Name: "n", Resources: model.Capacity{MilliCPU: 1000, Memory: gb}}}}
	var wg sync.WaitGroup
	var full atomic.Int64
	for seed := range uint64(8) {
		wg.Go(func() {
			source := rand.NewPCG(seed, 0)
			var mine []Placement
			for i := range 300 {
				if places, err := f.Place(request, source); err == nil {
					mine = append(mine, places...)
				} else if full.Add(1); !errors.Is(err, model.ErrorOf(model.CodeNotEnoughMemory)) {
					t.Error(err)
				}
				if _, err := f.Choose(request, source); err != nil && !errors.Is(err, model.ErrorOf(model.CodeNotEnoughMemory)) {
					t.Error(err)
				}
				if i%5 == 4 && len(mine) > 0 {
					f.Release(mine[0])
					mine = mine[1:]
				}
				f.Set(Host{ID: fmt.Sprint("extra", seed)})
				f.Remove(fmt.Sprint("extra", seed))
			}
			checkCapacity(t, f, hosts)
			for _, p := range mine {
				f.Release(p)
			}
		})
	}
	wg.Wait()
	for i := range hosts {
		if h, _ := f.Host(fmt.Sprint(i)); h.Used != (model.Capacity{}) || h.VMs != 0 {
			t.Fatalf("left over on %+v", h)
		}
	}
	if full.Load() == 0 {
		t.Error("the fleet was never full")
	}
}
