// Package hypervisor is the contract between Pleiad and one sort of host.
//
// A Driver speaks to one host. Every operation is idempotent by our id: making
// what exists and removing what is gone succeed, so that an operation cut off
// at any point can simply be done again. Everything a driver makes is tagged as
// ours on the host; a driver never changes or lists what is not. Every call
// takes a context and must return soon after it ends; a driver has a deadline
// of its own for each request, so that a host that hangs is noticed soon even by
// a caller with much time.
//
// A Driver is safe for concurrent use. The suite in hypervisor/conformance is
// what a driver must pass.
package hypervisor

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/pleiad/pleiad/internal/model"
)

// ErrNotFound is returned by lookups of what is not on the host.
var ErrNotFound = errors.New("not on this host")

// Driver runs VMs on one host. Errors a user can act on are *model.Error with
// codes HostUnreachable, HostCertificate, HostUnauthorized, HostDriver,
// HypervisorError, InsufficientCapacity or Unsupported.
type Driver interface {
	// Facts asks the host for its capacity, networks, datastores and limits.
	Facts(ctx context.Context) (model.HostFacts, error)

	// EnsureImage makes the image available on the host. open is called when
	// the host does not have it, and is read once, as a stream.
	EnsureImage(ctx context.Context, image Image, open func() (Payload, error)) error
	// DeleteImage removes an image; one that is gone is no error.
	DeleteImage(ctx context.Context, imageID string) error

	// CreateVM makes a stopped VM; it returns the present one when the id exists.
	CreateVM(ctx context.Context, spec VMSpec) (VM, error)
	// VM looks a VM up by our id; ErrNotFound if the host has none.
	VM(ctx context.Context, id string) (VM, error)
	// VMs lists all VMs that are ours on this host, whatever store made them.
	VMs(ctx context.Context) ([]VM, error)
	// StartVM starts a VM; a running one is no error.
	StartVM(ctx context.Context, id string) error
	// StopVM stops a VM, by force once the grace period (seconds) is over; a stopped one is no error.
	StopVM(ctx context.Context, id string, graceSeconds int) error
	// DeleteVM removes a VM, running or not, and its disks; one that is gone is no error.
	DeleteVM(ctx context.Context, id string) error
	// ConsoleTail returns the last bytes of the VM's console, at most max.
	ConsoleTail(ctx context.Context, id string, max int) (string, error)

	// Close ends the session with the host.
	Close() error
}

// Image names what EnsureImage provides.
type Image struct {
	ID string
	// Name for people who look at the host.
	Name string
	// SHA256 of the uploaded file, hexadecimal.
	SHA256 string
}

// Payload is an image's parts in a format the driver knows: for LXD, the
// metadata tarball and the squashfs. Closing it closes the parts.
type Payload struct {
	// Parts by format name, e.g. "lxd-metadata", "lxd-squashfs".
	Parts map[string]Part
	Close func() error
}

// Part is one file of a payload.
type Part struct {
	Reader io.Reader
	Size   int64
}

// VMSpec is a VM to make.
type VMSpec struct {
	// ID is ours, a UUID; drivers derive names from it.
	ID string
	// Name is the host name inside, and shown on the host where it allows.
	Name    string
	ImageID string
	// Resources to give: at most so many CPUs and so much memory; Disk is the root disk's size, 0 for the image's own.
	Resources model.Capacity
	Datastore string
	Networks  []model.VMNetwork
	// UserData is a cloud-config document for the datasource of the image.
	UserData []byte
	// Node says that the VM is a cluster node: it runs containers itself and gets what that needs.
	Node bool
	// Owner identifies the installation whose VM this is, for sweeps of orphans.
	Owner string
	// Tags are shown on the host for people, e.g. cluster and role.
	Tags map[string]string
}

// PowerState of a VM on the host.
type PowerState string

// Power states.
const (
	Running PowerState = "running"
	Stopped PowerState = "stopped"
	Other   PowerState = "other" // starting, frozen, failed
)

// VM is a VM as the host has it.
type VM struct {
	ID    string
	Name  string
	Owner string
	Power PowerState
	// Addresses are those the host knows of the VM, without loopback and link-local.
	Addresses []string
}

// Target says how to reach a host.
type Target struct {
	// Address is a name or IP address with optional port, or unix:PATH.
	Address string
	// Fingerprint is the SHA-256 of the host's certificate to insist on; empty accepts
	// the first and Connection tells which it was.
	Fingerprint string
	// Certificate and Key are ours, PEM, for hosts that authenticate clients so.
	Certificate, Key []byte
	Username         string
	// Password is a password, or a trust token the host gave out.
	Password string
	Metadata map[string]string
}

// Connector connects to hosts of one sort.
type Connector interface {
	// Connect authenticates, joining the host's trust with Target.Password where
	// that is needed. It returns the fingerprint of the certificate seen.
	Connect(ctx context.Context, t Target) (d Driver, fingerprint string, err error)
}

// Connectors by driver name: lxd, sim, ….
type Connectors map[string]Connector

// Names returns the drivers' names, sorted.
func (c Connectors) Names() []string { return slices.Sorted(maps.Keys(c)) }
