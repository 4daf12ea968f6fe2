package control

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/placement"
	"github.com/pleiad/pleiad/internal/quota"
	"github.com/pleiad/pleiad/internal/store"
)

// explain says what a reservation was too large for.
func (d *draft) explain(err error) error {
	if errors.Is(err, store.ErrTooLarge) {
		return model.Errorf(model.CodeInsufficientCapacity, "%d nodes at once are more than the store's etcd takes in one transaction", len(d.nodes)).
			With("nodes", fmt.Sprint(len(d.nodes))).
			Do("make a smaller cluster and resize it in steps; or have etcd started with --max-txn-ops=16384 --max-request-bytes=10485760, and this server again")
	}
	return err
}

// draft is a cluster on its way into the store.
type draft struct {
	c         *Controller
	kind      kind.Kind
	projectID string
	tenantID  string

	cluster *model.Cluster
	image   *model.Image
	subnet  *model.Subnet
	nodes   []kind.NodeSpec
	peers   []placement.Peer         // nodes the cluster has already
	flavors map[string]*model.Flavor // by kind and name
	costs   []quota.Set              // of each node
	cost    quota.Set                // of all
}

// design turns a spec into the cluster and its nodes, and refuses what can be
// seen to be wrong without reserving anything.
func (d *draft) design(spec model.ClusterCreateSpec) error {
	c := d.c
	p, err := get(c.Store, store.Projects, d.projectID, model.CodeProjectNotFound)
	if err != nil {
		return err
	}
	d.tenantID = p.TenantID
	if err := d.chooseImage(spec); err != nil {
		return err
	}
	cl := &model.Cluster{
		Meta: c.meta("cluster", spec.Name), Type: d.kind.Type(), State: model.ClusterCreating, ProjectID: p.ID,
		ImageID: d.image.ID, Version: spec.Version, PodCIDR: spec.PodCIDR, ServiceCIDR: spec.ServiceCIDR,
		ControlPlane:       model.NodeGroup{Count: 1, Flavor: first(spec.ControlPlaneFlavor, spec.VMFlavor), DiskFlavor: spec.DiskFlavor},
		WorkerCount:        1,
		ExtendedProperties: spec.ExtendedProperties,
	}
	if cl.ExtendedProperties == nil {
		cl.ExtendedProperties = map[string]string{}
	}
	if cl.Version == "" {
		cl.Version = d.image.Node.Version
	}
	if n := spec.ControlPlaneCount; n != nil {
		if *n < 1 { // a kind cannot tell 0 from what was left out
			return model.Errorf(model.CodeInvalidEntity, "controlPlaneCount: the control plane must have at least 1 node (was %d)", *n)
		}
		cl.ControlPlane.Count = *n
	}
	for _, n := range []*int{spec.SlaveCount, spec.WorkerCount} {
		if n != nil {
			cl.WorkerCount = *n
		}
	}
	if cl.WorkerCount < 0 || cl.WorkerCount > model.MaxWorkers {
		return model.Errorf(model.CodeInvalidEntity, "workerCount must be 0 to %d (was %d)", model.MaxWorkers, cl.WorkerCount)
	}
	cl.Pools = []model.Pool{{Name: "workers", NodeGroup: model.NodeGroup{
		Count: cl.WorkerCount, Flavor: first(spec.WorkerFlavor, spec.VMFlavor), DiskFlavor: spec.DiskFlavor}}}
	d.kind.Default(cl)
	if err := d.kind.Validate(cl, d.image.Node); err != nil {
		return err
	}
	d.cluster = cl
	d.nodes = d.kind.Nodes(cl)
	if err := d.chooseSubnet(spec.SubnetID); err != nil {
		return err
	}
	if err := d.count(); err != nil {
		return err
	}
	cl.Reserved = d.cost.Lines()
	// The transaction checks again; this is so that a tenant over quota is told
	// that, and not what the operator's hosts lack.
	copied := *p
	return reserveProject(&copied, d.cost)
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func (d *draft) chooseImage(spec model.ClusterCreateSpec) error {
	dep, err := get(d.c.Store, store.Deployments, DeploymentID, model.CodeDeploymentNotFound)
	if err != nil {
		return err
	}
	id := ""
	for _, conf := range dep.ClusterConfigurations {
		if conf.Type == d.kind.Type() {
			id = conf.ImageID
		}
	}
	if id == "" {
		return notConfigured(d.kind.Type())
	}
	switch {
	case spec.ImageID != "":
		id = spec.ImageID
	case spec.Version != "":
		// Several versions coexist: any image of that version will do.
		images, _, err := store.Images.List(d.c.Store, store.Query{})
		if err != nil {
			return err
		}
		for _, img := range images {
			if checkNodeImage(img, d.kind.Type()) == nil && img.Node.Version == spec.Version {
				id = img.ID
			}
		}
	}
	d.image, err = get(d.c.Store, store.Images, id, model.CodeImageNotFound)
	if err != nil {
		return err
	}
	return checkNodeImage(d.image, d.kind.Type())
}

func (d *draft) chooseSubnet(id string) (err error) {
	if id != "" {
		d.subnet, err = get(d.c.Store, store.Subnets, id, model.CodeNetworkNotFound)
	} else {
		subnets, _, lerr := store.Subnets.List(d.c.Store, store.Query{Index: "default", Value: "true"})
		if lerr != nil {
			return lerr
		}
		if len(subnets) == 0 {
			return model.Errorf(model.CodeNetworkNotFound, "vmNetworkId: none is given, and there is no default subnet").
				Do("name a subnet, or create one with 'subnet create'")
		}
		d.subnet = subnets[0]
	}
	if err != nil {
		return err
	}
	if d.subnet.CIDR == "" {
		return model.Errorf(model.CodeInvalidNetworkConfig,
			"subnet %s has no range of addresses, which a cluster's nodes need", d.subnet.Name).
			Do("create a subnet with a CIDR and a range")
	}
	d.cluster.SubnetID = d.subnet.ID
	return checkRanges(d.cluster, d.subnet)
}

// checkRanges refuses ranges of nodes, pods and services that overlap: packets
// would be taken for another's.
func checkRanges(cl *model.Cluster, s *model.Subnet) error {
	ranges := []struct{ field, cidr string }{
		{"the subnet's privateIpCidr", s.CIDR}, {"podCidr", cl.PodCIDR}, {"serviceCidr", cl.ServiceCIDR},
	}
	for i, a := range ranges {
		for _, b := range ranges[i+1:] {
			if a.cidr == "" || b.cidr == "" {
				continue
			}
			pa, err := netip.ParsePrefix(a.cidr)
			if err != nil {
				return model.Errorf(model.CodeInvalidEntity, "%s must be a network like 10.244.0.0/16 (was %q)", a.field, clip(a.cidr))
			}
			pb, err := netip.ParsePrefix(b.cidr)
			if err != nil {
				return model.Errorf(model.CodeInvalidEntity, "%s must be a network like 10.244.0.0/16 (was %q)", b.field, clip(b.cidr))
			}
			if pa.Overlaps(pb) {
				return model.Errorf(model.CodeInvalidNetworkConfig, "%s (%s) and %s (%s) overlap", a.field, pa, b.field, pb).
					Do("give the cluster another podCidr or serviceCidr")
			}
		}
	}
	return nil
}

// count sums up what the nodes cost.
func (d *draft) count() error {
	d.flavors = map[string]*model.Flavor{}
	total := quota.Set{}
	for _, n := range d.nodes {
		f, err := d.flavor(model.FlavorVM, n.Flavor, "flavor of role "+n.Role)
		if err != nil {
			return err
		}
		cost, err := quota.VMCost(f.Name, f.Cost)
		if err != nil {
			return err
		}
		if n.DiskFlavor != "" {
			disk, err := d.flavor(model.FlavorEphemeralDisk, n.DiskFlavor, "diskFlavor of role "+n.Role)
			if err != nil {
				return err
			}
			diskCost, err := quota.DiskCost(model.FlavorEphemeralDisk, disk.Name, disk.Cost, rootDiskGB)
			if err != nil {
				return err
			}
			if cost, err = cost.Add(diskCost); err != nil {
				return err
			}
		}
		d.costs = append(d.costs, cost)
		if total, err = total.Add(cost); err != nil {
			return err
		}
	}
	d.cost = total
	return nil
}

// flavor looks each flavor up once, and keeps it for reserve.
func (d *draft) flavor(kind, name, field string) (*model.Flavor, error) {
	at := store.Key(kind, name)
	if f := d.flavors[at]; f != nil {
		return f, nil
	}
	f, err := flavorNamed(d.c.Store, kind, name, field)
	if err == nil {
		d.flavors[at] = f
	}
	return f, err
}

// reserve takes quota, the hosts' capacity, addresses for the nodes and for what
// else the cluster has by these names, and writes the nodes. It is part of a transaction.
func (d *draft) reserve(tx *store.Tx, places placed, names ...string) error {
	c, cl := d.c, d.cluster
	p, err := get(tx, store.Projects, d.projectID, model.CodeProjectNotFound)
	if err != nil {
		return err
	}
	if err := reserveProject(p, d.cost); err != nil {
		return err
	}
	// Flavors, image and subnet must still be there when this commits.
	for _, f := range d.flavors {
		if _, err := get(tx, store.Flavors, f.ID, model.CodeFlavorNotFound); err != nil {
			return err
		}
	}
	if img, err := get(tx, store.Images, d.image.ID, model.CodeImageNotFound); err != nil {
		return err
	} else if err := checkNodeImage(img, cl.Type); err != nil {
		return err
	}
	if _, err := get(tx, store.Subnets, d.subnet.ID, model.CodeNetworkNotFound); err != nil {
		return err
	}
	if err := c.takeCapacity(tx, places); err != nil {
		return err
	}
	vms := d.vms(places)
	owners := make([]string, 0, len(vms)+1)
	for _, v := range vms {
		owners = append(owners, v.ID)
	}
	for range names {
		owners = append(owners, cl.ID)
	}
	addresses, err := c.lease(tx, d.subnet, owners)
	if err != nil {
		return err
	}
	for i, v := range vms {
		v.Networks[0].IPAddress = addresses[i].String()
		if err := store.VMs.Put(tx, v); err != nil {
			return err
		}
	}
	for i, name := range names {
		cl.ExtendedProperties[addressProperty(name)] = addresses[len(vms)+i].String()
	}
	return store.Projects.Put(tx, p)
}
