package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/placement"
	"github.com/pleiad/pleiad/internal/quota"
	"github.com/pleiad/pleiad/internal/store"
)

// rootDiskGB is the size of a node's root disk, for quota and for the host's datastore.
const rootDiskGB = 8

// inotifyPerNode is how many inotify instances a cluster node takes of its
// host's limit: measured on system containers with systemd, containerd and
// kubelet, where the sixth node on a host with the default of 128 fails.
const inotifyPerNode = 24

// placed are the places of a request's nodes, in its order.
type placed []placement.Placement

// errHostFull says that a place was taken by somebody else in between.
var errHostFull = errors.New("a chosen host has no room any more")

// request asks for the places of the draft's nodes.
func (d *draft) request() placement.Request {
	r := placement.Request{Peers: d.peers}
	for i, n := range d.nodes {
		resources := quota.Capacity(d.costs[i])
		if resources.Disk == 0 {
			resources.Disk = rootDiskGB << 30
		}
		node := placement.Node{
			Name: n.Name, Resources: resources, Networks: d.subnet.PortGroups,
			Image: placement.Image{ID: d.image.ID, Architecture: d.image.Node.Architecture, Formats: d.image.Formats},
			Tags:  []string{model.UsageCloud},
		}
		if n.SpreadBy != "" {
			node.SpreadBy = d.spread(n)
		}
		r.Nodes = append(r.Nodes, node)
	}
	return r
}

// claims counts the requests that hold places in the fleet which are not in the
// ledgers yet, and may never be, and those that are about to.
type claims struct {
	mu    sync.Mutex
	held  int
	ended chan struct{} // closed, and made anew, when one ends, or none is left
}

func (c *claims) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held++
}

func (c *claims) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held--
	c.wake()
}

// withdraw ends a claim that got nothing. It returns what is closed when one of
// the others ends; nil if there is none, so that what is lacking is really lacking.
func (c *claims) withdraw() (others <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held--; c.held > 0 {
		return c.ended
	}
	c.wake() // who waited for us has nobody to wait for
	return nil
}

func (c *claims) wake() {
	close(c.ended)
	c.ended = make(chan struct{})
}

// placeTimeout bounds the wait for others that hold the places a request needs.
const placeTimeout = 10 * time.Second

// place finds places, and has commit reserve them in the ledgers. The fleet is
// what this replica knows; the ledgers are what is true. When they disagree,
// somebody else was faster: the fleet catches up and another place is tried.
func (c *Controller) place(ctx context.Context, r placement.Request, commit func(placed) error) error {
	ctx, cancel := context.WithTimeout(ctx, placeTimeout)
	defer cancel()
	const tries = 10
	for range tries {
		places, err := c.claim(ctx, r)
		if err != nil {
			return err
		}
		err = commit(places)
		if err != nil {
			for _, p := range places {
				c.setFleetHost(p.HostID) // nothing of it is reserved after all
			}
		}
		c.claims.end()
		if err == nil || !errors.Is(err, errHostFull) || ctx.Err() != nil {
			return err
		}
	}
	return model.Errorf(model.CodeInsufficientCapacity, "hosts were taken by other requests %d times in a row", tries).
		Do("try again")
}

// claim takes places in the fleet; the caller ends the claim. The fleet is a
// moment behind the store, and has what others are about to take and may not
// get: no room in it is a shortage only once it was read anew and nobody holds a
// claim that came before.
func (c *Controller) claim(ctx context.Context, r placement.Request) (placed, error) {
	for fresh := false; ; {
		c.claims.begin()
		places, err := c.fleet.Place(r, rand.NewPCG(rand.Uint64(), rand.Uint64()))
		if err == nil {
			return places, nil
		}
		others := c.claims.withdraw()
		switch {
		case !fresh:
			fresh = true
			if err := c.readFleet(); err != nil {
				return nil, err
			}
		case others == nil || ctx.Err() != nil:
			return nil, err
		default:
			select {
			case <-others:
			case <-ctx.Done():
			}
		}
	}
}

// takeCapacity reserves the places in the hosts' ledgers.
func (c *Controller) takeCapacity(tx *store.Tx, places placed) error {
	for _, p := range places {
		h, ok := c.fleet.Host(p.HostID)
		if !ok {
			return errHostFull
		}
		u, err := hostUsages.Get(tx, p.HostID)
		if errors.Is(err, store.ErrNotFound) {
			return errHostFull // the host was deleted
		} else if err != nil {
			return err
		}
		u.Used = u.Used.Add(p.Resources)
		u.Nodes++
		if p.Datastore != "" {
			if u.Datastores == nil {
				u.Datastores = map[string]int64{}
			}
			u.Datastores[p.Datastore] += p.Resources.Disk
		}
		if !fitsLedger(h, u) {
			return errHostFull
		}
		if err := hostUsages.Put(tx, u); err != nil {
			return err
		}
	}
	return nil
}

// fitsLedger reports whether a ledger is within what its host has.
func fitsLedger(h placement.Host, u *model.HostUsage) bool {
	cpu := int64(float64(h.Capacity.MilliCPU) * placement.DefaultPolicy.CPUOvercommit)
	if u.Used.MilliCPU > cpu || u.Used.Memory > h.Capacity.Memory || (h.MaxVMs > 0 && u.Nodes > h.MaxVMs) {
		return false
	}
	for _, d := range h.Datastores {
		if u.Datastores[d.Name] > d.Capacity {
			return false
		}
	}
	return true
}

// giveBack returns a VM's part of its host's ledger.
func giveBack(tx *store.Tx, v *model.VM) error {
	u, err := hostUsages.Get(tx, v.HostID)
	if err != nil {
		return ignoreNotFound(err) // the host is gone, and its ledger with it
	}
	u.Used = u.Used.Sub(v.Reserved)
	u.Nodes--
	if v.Datastore != "" {
		u.Datastores[v.Datastore] -= v.Reserved.Disk
		if u.Datastores[v.Datastore] == 0 {
			delete(u.Datastores, v.Datastore)
		}
	}
	return hostUsages.Put(tx, u)
}

// vms makes the records of the draft's nodes, all but their addresses.
func (d *draft) vms(places placed) []*model.VM {
	prefix := netip.MustParsePrefix(d.subnet.CIDR)
	out := make([]*model.VM, len(d.nodes))
	for i, n := range d.nodes {
		p := places[i]
		host, err := store.Hosts.Get(d.c.Store, p.HostID)
		if err != nil {
			host = &model.Host{} // for its address and networks only; the ledger is what binds
		}
		v := &model.VM{
			Meta: d.c.meta("vm", n.Name), State: model.VMCreating, Flavor: n.Flavor, Cost: d.costs[i].Lines(),
			ProjectID: d.projectID, SourceImageID: d.image.ID,
			Host: host.Address, HostID: p.HostID, Datastore: p.Datastore, Reserved: p.Resources,
			ClusterID: d.cluster.ID, Role: n.Role, Pool: n.Pool,
			AttachedDisks: []model.AttachedDisk{{
				Name: "root", Kind: model.FlavorEphemeralDisk, Flavor: n.DiskFlavor,
				State: "ATTACHED", CapacityGB: int(p.Resources.Disk >> 30), BootDisk: true,
			}},
		}
		v.Tags = []string{"cluster:" + d.cluster.ID, "cluster:" + d.cluster.ID + ":" + n.Role}
		v.Networks = []model.VMNetwork{{
			SubnetID: d.subnet.ID, Network: sharedNetwork(d.subnet.PortGroups, host.Facts.Networks), MACAddress: newMAC(),
			Prefix: prefix.Bits(), Gateway: d.subnet.Gateway, DNS: d.subnet.DNS,
		}}
		out[i] = v
	}
	return out
}

// sharedNetwork is the first port group the host has.
func sharedNetwork(portGroups, networks []string) string {
	for _, p := range portGroups {
		for _, n := range networks {
			if p == n {
				return p
			}
		}
	}
	return portGroups[0]
}

// newMAC returns a random address in the range of Xen's OUI, which LXD and
// others use for virtual interfaces too.
func newMAC() string {
	n := rand.Uint32()
	return fmt.Sprintf("00:16:3e:%02x:%02x:%02x", byte(n>>16), byte(n>>8), byte(n))
}
