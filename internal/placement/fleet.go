package placement

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/pleiad/pleiad/internal/model"
)

// Fleet is all hosts, laid out for choosing: by id, and by zone in slices that can be
// drawn from at random.
type Fleet struct {
	policy Policy

	mu    sync.RWMutex
	byID  map[string]*entry
	zones []*zone // sorted by name
}

// entry is a host of the fleet. Its slices are the fleet's own.
type entry struct {
	Host
	// milliCPU is what VMs may reserve, overcommitment included.
	milliCPU int64
	zone     *zone
	// index in zone.hosts.
	index int
}

type zone struct {
	name  string
	hosts []*entry
}

// NewFleet returns an empty fleet. A CPUOvercommit below 1 counts as 1.
func NewFleet(policy Policy) *Fleet {
	policy.CPUOvercommit = max(policy.CPUOvercommit, 1)
	return &Fleet{policy: policy, byID: map[string]*entry{}}
}

// Set adds a host or replaces all that is known of it, what is used included.
func (f *Fleet) Set(h Host) {
	h.Tags = slices.Clone(h.Tags)
	h.Formats = slices.Clone(h.Formats)
	h.Networks = slices.Clone(h.Networks)
	h.Images = slices.Clone(h.Images)
	h.Datastores = slices.Clone(h.Datastores)

	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.byID[h.ID]
	if e != nil && e.zone.name != h.Zone {
		f.remove(e)
		e = nil
	}
	if e == nil {
		z := f.zoneNamed(h.Zone)
		e = &entry{zone: z, index: len(z.hosts)}
		z.hosts = append(z.hosts, e)
		f.byID[h.ID] = e
	}
	e.Host = h
	e.milliCPU = int64(float64(h.Capacity.MilliCPU) * f.policy.CPUOvercommit)
}

// zoneNamed returns the zone, new if it is the first host's.
func (f *Fleet) zoneNamed(name string) *zone {
	i, found := slices.BinarySearchFunc(f.zones, name, func(z *zone, name string) int { return strings.Compare(z.name, name) })
	if !found {
		f.zones = slices.Insert(f.zones, i, &zone{name: name})
	}
	return f.zones[i]
}

// Remove takes a host out of the fleet; one that is not there is no error.
func (f *Fleet) Remove(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.byID[id]; e != nil {
		f.remove(e)
	}
}

func (f *Fleet) remove(e *entry) {
	delete(f.byID, e.ID)
	z := e.zone
	last := len(z.hosts) - 1
	z.hosts[e.index] = z.hosts[last]
	z.hosts[e.index].index = e.index
	z.hosts[last] = nil
	z.hosts = z.hosts[:last]
	if last == 0 {
		f.zones = slices.DeleteFunc(f.zones, func(other *zone) bool { return other == z })
	}
}

// Len returns how many hosts there are.
func (f *Fleet) Len() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return len(f.byID)
}

// Host returns what the fleet knows of a host.
func (f *Fleet) Host(id string) (Host, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	e := f.byID[id]
	if e == nil {
		return Host{}, false
	}
	h := e.Host
	h.Datastores = slices.Clone(h.Datastores) // the only slice that changes in place
	return h, true
}

// Choose finds a place for every node of the request, in its order, and reserves nothing.
// source is used by this call only; with a nil source every host is looked at, and
// of equals the first is taken.
//
// The error is a *model.Error that says for how many hosts which filter failed, and
// what is lacking: NotEnoughCpuResource, NotEnoughMemoryResource, NotEnoughDatastoreCapacity,
// HostLimits, or InsufficientCapacity for several of these; UnfullfillableAffinities
// where hosts, zones, tags or keeping nodes apart rule out the rest; NoSuchResource where no host has the
// network or takes the image, or there is no host at all.
func (f *Fleet) Choose(r Request, source rand.Source) ([]Placement, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.choose(r, source)
}

// Place chooses and reserves in one: no other call can take the places in between.
func (f *Fleet) Place(r Request, source rand.Source) ([]Placement, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	places, err := f.choose(r, source)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		f.byID[p.HostID].take(p, 1)
	}
	return places, nil
}

// Reserve takes what a placement chosen before takes. Its error is a *model.Error:
// HostNotFound, or what lacks by now.
func (f *Fleet) Reserve(p Placement) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.byID[p.HostID]
	if e == nil {
		return model.Errorf(model.CodeHostNotFound, "host %s is not in the fleet", p.HostID).With("id", p.HostID)
	}
	n := Node{Name: p.Node, Resources: p.Resources, Datastore: p.Datastore}
	d := draft{fleet: f}
	if why, _ := d.fits(&n, e, nil); why != fits {
		return d.refuse(&n, []*entry{e})
	}
	e.take(p, 1)
	return nil
}

// Release gives back what Place or Reserve took. A host that is gone is no error, and
// nothing falls below zero: Set may have counted the change already.
func (f *Fleet) Release(p Placement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.byID[p.HostID]; e != nil {
		e.take(p, -1)
	}
}

// take changes what is used by the placement, sign times.
func (e *entry) take(p Placement, sign int64) {
	e.Used = model.Capacity{
		MilliCPU: max(0, e.Used.MilliCPU+sign*p.Resources.MilliCPU),
		Memory:   max(0, e.Used.Memory+sign*p.Resources.Memory),
		Disk:     max(0, e.Used.Disk+sign*p.Resources.Disk),
	}
	e.VMs = max(0, e.VMs+int(sign))
	for i := range e.Datastores {
		if s := &e.Datastores[i]; s.Name == p.Datastore {
			s.Used = max(0, s.Used+sign*p.Resources.Disk)
		}
	}
}
