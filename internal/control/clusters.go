package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/quota"
	"github.com/pleiad/pleiad/internal/store"
)

// DeploymentID is the id of the one deployment.
const DeploymentID = "default"

// Steps of a cluster's tasks besides those of its kind.
const (
	opCreateCluster = "CREATE_CLUSTER"
	opDeleteCluster = "DELETE_CLUSTER"
	stepReserve     = "RESERVE_RESOURCE"
	stepCreateVMs   = "CREATE_VM"
	stepDeleteVMs   = "DELETE_CLUSTER_DELETE_VMS"
	stepForget      = "DELETE_CLUSTER_DOCUMENT"
)

// EnableClusterType lets tenants create clusters of a type, made of an image.
func (c *Controller) EnableClusterType(ctx context.Context, spec model.ClusterConfigurationSpec) (*model.Task, error) {
	k, err := c.kindNamed(spec.Type)
	if err != nil {
		return nil, err
	}
	task := c.completedTask("CONFIGURE_CLUSTER", model.Entity{ID: DeploymentID, Kind: "deployment"})
	return task, c.update(ctx, func(tx *store.Tx) error {
		img, err := get(tx, store.Images, spec.ImageID, model.CodeImageNotFound)
		if err != nil {
			return err
		}
		if err := checkNodeImage(img, k.Type()); err != nil {
			return err
		}
		dep, err := get(tx, store.Deployments, DeploymentID, model.CodeDeploymentNotFound)
		if err != nil {
			return err
		}
		for i, conf := range dep.ClusterConfigurations {
			if conf.Type == k.Type() && conf.ImageID == img.ID {
				return model.Errorf(model.CodeClusterTypeAlreadyEnabled, "cluster type %s is enabled with this image already", k.Type()).
					With("type", string(k.Type()))
			} else if conf.Type == k.Type() {
				dep.ClusterConfigurations[i].ImageID = img.ID // new clusters are made of the new image
				return errors.Join(store.Deployments.Put(tx, dep), store.Tasks.Put(tx, task))
			}
		}
		dep.ClusterConfigurations = append(dep.ClusterConfigurations, model.ClusterConfiguration{
			Meta: c.meta("clusterConfig", ""), Type: k.Type(), ImageID: img.ID,
		})
		return errors.Join(store.Deployments.Put(tx, dep), store.Tasks.Put(tx, task))
	})
}

// DisableClusterType refuses new clusters of a type; those there are stay.
func (c *Controller) DisableClusterType(ctx context.Context, spec model.ClusterConfigurationSpec) (*model.Task, error) {
	k, err := c.kindNamed(spec.Type)
	if err != nil {
		return nil, err
	}
	task := c.completedTask("DELETE_CLUSTER_CONFIGURATION", model.Entity{ID: DeploymentID, Kind: "deployment"})
	return task, c.update(ctx, func(tx *store.Tx) error {
		dep, err := get(tx, store.Deployments, DeploymentID, model.CodeDeploymentNotFound)
		if err != nil {
			return err
		}
		kept := []model.ClusterConfiguration{}
		for _, conf := range dep.ClusterConfigurations {
			if conf.Type != k.Type() {
				kept = append(kept, conf)
			}
		}
		if len(kept) == len(dep.ClusterConfigurations) {
			return notConfigured(k.Type())
		}
		dep.ClusterConfigurations = kept
		return errors.Join(store.Deployments.Put(tx, dep), store.Tasks.Put(tx, task))
	})
}

func notConfigured(t model.ClusterType) error {
	return model.Errorf(model.CodeClusterTypeNotConfigured, "cluster type %s is not enabled", t).
		With("type", string(t)).Do("an operator enables it with 'deployment enable-cluster-type'")
}

func (c *Controller) kindNamed(name string) (kind.Kind, error) {
	k := c.Kinds[model.ClusterType(strings.ToUpper(name))]
	if k == nil {
		var known []string
		for t := range c.Kinds {
			known = append(known, string(t))
		}
		return nil, model.Errorf(model.CodeInvalidEntity, "type must be one of %s (was %q)", strings.Join(known, ", "), clip(name))
	}
	return k, nil
}

func checkNodeImage(img *model.Image, t model.ClusterType) error {
	switch {
	case img.State == model.StatePendingDelete:
		return model.Errorf(model.CodeInvalidImageState, "image %s is being deleted", img.Name).With("id", img.ID)
	case img.Node == nil || !strings.EqualFold(img.Node.ClusterType, string(t)):
		return model.Errorf(model.CodeInvalidImageState, "image %s is not a node image for clusters of type %s", img.Name, t).
			With("id", img.ID).Do("build one with 'pleiad image build'")
	}
	return nil
}

// CreateCluster checks the whole cluster against quota, capacity, addresses and
// limits, and reserves all of it, in one transaction, before any VM is made.
func (c *Controller) CreateCluster(ctx context.Context, projectID string, spec model.ClusterCreateSpec) (*model.Task, error) {
	if err := model.ValidateName("name", spec.Name); err != nil {
		return nil, err
	}
	k, err := c.kindNamed(spec.Type)
	if err != nil {
		return nil, err
	}
	d := &draft{c: c, kind: k, projectID: projectID}
	if err := d.design(spec); err != nil {
		return nil, err
	}
	cl := d.cluster
	task := c.newTask(opCreateCluster, model.Entity{ID: cl.ID, Kind: "cluster"},
		append([]string{stepReserve, stepCreateVMs}, k.Steps(cl)...)...)
	task.ProjectID, task.TenantID = projectID, d.tenantID
	setStep(task, stepReserve, model.TaskCompleted, d.cost.String(), nil, c.now())
	cl.TaskID = task.ID
	err = c.place(ctx, d.request(), func(places placed) error {
		return c.updateIn(ctx, ledger, func(tx *store.Tx) error {
			return errors.Join(d.reserve(tx, places), store.Tasks.Put(tx, task))
		})
	})
	if err != nil {
		return nil, err
	}
	return task, nil
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
	d.cluster.Reserved = total.Lines()
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

// reserve takes quota, addresses and the hosts' capacity, and writes the
// cluster and its nodes. It is the body of a transaction.
func (d *draft) reserve(tx *store.Tx, places placed) error {
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
	names := d.kind.Addresses(cl)
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
	return errors.Join(store.Projects.Put(tx, p), store.Clusters.Put(tx, cl))
}

// addressProperty is the extended property in which an address a kind asked for is kept.
func addressProperty(name string) string { return name + "_ip" }

// DeleteCluster has a cluster removed, whatever state it is in.
func (c *Controller) DeleteCluster(ctx context.Context, id string) (*model.Task, error) {
	task := c.newTask(opDeleteCluster, model.Entity{ID: id, Kind: "cluster"}, stepDeleteVMs, stepForget)
	return task, c.update(ctx, func(tx *store.Tx) error {
		cl, err := get(tx, store.Clusters, id, model.CodeClusterNotFound)
		if err != nil {
			return err
		}
		if cl.State == model.ClusterPendingDelete {
			return model.Errorf(model.CodeStateError, "cluster %s is being deleted already", cl.Name).
				With("id", id).With("kind", "cluster").With("operation", opDeleteCluster).With("state", string(cl.State)).
				Do("follow task %s", cl.TaskID)
		}
		p, err := get(tx, store.Projects, cl.ProjectID, model.CodeProjectNotFound)
		if err != nil {
			return err
		}
		task.ProjectID, task.TenantID = p.ID, p.TenantID
		// What was being done to the cluster ends here.
		err = c.stepOf(tx, id, opCreateCluster, func(t *model.Task) {
			fail(t, currentStep(t), model.Errorf(model.CodeConcurrentTask, "the cluster is being deleted").With("task", task.ID), c.now())
		})
		if err != nil {
			return err
		}
		cl.State, cl.TaskID = model.ClusterPendingDelete, task.ID
		return errors.Join(store.Clusters.Put(tx, cl), store.Tasks.Put(tx, task))
	})
}

// currentStep is the first step that is not done.
func currentStep(t *model.Task) string {
	for _, s := range t.Steps {
		if s.State != model.TaskCompleted {
			return s.Operation
		}
	}
	return ""
}

// Access returns a file with which a user reaches the cluster.
func (c *Controller) Access(_ context.Context, clusterID, file string) ([]byte, error) {
	cl, err := get(c.Store, store.Clusters, clusterID, model.CodeClusterNotFound)
	if err != nil {
		return nil, err
	}
	view, err := c.view(cl)
	if err != nil {
		return nil, err
	}
	files, err := c.Kinds[cl.Type].Access(view)
	if err != nil {
		return nil, err
	}
	b, ok := files[file]
	if !ok {
		return nil, model.Errorf(model.CodeNotFound, "a cluster of type %s has no %s", cl.Type, fmt.Sprintf("%q", clip(file)))
	}
	return b, nil
}
