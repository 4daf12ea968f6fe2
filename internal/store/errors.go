package store

import (
	"errors"
	"fmt"
	"syscall"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pleiad/pleiad/internal/model"
)

// Errors to compare with errors.Is.
var (
	// ErrNotFound: there is no object with that id or unique key.
	ErrNotFound = errors.New("not found")
	// ErrExists: Create found an object with that id.
	ErrExists = errors.New("exists already")
	// ErrTooLarge: one update reads or writes more than a transaction can carry.
	ErrTooLarge = errors.New("store: too large for one transaction")
	// ErrFenced: the leadership the update was made under is lost; nothing was written.
	ErrFenced = errors.New("store: leadership lost")
	// ErrUnknownOutcome: etcd did not answer in time, so that the update may
	// have been committed or not, wholly. Run it again with the same ids: if it
	// was committed, Create finds its object (ErrExists).
	ErrUnknownOutcome = errors.New("store: outcome unknown")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store: closed")
	// ErrKeyMissing: a value cannot be sealed or opened for lack of its key.
	ErrKeyMissing = errors.New("store: sealing key missing")
	// ErrCorrupt: a value in the store is not what was written there.
	ErrCorrupt = errors.New("store: corrupt value")
)

// TakenError says that a unique key is held by another object.
type TakenError struct {
	Collection string // e.g. "projects"
	Unique     string // name of the unique key in the schema, e.g. "name"
	Key        string // the key itself, as the schema composed it
	Holder     string // id of the object that holds it
}

// Error names the key and its holder.
func (e *TakenError) Error() string {
	return fmt.Sprintf("store: %s: %s %q is taken by %s", e.Collection, e.Unique, e.Key, e.Holder)
}

// storageFull translates the errors that say a disk or a quota is full; it
// returns nil for any other.
func storageFull(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return model.Errorf(model.CodeStorageFull, "the disk of the server's data directory is full").
			Do("free space on it, then start the server again")
	case errors.Is(err, rpctypes.ErrNoSpace), errors.Is(err, rpctypes.ErrGRPCNoSpace):
		return model.Errorf(model.CodeStorageFull, "the store has reached its quota, or etcd's disk is full").
			Do("delete objects, compact and defragment etcd, and disarm its alarm")
	}
	return nil
}

// refused reports whether etcd rejected a request before it could have any effect.
func refused(err error) bool {
	var code codes.Code
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		code = e.Code()
	} else {
		code = status.Code(err)
	}
	switch code {
	case codes.InvalidArgument, codes.ResourceExhausted, codes.PermissionDenied,
		codes.Unauthenticated, codes.FailedPrecondition, codes.Unimplemented:
		return true
	}
	return false
}
