package placement

import (
	"slices"

	"github.com/pleiad/pleiad/internal/model"
)

// reason is why a host does not take a node: the first filter that failed, in this order.
type reason int

const (
	fits reason = iota
	notReady
	silent
	notAsked
	otherZone
	noTag
	noDatastore
	noNetwork
	otherImage
	lackMemory
	lackCPU
	lackStorage
	lackLimit
	notApart
	reasons // how many there are
)

// fits says whether a host takes a node beside what is on it and what the draft
// has put there, and how good it would be.
func (d *draft) fits(n *Node, e *entry, g *group) (reason, candidate) {
	switch {
	case e.State != model.HostReady:
		return notReady, candidate{}
	case e.Silent:
		return silent, candidate{}
	case len(n.Hosts) > 0 && !slices.Contains(n.Hosts, e.ID), slices.Contains(n.NotHosts, e.ID):
		return notAsked, candidate{}
	case !zoneAllowed(n, e.Zone):
		return otherZone, candidate{}
	case !containsAll(e.Tags, n.Tags):
		return noTag, candidate{}
	case n.Datastore != "" && !slices.ContainsFunc(e.Datastores, func(s Datastore) bool { return s.Name == n.Datastore }):
		return noDatastore, candidate{}
	case len(n.Networks) > 0 && !overlap(e.Networks, n.Networks):
		return noNetwork, candidate{}
	case n.Image.Architecture != "" && e.Architecture != "" && n.Image.Architecture != e.Architecture,
		len(n.Image.Formats) > 0 && len(e.Formats) > 0 && !overlap(e.Formats, n.Image.Formats):
		return otherImage, candidate{}
	}

	free := d.free(e)
	memory := free.Memory - n.Resources.Memory
	if memory < 0 {
		return lackMemory, candidate{}
	}
	cpu := free.MilliCPU - n.Resources.MilliCPU
	// A VM with more CPUs than its host has would only wait for itself.
	if cpu < 0 || n.Resources.MilliCPU > e.Capacity.MilliCPU {
		return lackCPU, candidate{}
	}
	store, storeShare := d.datastore(n, e)
	if store < 0 && n.Resources.Disk > 0 {
		return lackStorage, candidate{}
	}
	if e.MaxVMs > 0 && d.vms(e) >= e.MaxVMs {
		return lackLimit, candidate{}
	}
	c := candidate{host: e, store: store}
	c.score = min(share(memory, e.Capacity.Memory), share(cpu, e.milliCPU), storeShare)
	if n.Apart && g.on(e) > 0 {
		return notApart, candidate{}
	}
	if d.tight {
		c.score = -c.score
		return fits, c
	}
	if !d.hasImage(e, n.Image.ID) {
		c.score -= d.fleet.policy.ImagePrice
	}
	c.onHost, c.inZone = g.on(e), g.in(e.zone)
	return fits, c
}

// free returns the memory and CPU that may still be reserved.
func (d *draft) free(e *entry) model.Capacity {
	free := model.Capacity{MilliCPU: e.milliCPU - e.Used.MilliCPU, Memory: e.Capacity.Memory - e.Used.Memory}
	if c := d.changes[e]; c != nil {
		free.MilliCPU -= c.used.MilliCPU
		free.Memory -= c.used.Memory
	}
	return free
}

// datastore returns the index of the datastore with the largest free share once the node is
// in it, and that share; -1 and 1 if there is none with room.
func (d *draft) datastore(n *Node, e *entry) (index int, freeShare float64) {
	index, freeShare = -1, 1
	for i := range e.Datastores {
		s := &e.Datastores[i]
		rest := d.storeFree(e, i) - n.Resources.Disk
		if rest < 0 || n.Datastore != "" && s.Name != n.Datastore {
			continue
		}
		if f := share(rest, s.Capacity); index < 0 || f > freeShare {
			index, freeShare = i, f
		}
	}
	return index, freeShare
}

// storeFree returns the bytes that may still be reserved on a datastore.
func (d *draft) storeFree(e *entry, index int) int64 {
	s := &e.Datastores[index]
	free := s.Capacity - s.Used
	if c := d.changes[e]; c != nil {
		free -= c.stores[index]
	}
	return free
}

func (d *draft) vms(e *entry) int {
	if c := d.changes[e]; c != nil {
		return e.VMs + c.vms
	}
	return e.VMs
}

// hasImage counts an image that a node of the draft brings along: it is copied once.
func (d *draft) hasImage(e *entry, id string) bool {
	if id == "" || slices.Contains(e.Images, id) {
		return true
	}
	c := d.changes[e]
	return c != nil && slices.Contains(c.images, id)
}

// share returns part of whole; of nothing, all is free.
func share(part, whole int64) float64 {
	if whole <= 0 {
		return 1
	}
	return float64(part) / float64(whole)
}

func zoneAllowed(n *Node, zone string) bool {
	return (len(n.Zones) == 0 || slices.Contains(n.Zones, zone)) && !slices.Contains(n.NotZones, zone)
}

func containsAll(have, want []string) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
