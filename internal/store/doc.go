// Package store keeps Pleiad's objects in etcd: embedded in the process by
// default, or an external cluster by endpoints. Everything above the etcd
// client is one code path.
//
// # Objects
//
// A [Collection] is declared once, as a package-level value, for one type. It
// says how an object's id is found, which names are unique and by what the
// objects are listed. Values are JSON, each sealed with AES-256-GCM (see
// [Sealer]) and marked with its schema's version. Ids order the lists, so ids
// that grow with time (UUIDv7) give lists in order of creation.
//
// # Reads
//
// A Store keeps a full, indexed copy of the objects in memory, kept up by a
// watch; it is always the state of the store at one revision. Reads with a
// *Store come from it and cost no I/O. What they return is shared: it must not
// be changed. Another replica's write is seen a moment later; [Store.WaitFor]
// waits for a given one.
//
// # Writes
//
// [Store.Update] runs a function over a [Tx] and commits everything it wrote in
// one etcd transaction, on condition that nothing it read has changed since:
// objects, absent ids, free names, and the membership of the lists it read. A
// list is protected as a whole, by a version key per collection, index and
// bucket of values, which each change of membership rewrites: a parent deleted
// after Count said that it has no children, and a child created at the same
// time, cannot both succeed, provided that the child's creation reads the
// parent with its Tx. On conflict the function runs again. A refusal (the
// function's own error) is validated in the same way before it is returned.
//
// Updates of one group commit together: one transaction carries all that wait.
// Use one group for the writers of a contended object, e.g. the tenant whose
// quota they take from.
//
// # Keys in etcd
//
// Under the prefix: o/<collection>/<id> holds an object, sealed;
// u/<collection>/<unique>/<key> the id that holds a unique key;
// g/<collection>/[<index>/<bucket>] is the version key of lists;
// l/<name>/<lease> a candidate for leadership; seal tells whether the sealing
// key is the right one. Keys are in clear.
//
// # Concurrency
//
// All methods of Store and Collection may be called from many goroutines. A Tx
// belongs to the call of the function it is given to.
package store
