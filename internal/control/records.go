package control

import (
	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/plan"
	"github.com/pleiad/pleiad/internal/store"
)

// Records that only reconcilers and operations use; no route serves them.
var (
	// leases are the addresses in use, by subnet and address.
	leases = store.NewCollection("leases", store.Schema[model.Lease]{
		ID: func(l *model.Lease) string { return l.Key() },
	})

	// hostUsages are the ledgers of the hosts, by host id.
	hostUsages = store.NewCollection("host-usages", store.Schema[model.HostUsage]{
		ID: func(u *model.HostUsage) string { return u.HostID },
	})

	// plans are what the nodes were last told, by VM id. They hold private keys.
	plans = store.NewCollection("plans", store.Schema[plan.Plan]{
		ID: func(p *plan.Plan) string { return p.NodeID },
	})

	// reports are what the nodes last said, by VM id.
	reports = store.NewCollection("reports", store.Schema[plan.Report]{
		ID: func(r *plan.Report) string { return r.NodeID },
	})

	// enrollments are the nodes' registrations, by VM id.
	enrollments = store.NewCollection("enrollments", store.Schema[plan.Enrollment]{
		ID: func(e *plan.Enrollment) string { return e.NodeID },
	})

	// clusterSecrets are what was issued for each cluster, by its id.
	clusterSecrets = store.NewCollection("cluster-secrets", store.Schema[clusterSecret]{
		ID: func(s *clusterSecret) string { return s.ClusterID },
	})
)

// clusterSecret is the keys, certificates and tokens of one cluster.
type clusterSecret struct {
	ClusterID string                 `json:"clusterId"`
	Secrets   map[string]kind.Secret `json:"secrets"`
}
