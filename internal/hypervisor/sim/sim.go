// Package sim is a hypervisor in memory: a Fleet of hosts that a test makes,
// looks at and breaks. It passes the conformance suite of package hypervisor.
//
// The fleet belongs to the test, so it survives the controllers that the test
// kills. It has no time of its own and reads no clock: calls take no longer than
// the fleet's Hook makes them. The hook also injects faults: before a call has
// its effect, or after, so that the answer is lost. With an Agent, started VMs
// run a function of the test's, as if it were the program inside.
//
// A host refuses VMs beyond its capacity, so that a controller that oversubscribes
// one is found out.
//
// Hosts cost a few hundred bytes and VMs little more; 10,000 of each are no
// burden. Everything is safe for concurrent use, except that Hook and Agent are
// set before the fleet is used.
package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
)

// Call is one call of a driver.
type Call struct {
	// Host is the name of the host.
	Host string
	// Op is the method of hypervisor.Driver, or Connect.
	Op string
	// ID is that of the VM or image; empty where there is none.
	ID string
}

// Moment says when a hook is asked.
type Moment int

// Moments of a call.
const (
	// Before: an error keeps the call from having any effect.
	Before Moment = iota
	// After: the call had its effect; an error is what the caller gets instead of the answer.
	After
)

// Fleet is a number of hosts.
type Fleet struct {
	// Hook, if any, is asked before and after each call. It may wait, for as long as
	// the context of the call allows, and may fail the call.
	Hook func(ctx context.Context, call Call, moment Moment) error
	// Agent, if any, runs for each VM while it is started, in a goroutine of its own. Its
	// context ends when the VM stops; it must return then.
	Agent func(ctx context.Context, host string, spec hypervisor.VMSpec)

	mu     sync.RWMutex
	hosts  map[string]*Host
	agents sync.WaitGroup
}

var _ hypervisor.Connector = (*Fleet)(nil)

// New returns a fleet without hosts.
func New() *Fleet { return &Fleet{hosts: map[string]*Host{}} }

// Close stops all agents and waits for them. The VMs stay as they are. No VM may be started from then on.
func (f *Fleet) Close() {
	f.mu.RLock()
	for _, h := range f.hosts {
		h.mu.Lock()
		for _, v := range h.vms {
			v.endAgent()
		}
		h.mu.Unlock()
	}
	f.mu.RUnlock()
	f.agents.Wait()
}

// AddHost adds a host, reached at sim:NAME. It replaces one of that name.
func (f *Fleet) AddHost(name string, facts model.HostFacts) *Host {
	h := &Host{Name: name, fleet: f, facts: facts}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hosts[name] = h
	return h
}

// Host returns a host by name, nil if there is none.
func (f *Fleet) Host(name string) *Host {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.hosts[name]
}

// Fingerprint is the SHA-256 a host shows as its certificate's.
func Fingerprint(name string) string {
	sum := sha256.Sum256([]byte("sim:" + name))
	return hex.EncodeToString(sum[:])
}

// Connect implements hypervisor.Connector. The address is sim:NAME or NAME.
func (f *Fleet) Connect(ctx context.Context, t hypervisor.Target) (hypervisor.Driver, string, error) {
	name := strings.TrimPrefix(t.Address, "sim:")
	h := f.Host(name)
	if h == nil {
		return nil, "", unreachable(name)
	}
	d := &driver{host: h}
	err := d.call(ctx, "Connect", "", func() error {
		if t.Fingerprint != "" && !strings.EqualFold(t.Fingerprint, Fingerprint(name)) {
			return model.Errorf(model.CodeHostCertificate, "host %s showed another certificate than expected", name)
		}
		if h.password != "" && h.password != t.Password {
			return model.Errorf(model.CodeHostUnauthorized, "host %s refuses the password", name)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return d, Fingerprint(name), nil
}

func unreachable(host string) error {
	return model.Errorf(model.CodeHostUnreachable, "host %s does not answer", host).With("address", host)
}

// DefaultFacts are those of a host with cpus CPUs, memory and disk in bytes, one
// network "vmnet" and one datastore "default".
func DefaultFacts(cpus, memory, disk int64) model.HostFacts {
	return model.HostFacts{
		Hypervisor: "sim 1", Architecture: "x86_64",
		Capacity:   model.Capacity{MilliCPU: cpus * 1000, Memory: memory, Disk: disk},
		Networks:   []string{"vmnet"},
		Datastores: []model.HostDatastore{{Name: "default", Type: "sim", Capacity: disk, Free: disk}},
	}
}

// Host is one host of a fleet. Its methods are the test's hand on it, behind the
// controller's back; they heed no Hook.
type Host struct {
	Name  string
	fleet *Fleet

	mu        sync.Mutex
	facts     model.HostFacts
	password  string
	down      bool
	used      model.Capacity
	images    map[string]bool
	uploading map[string]chan struct{}
	vms       map[string]*vm
	foreign   []string
}

type vm struct {
	spec    hypervisor.VMSpec
	power   hypervisor.PowerState
	console string
	cancel  context.CancelFunc // ends the agent; nil while none runs
	ended   chan struct{}      // closed when it has ended
}

// SetPassword has the host demand a password of new sessions.
func (h *Host) SetPassword(password string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.password = password
}

// SetDown takes the host off the network, or back. Its VMs go on.
func (h *Host) SetDown(down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = down
}

// Crash stops all VMs at once, as a power loss does, and takes the host off the network.
func (h *Host) Crash() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = true
	for _, v := range h.vms {
		v.powerOff()
	}
}

// PowerOff stops a VM, and reports whether there is one.
func (h *Host) PowerOff(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.vms[id]
	if ok {
		v.powerOff()
	}
	return ok
}

// Remove deletes a VM, and reports whether there was one.
func (h *Host) Remove(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.vms[id]
	h.remove(id)
	return ok
}

// Specs returns the specs of all VMs of ours, in no order.
func (h *Host) Specs() []hypervisor.VMSpec {
	h.mu.Lock()
	defer h.mu.Unlock()
	specs := make([]hypervisor.VMSpec, 0, len(h.vms))
	for _, v := range h.vms {
		specs = append(specs, v.spec)
	}
	return specs
}

// Used is what the VMs take of the host's capacity.
func (h *Host) Used() model.Capacity {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.used
}

// Images returns the ids of the host's images, sorted.
func (h *Host) Images() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := make([]string, 0, len(h.images))
	for id := range h.images {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// AddForeign puts a VM on the host that is not ours; drivers neither see nor touch it.
func (h *Host) AddForeign(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.foreign = append(h.foreign, name)
}

// Foreign returns the names of the VMs that are not ours.
func (h *Host) Foreign() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.foreign)
}

// WriteConsole appends to a VM's console, for an Agent to be heard there.
func (h *Host) WriteConsole(id, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v, ok := h.vms[id]; ok {
		v.print(text)
	}
}

// remove is called with the lock held.
func (h *Host) remove(id string) {
	v, ok := h.vms[id]
	if !ok {
		return
	}
	v.powerOff()
	h.used = h.used.Sub(v.spec.Resources)
	delete(h.vms, id)
}

// The methods of vm are called with its host's lock held.

func (v *vm) powerOff() {
	v.power = hypervisor.Stopped
	v.endAgent()
}

func (v *vm) endAgent() {
	if v.cancel != nil {
		v.cancel()
		v.cancel = nil
	}
}

// consoleKept bounds what is kept of a console, in bytes.
const consoleKept = 16 << 10

func (v *vm) print(text string) {
	v.console += text
	v.console = v.console[max(0, len(v.console)-consoleKept):]
}

func (v *vm) view() hypervisor.VM {
	view := hypervisor.VM{ID: v.spec.ID, Name: v.spec.Name, Owner: v.spec.Owner, Power: v.power}
	for _, n := range v.spec.Networks {
		if n.IPAddress != "" {
			view.Addresses = append(view.Addresses, n.IPAddress)
		}
	}
	return view
}
