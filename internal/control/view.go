package control

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// view collects what a kind decides on. What it holds is shared with the
// store's cache and must not be changed; the cluster is a copy.
func (c *Controller) view(cl *model.Cluster) (kind.View, error) {
	v := kind.View{Now: c.now(), Addresses: map[string]netip.Addr{}, Secrets: map[string]kind.Secret{}}
	copied := *cl
	v.Cluster = &copied
	img, err := store.Images.Get(c.Store, cl.ImageID)
	switch {
	case err == nil:
		v.Image = img.Node
	case !errors.Is(err, store.ErrNotFound):
		return v, err
	}
	if v.Subnet, err = store.Subnets.Get(c.Store, cl.SubnetID); err != nil {
		return v, err
	}
	if s, err := clusterSecrets.Get(c.Store, cl.ID); err == nil {
		v.Secrets = s.Secrets
	} else if !errors.Is(err, store.ErrNotFound) {
		return v, err
	}
	for _, name := range c.Kinds[cl.Type].Addresses(cl) {
		if a, err := netip.ParseAddr(cl.ExtendedProperties[addressProperty(name)]); err == nil {
			v.Addresses[name] = a
		}
	}
	vms, _, err := store.VMs.List(c.Store, store.Query{Index: "clusterId", Value: cl.ID})
	if err != nil {
		return v, err
	}
	for _, vm := range vms {
		n := kind.Node{VM: vm, Silent: c.nodes.silent(vm.ID, v.Now)}
		if p, err := plans.Get(c.Store, vm.ID); err == nil {
			n.Plan = p
		}
		if r, err := reports.Get(c.Store, vm.ID); err == nil {
			n.Report = r
		}
		v.Nodes = append(v.Nodes, n)
	}
	slices.SortFunc(v.Nodes, func(a, b kind.Node) int { return strings.Compare(a.VM.Name, b.VM.Name) })
	return v, nil
}
