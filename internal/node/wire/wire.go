// Package wire is what a node's agent and the controller say to each other:
// the paths, the documents and their limits. The plan and the report, which
// travel the same way, are in package plan.
//
// A node speaks HTTPS, outbound only. Register is authorised by the one-time
// token in its body; every other path by the client certificate that
// registration gave out. Errors are answered as model.Error, with the status
// of its code.
//
// The package is pure: plain data, safe to copy.
package wire

// Paths under a controller's URL.
const (
	PathRegister  = "/node/v1/register"  // POST RegisterRequest, answers Credentials
	PathRenew     = "/node/v1/renew"     // POST RenewRequest, answers Credentials
	PathPlan      = "/node/v1/plan"      // GET with QueryHash and QueryWait, answers 200 plan.Plan or 204
	PathReport    = "/node/v1/report"    // POST plan.Report, answers Answer
	PathHeartbeat = "/node/v1/heartbeat" // POST Heartbeat, answers Answer
)

// Query parameters of PathPlan.
const (
	// QueryHash is the hash of the plan the node has; empty while it has none.
	QueryHash = "hash"
	// QueryWait is how long the controller may hold the request while there is
	// no other plan, as a Go duration, e.g. 30s. It may answer 204 sooner.
	QueryWait = "wait"
)

// Limits of bodies, in bytes. A plan's is plan.MaxPlan.
const (
	MaxRequest = 64 << 10 // register, renew, heartbeat
	MaxReport  = 8 << 20  // a report, with outputs and log tails
	MaxAnswer  = 1 << 20  // any answer but a plan, errors included
)

// RegisterRequest asks for a node's first certificate. Repeating it with the
// same key is safe; with another key it is refused.
type RegisterRequest struct {
	Token string `json:"token"`
	// CSR is a PEM certificate request; its common name is the node's id.
	CSR string `json:"csr"`
}

// RenewRequest asks for the next certificate. The client certificate says whose.
type RenewRequest struct {
	CSR string `json:"csr"`
}

// Credentials are a node's client certificate and what it verifies controllers
// by, both PEM. The CA that the node was told to trust must be among CA.
type Credentials struct {
	Certificate string `json:"certificate"`
	CA          string `json:"ca"`
}

// Heartbeat says that a node lives.
type Heartbeat struct {
	NodeID   string `json:"nodeId"`
	PlanHash string `json:"planHash,omitempty"`
	// Uptime of the node, in seconds.
	Uptime int64 `json:"uptime"`
	// Load is the load average over one minute.
	Load float64 `json:"load"`
}

// Answer to a report or a heartbeat.
type Answer struct {
	// HeartbeatSeconds is how often to send heartbeats from now on; 0 changes nothing.
	HeartbeatSeconds int `json:"heartbeatSeconds,omitempty"`
}
