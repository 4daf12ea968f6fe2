package model

// Orphan is a VM of ours that is still on a host, or may be, and that nothing
// else knows: one that could not be deleted when it was to go, or one that a
// sweep found. Its id is the VM's. It is removed as soon as its host allows.
type Orphan struct {
	Meta
	HostID string `json:"hostId"`
	Host   string `json:"host" doc:"Address of the host."`
	Cause  string `json:"cause" doc:"NOT_DELETED: its host did not let it be deleted. UNKNOWN: it has our tag, and nothing in the store says what it is."`
	// Since is when it became an orphan, RemoveAfter when it may be removed:
	// milliseconds since the Unix epoch.
	Since       int64  `json:"since"`
	RemoveAfter int64  `json:"removeAfter"`
	Error       *Error `json:"error,omitempty" doc:"Why it could not be removed when that was last tried."`
	// VM is what was known of it; what it had reserved of the host and its
	// addresses are not given to others while it may still be there.
	VM *VM `json:"vm,omitempty"`
}

// Causes of orphans.
const (
	OrphanNotDeleted = "NOT_DELETED"
	OrphanUnknown    = "UNKNOWN"
)
