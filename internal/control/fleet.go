package control

import (
	"context"
	"slices"
	"sync"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/placement"
	"github.com/pleiad/pleiad/internal/store"
)

// followFleet keeps the placement fleet as the store says the hosts are.
func (c *Controller) followFleet(ctx context.Context) {
	present := store.WatchOptions{Present: true}
	var wg sync.WaitGroup
	hosts := store.Hosts.Watch(ctx, c.Store, present)
	usages := hostUsages.Watch(ctx, c.Store, present)
	images := store.Images.Watch(ctx, c.Store, present)
	wg.Go(func() {
		for e := range hosts {
			c.setFleetHost(e.ID)
		}
	})
	wg.Go(func() {
		for e := range usages {
			c.setFleetHost(e.ID)
		}
	})
	wg.Go(func() {
		for e := range images {
			for _, img := range []*model.Image{e.Old, e.New} {
				if img == nil {
					continue
				}
				for id := range img.Hosts {
					if !hasCopy(e.Old, id) || !hasCopy(e.New, id) { // else nothing changed there
						c.setFleetHost(id)
					}
				}
			}
		}
	})
	wg.Wait()
}

// hasCopy reports whether a host has an image, which may be nil.
func hasCopy(img *model.Image, hostID string) bool {
	return img != nil && img.Hosts[hostID].State == model.StateReady
}

// readFleet tells the fleet at once what the store says of all hosts.
func (c *Controller) readFleet() error {
	hosts, _, err := store.Hosts.List(c.Store, store.Query{})
	if err != nil {
		return err
	}
	for _, h := range hosts {
		c.setFleetHost(h.ID)
	}
	return nil
}

// setFleetHost tells the fleet all that is known of a host, or that it is gone.
func (c *Controller) setFleetHost(id string) {
	c.fleetMu.Lock() // an older reading must not replace a newer one
	defer c.fleetMu.Unlock()
	h, err := store.Hosts.Get(c.Store, id)
	if err != nil {
		c.fleet.Remove(id)
		return
	}
	u, err := hostUsages.Get(c.Store, id)
	if err != nil {
		return // not provisioned yet
	}
	p := placement.Host{
		ID: id, Zone: h.AvailabilityZone, Tags: h.UsageTags, State: h.State,
		Architecture: h.Facts.Architecture, Formats: formats[h.Driver], Networks: h.Facts.Networks,
		Capacity: h.Facts.Capacity, Used: u.Used, VMs: u.Nodes,
		Silent: slices.ContainsFunc(h.Conditions, func(c model.Condition) bool {
			return c.Type == conditionReachable && c.Status == "False"
		}),
	}
	for _, d := range h.Facts.Datastores {
		// What is not ours fills a datastore, too: no more can be reserved than is
		// free. Part of what is reserved is written already, and so counted twice;
		// that errs on the safe side, and where space is given out as it is written
		// free is more than what is not reserved.
		used := u.Datastores[d.Name]
		p.Datastores = append(p.Datastores, placement.Datastore{
			Name: d.Name, Capacity: min(d.Capacity, used+d.Free), Used: used,
		})
	}
	if limit, ok := h.Facts.Limits[inotifyLimit]; ok {
		p.MaxVMs, p.Limit = max(1, int(limit/inotifyPerNode)), inotifyLimit
	}
	images, _, err := store.Images.List(c.Store, store.Query{})
	if err == nil {
		for _, img := range images {
			if hasCopy(img, id) {
				p.Images = append(p.Images, img.ID)
			}
		}
	}
	slices.Sort(p.Images)
	c.fleet.Set(p)
}

// inotifyLimit bounds how many cluster nodes a host's kernel carries.
const inotifyLimit = "fs.inotify.max_user_instances"

// formats of image payloads that each driver takes; sim takes any.
var formats = map[string][]string{
	"lxd":     {"lxd-squashfs"},
	"libvirt": {"qcow2"},
	"vsphere": {"ova"},
}
