package control

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/imagefile"
	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/pki"
	"github.com/pleiad/pleiad/internal/placement"
	"github.com/pleiad/pleiad/internal/store"
)

// Config is what a Controller needs of the world.
type Config struct {
	Store      *store.Store
	Kinds      kind.Registry
	Connectors hypervisor.Connectors
	Images     *imagefile.Store
	Identity   *Identity
	// NodeEndpoints are the URLs at which nodes reach this server.
	NodeEndpoints []string
	// Replica names this process among those that share the store.
	Replica string
	Logger  *slog.Logger
	// Clock is the time; nil means time.Now.
	Clock func() time.Time
	// Workers is how many objects of each noun are reconciled at once; 0 means 32.
	// They wait for hosts most of the time, so it is not a matter of cores.
	Workers int
}

// Identity is the installation's own keys, the same in every replica.
type Identity struct {
	// ID of the installation; everything it makes on hosts is tagged with it.
	ID string
	// CA signs the server's certificate and those of nodes.
	CA *pki.Authority
	// HostCertificate and HostKey are what we show to hypervisors, PEM.
	HostCertificate, HostKey []byte
	// Tokens signs and verifies tokens of users and nodes.
	Tokens *pki.Tokens
}

// Controller carries out what users ask for. See the package comment.
type Controller struct {
	Config
	log     *slog.Logger
	hosts   *hostPool
	nodes   *nodeTracker
	cursors cursors
	claims  claims

	fleetMu sync.Mutex // held while the fleet is told of a host
	fleet   *placement.Fleet
}

// New makes a controller; Run starts its reconcilers.
func New(cfg Config) *Controller {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Workers == 0 {
		cfg.Workers = 32
	}
	return &Controller{
		Config: cfg, log: cfg.Logger,
		hosts:   newHostPool(cfg.Connectors),
		cursors: cursors{at: map[string]netip.Addr{}},
		claims:  claims{ended: make(chan struct{})},
		nodes:   newNodeTracker(cfg.Clock().UnixMilli()),
		fleet:   placement.NewFleet(placement.DefaultPolicy),
	}
}

func (c *Controller) now() int64 { return c.Clock().UnixMilli() }
