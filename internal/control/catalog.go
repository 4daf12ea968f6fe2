package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/quota"
	"github.com/pleiad/pleiad/internal/store"
)

// CreateFlavor creates a flavor.
func (c *Controller) CreateFlavor(ctx context.Context, spec model.FlavorCreateSpec) (*model.Task, error) {
	if err := model.ValidateName("name", spec.Name); err != nil {
		return nil, err
	}
	if err := quota.ValidateFlavor(spec.Kind, spec.Cost); err != nil {
		return nil, err
	}
	f := &model.Flavor{
		ID: newID(), Name: spec.Name, Kind: spec.Kind, Cost: spec.Cost,
		State: model.StateReady, CreatedTime: c.now(),
	}
	task := c.completedTask("CREATE_FLAVOR", model.Entity{ID: f.ID, Kind: "flavor"})
	return task, c.update(ctx, func(tx *store.Tx) error {
		return errors.Join(store.Flavors.Put(tx, f), store.Tasks.Put(tx, task))
	})
}

// DeleteFlavor deletes a flavor no VM or cluster uses.
func (c *Controller) DeleteFlavor(ctx context.Context, id string) (*model.Task, error) {
	task := c.completedTask("DELETE_FLAVOR", model.Entity{ID: id, Kind: "flavor"})
	return task, c.update(ctx, func(tx *store.Tx) error {
		f, err := get(tx, store.Flavors, id, model.CodeFlavorNotFound)
		if err != nil {
			return err
		}
		vms := 0
		if f.Kind == model.FlavorVM {
			if vms, err = store.VMs.Count(tx, store.Query{Index: "flavor", Value: f.Name}); err != nil {
				return err
			}
		}
		// Clusters are listed by the names of all their flavors, of VMs and of disks.
		clusters, err := store.Clusters.Count(tx, store.Query{Index: "flavor", Value: f.Name})
		if err != nil {
			return err
		}
		if vms+clusters > 0 {
			return model.Errorf(model.CodeFlavorInUse, "flavor %s is used by %d VMs and %d clusters", f.Name, vms, clusters).
				With("kind", f.Kind).With("flavor", f.Name).Do("delete them first")
		}
		return errors.Join(store.Flavors.Delete(tx, id), store.Tasks.Put(tx, task))
	})
}

// flavorNamed finds a flavor; field names the request's field in the error.
func flavorNamed(r store.Reader, kind, name, field string) (*model.Flavor, error) {
	f, err := store.Flavors.Find(r, "name", store.Key(kind, name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, model.Errorf(model.CodeFlavorNotFound, "%s: there is no flavor %q of kind %s", field, clip(name), kind).
			With("id", clip(name)).Do("create it, or name one that 'flavor list' shows")
	}
	return f, err
}

// CreateSubnet creates a subnet.
func (c *Controller) CreateSubnet(ctx context.Context, spec model.SubnetCreateSpec) (*model.Task, error) {
	if err := model.ValidateName("name", spec.Name); err != nil {
		return nil, err
	}
	if err := checkSubnet(&spec); err != nil {
		return nil, err
	}
	s := &model.Subnet{
		Meta: c.meta("subnet", spec.Name), Description: spec.Description, State: model.StateReady,
		PortGroups: spec.PortGroups, CIDR: spec.CIDR, Gateway: spec.Gateway, DNS: spec.DNS,
		RangeStart: spec.RangeStart, RangeEnd: spec.RangeEnd,
	}
	task := c.completedTask("CREATE_NETWORK", model.Entity{ID: s.ID, Kind: "subnet"})
	return task, c.update(ctx, func(tx *store.Tx) error {
		if err := c.checkApart(tx, s); err != nil {
			return err
		}
		n, err := store.Subnets.Count(tx, store.Query{Index: "default", Value: "true"})
		if err != nil {
			return err
		}
		s.IsDefault = n == 0 // the first one is what everybody means
		return errors.Join(store.Subnets.Put(tx, s), store.Tasks.Put(tx, task))
	})
}

// checkSubnet checks the range and fills in what follows from it: an address
// range that is not given is the whole of the subnet but network, gateway and broadcast.
func checkSubnet(s *model.SubnetCreateSpec) error {
	bad := func(field, format string, args ...any) error {
		return model.Errorf(model.CodeInvalidNetworkConfig, "%s "+format, append([]any{field}, args...)...)
	}
	if len(s.PortGroups) == 0 {
		return bad("portGroups", "must name at least one network of the hosts")
	}
	for i, p := range s.PortGroups {
		if p == "" || len(p) > 255 {
			return bad(fmt.Sprintf("portGroups[%d]", i), "must have 1 to 255 characters")
		}
	}
	for i, d := range s.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			return bad(fmt.Sprintf("dnsServerAddresses[%d]", i), "is not an IP address (was %q)", clip(d))
		}
	}
	if s.CIDR == "" {
		if s.Gateway != "" || s.RangeStart != "" || s.RangeEnd != "" {
			return bad("privateIpCidr", "is needed for gateway, lowIpStatic and highIpStatic")
		}
		return nil
	}
	p, err := netip.ParsePrefix(s.CIDR)
	if err != nil || !p.Addr().Is4() || p.Bits() > 30 || p != p.Masked() {
		return bad("privateIpCidr", "must be an IPv4 network of /30 or larger, like 100.64.10.0/24 (was %q)", clip(s.CIDR))
	}
	inside := func(field, v string) (netip.Addr, error) {
		a, err := netip.ParseAddr(v)
		if err != nil || !p.Contains(a) {
			return a, bad(field, "must be an address in %s (was %q)", p, clip(v))
		}
		if a == p.Addr() || a == lastAddr(p) {
			return a, bad(field, "must not be the network's own or its broadcast address (was %s, in %s)", a, p)
		}
		return a, nil
	}
	if s.Gateway != "" {
		if _, err := inside("gateway", s.Gateway); err != nil {
			return err
		}
	}
	if s.RangeStart == "" {
		s.RangeStart = p.Addr().Next().String()
	}
	if s.RangeEnd == "" {
		s.RangeEnd = lastAddr(p).Prev().String()
	}
	start, err := inside("lowIpStatic", s.RangeStart)
	if err != nil {
		return err
	}
	end, err := inside("highIpStatic", s.RangeEnd)
	if err != nil {
		return err
	}
	if end.Less(start) {
		return bad("highIpStatic", "must not be before lowIpStatic (%s to %s)", start, end)
	}
	return nil
}

// checkApart refuses a subnet that would give out addresses which another gives
// out on the same network: two nodes would have one.
func (c *Controller) checkApart(tx *store.Tx, s *model.Subnet) error {
	if s.CIDR == "" {
		return nil
	}
	// The transaction depends on which subnets there are, not on all they hold:
	// neither their ranges nor their port groups change.
	if _, err := store.Subnets.Count(tx, store.Query{}); err != nil {
		return err
	}
	others, _, err := store.Subnets.List(c.Store, store.Query{})
	if err != nil {
		return err
	}
	start, end := netip.MustParseAddr(s.RangeStart), netip.MustParseAddr(s.RangeEnd)
	for _, o := range others {
		i := slices.IndexFunc(s.PortGroups, func(p string) bool { return slices.Contains(o.PortGroups, p) })
		if i < 0 || o.CIDR == "" || end.Less(netip.MustParseAddr(o.RangeStart)) || netip.MustParseAddr(o.RangeEnd).Less(start) {
			continue
		}
		return model.Errorf(model.CodeInvalidNetworkConfig,
			"lowIpStatic to highIpStatic (%s to %s) has addresses that subnet %s (%s to %s) gives out on port group %s",
			start, end, o.Name, o.RangeStart, o.RangeEnd, s.PortGroups[i]).
			With("id", o.ID).Do("give the subnet another range, or other port groups")
	}
	return nil
}

// lastAddr returns the broadcast address of an IPv4 network.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// DeleteSubnet deletes a subnet no VM or cluster is in.
func (c *Controller) DeleteSubnet(ctx context.Context, id string) (*model.Task, error) {
	task := c.completedTask("DELETE_NETWORK", model.Entity{ID: id, Kind: "subnet"})
	return task, c.update(ctx, func(tx *store.Tx) error {
		if _, err := get(tx, store.Subnets, id, model.CodeNetworkNotFound); err != nil {
			return err
		}
		in := store.Query{Index: "subnet", Value: id}
		vms, err := store.VMs.Count(tx, in)
		if err != nil {
			return err
		}
		clusters, err := store.Clusters.Count(tx, in)
		if err != nil {
			return err
		}
		if vms+clusters > 0 {
			return notEmpty("subnet", id, fmt.Sprintf("%d VMs and %d clusters", vms, clusters))
		}
		return errors.Join(store.Subnets.Delete(tx, id), store.Tasks.Put(tx, task))
	})
}

// SetDefaultSubnet makes a subnet the one that is used when none is named.
func (c *Controller) SetDefaultSubnet(ctx context.Context, id string) (*model.Task, error) {
	task := c.completedTask("SET_DEFAULT_NETWORK", model.Entity{ID: id, Kind: "subnet"})
	return task, c.update(ctx, func(tx *store.Tx) error {
		s, err := get(tx, store.Subnets, id, model.CodeNetworkNotFound)
		if err != nil {
			return err
		}
		others, _, err := store.Subnets.List(tx, store.Query{Index: "default", Value: "true"})
		if err != nil {
			return err
		}
		for _, o := range others {
			if o.ID != id {
				o.IsDefault = false
				if err := store.Subnets.Put(tx, o); err != nil {
					return err
				}
			}
		}
		s.IsDefault = true
		return errors.Join(store.Subnets.Put(tx, s), store.Tasks.Put(tx, task))
	})
}
