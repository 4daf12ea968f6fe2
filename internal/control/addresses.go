package control

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// cursors remember after which address of each subnet to look for the next free
// one. Going round, rather than taking the lowest, makes an address rest before
// it is another node's, and spares looking at all that are taken.
type cursors struct {
	mu sync.Mutex
	at map[string]netip.Addr // by subnet id
}

// after returns the address to begin with, from start to end.
func (c *cursors) after(subnetID string, start, end netip.Addr) netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.at[subnetID]; a.IsValid() && !a.Less(start) && a.Less(end) {
		return a.Next()
	}
	return start
}

func (c *cursors) set(subnetID string, a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at[subnetID] = a
}

// lease gives out a free address of a subnet to each of the owners. Which are
// free is looked up in the store's cache, without making the transaction depend
// on every address; that each one taken is still free is what it depends on.
func (c *Controller) lease(tx *store.Tx, s *model.Subnet, owners []string) ([]netip.Addr, error) {
	start, end := netip.MustParseAddr(s.RangeStart), netip.MustParseAddr(s.RangeEnd)
	reserved := append(slices.Clone(s.DNS), s.Gateway)
	var out []netip.Addr
	total := 0
	first := c.cursors.after(s.ID, start, end)
	for a, round := first, 0; len(out) < len(owners); a = a.Next() {
		if end.Less(a) {
			a = start
		}
		if a == first {
			if round++; round == 2 {
				break
			}
		}
		if slices.Contains(reserved, a.String()) {
			continue
		}
		total++
		l := &model.Lease{SubnetID: s.ID, Address: a.String(), OwnerID: owners[len(out)]}
		if _, err := leases.Get(c.Store, l.Key()); err == nil {
			continue
		}
		if _, err := leases.Get(tx, l.Key()); err == nil {
			continue // taken by another request of the same group
		}
		if err := leases.Put(tx, l); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	if len(out) < len(owners) {
		return nil, model.Errorf(model.CodeInsufficientCapacity,
			"subnet %s has %d free addresses of %d (%s to %s), and %d are needed",
			s.Name, len(out), total, s.RangeStart, s.RangeEnd, len(owners)).
			With("subnet", s.ID).With("free", fmt.Sprint(len(out))).With("needed", fmt.Sprint(len(owners))).
			Do("delete what is not needed, or use another subnet")
	}
	if len(out) > 0 {
		c.cursors.set(s.ID, out[len(out)-1])
	}
	return out, nil
}
