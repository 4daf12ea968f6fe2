package api

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/plan"
)

// Operations carries out what users ask for. Each answers the task that was
// recorded for it; an error that users can act on is a *model.Error. Specs come
// with their shape checked and their meaning unchecked. The caller is found
// with PrincipalFrom.
type Operations interface {
	CreateTenant(ctx context.Context, spec model.TenantCreateSpec) (*model.Task, error)
	DeleteTenant(ctx context.Context, id string) (*model.Task, error)
	CreateResourceTicket(ctx context.Context, tenantID string, spec model.ResourceTicketCreateSpec) (*model.Task, error)
	DeleteResourceTicket(ctx context.Context, id string) (*model.Task, error)
	CreateProject(ctx context.Context, tenantID string, spec model.ProjectCreateSpec) (*model.Task, error)
	DeleteProject(ctx context.Context, id string) (*model.Task, error)

	CreateFlavor(ctx context.Context, spec model.FlavorCreateSpec) (*model.Task, error)
	DeleteFlavor(ctx context.Context, id string) (*model.Task, error)
	// CreateImage reads body to its end before it answers. A read error means
	// that the upload was cut off: nothing of it may be left.
	CreateImage(ctx context.Context, name, replicationType string, body io.Reader) (*model.Task, error)
	DeleteImage(ctx context.Context, id string) (*model.Task, error)
	CreateZone(ctx context.Context, spec model.ZoneCreateSpec) (*model.Task, error)
	DeleteZone(ctx context.Context, id string) (*model.Task, error)
	CreateHost(ctx context.Context, spec model.HostCreateSpec) (*model.Task, error)
	DeleteHost(ctx context.Context, id string) (*model.Task, error)
	CreateSubnet(ctx context.Context, spec model.SubnetCreateSpec) (*model.Task, error)
	DeleteSubnet(ctx context.Context, id string) (*model.Task, error)
	SetDefaultSubnet(ctx context.Context, id string) (*model.Task, error)

	EnableClusterType(ctx context.Context, spec model.ClusterConfigurationSpec) (*model.Task, error)
	DisableClusterType(ctx context.Context, spec model.ClusterConfigurationSpec) (*model.Task, error)
	CreateCluster(ctx context.Context, projectID string, spec model.ClusterCreateSpec) (*model.Task, error)
	ResizeCluster(ctx context.Context, id string, op model.ClusterResizeOperation) (*model.Task, error)
	DeleteCluster(ctx context.Context, id string) (*model.Task, error)
	// Access returns a file with which a user reaches a cluster, e.g.
	// "kubeconfig"; an error while the cluster cannot be reached yet.
	Access(ctx context.Context, clusterID, file string) ([]byte, error)

	// WatchTask calls changed with the task as it is, and again whenever it
	// has changed, from one goroutine. It returns nil after the task's end,
	// changed's error, or ctx's.
	WatchTask(ctx context.Context, id string, changed func(model.Task) error) error
	// Status tells how the system's parts are.
	Status(ctx context.Context) (model.SystemStatus, error)
}

// ErrNotFound is what a Source's Get wraps when there is no such object.
var ErrNotFound = errors.New("not found")

// Source is where the objects of one type are read from; see Stored. What it
// returns may be shared: it is not changed here.
type Source[T any] interface {
	// Get's error wraps ErrNotFound if there is no such object.
	Get(ctx context.Context, id string) (*T, error)
	// List returns the objects that match, in order of their ids.
	List(ctx context.Context, q Query) ([]*T, error)
	// Count returns how many objects there are.
	Count(ctx context.Context) (int, error)
	// Indexed reports whether Query.Index may be this field.
	Indexed(field string) bool
}

// Query selects objects.
type Query struct {
	// Index is a field, as list filters name it (e.g. tenantId), and Value what
	// it must be; both are empty for all objects.
	Index, Value string
	After        string // only ids after this one
	Limit        int    // at most so many, over 0
}

// Sources are where each noun is read from.
type Sources struct {
	Tenants         Source[model.Tenant]
	ResourceTickets Source[model.ResourceTicket]
	Projects        Source[model.Project]
	Flavors         Source[model.Flavor]
	Images          Source[model.Image]
	Zones           Source[model.Zone]
	Hosts           Source[model.Host]
	Datastores      Source[model.Datastore]
	Orphans         Source[model.Orphan]
	Subnets         Source[model.Subnet]
	Deployments     Source[model.Deployment]
	VMs             Source[model.VM]
	Clusters        Source[model.Cluster]
	Tasks           Source[model.Task]
}

// Principal is who sent a request.
type Principal struct {
	// Subject is the user's name.
	Subject string
	// Groups the user is in.
	Groups []string
	// Admin may do everything.
	Admin bool
	// Expires is when the token ends that the request came with.
	Expires time.Time
}

// Authenticator knows tokens.
type Authenticator interface {
	// Authenticate returns whose token it is. The error is a *model.Error with
	// code InvalidAuthToken or ExpiredAuthToken for one that is not good.
	Authenticate(ctx context.Context, token string) (Principal, error)
	// IssueToken makes an access token for spec.Subject, which is never empty.
	// That the caller may have it has been checked. One for the caller's own
	// subject ends with caller.Expires at the latest.
	IssueToken(ctx context.Context, caller Principal, spec model.TokenCreateSpec) (model.Token, error)
}

// Nodes serves the agents. Where a node id is given, a client certificate said so.
type Nodes interface {
	// Register checks the one-time token and answers the node's certificate and
	// the CAs it verifies controllers by, PEM.
	Register(ctx context.Context, token string, csrPEM []byte) (certificatePEM, caPEM []byte, err error)
	// Renew answers the node's next certificate.
	Renew(ctx context.Context, nodeID string, csrPEM []byte) (certificatePEM, caPEM []byte, err error)
	// Plan returns the node's plan, waiting up to wait for one whose hash is
	// not hash; nil if there is none by then.
	Plan(ctx context.Context, nodeID, hash string, wait time.Duration) (*plan.Plan, error)
	Report(ctx context.Context, nodeID string, report plan.Report) error
	Heartbeat(ctx context.Context, nodeID string) error
}

type principalKey struct{}

// PrincipalFrom returns who sent the request whose context this is; ok is false
// on a public route.
func PrincipalFrom(ctx context.Context) (p Principal, ok bool) {
	p, ok = ctx.Value(principalKey{}).(Principal)
	return p, ok
}

// WithPrincipal returns a context that carries p, for callers of Operations
// that are not the API.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}
