// Package placement decides which host and datastore a VM goes to.
//
// Hosts are filtered (state, whether they answer, wanted hosts, zones and tags, datastore, network,
// image, capacity, kernel limits). Of those left, the ones with the fewest nodes of the same
// spread label are taken, then those in the zone with the fewest, then the one
// whose smallest free share among memory, CPU and storage is the largest
// with the VM on it, less the price of copying the image where it is missing.
//
// Memory and storage are never overcommitted; CPU is by Policy.CPUOvercommit,
// but no VM gets more CPUs than its host has.
//
// Of a large fleet only a random sample is looked at. A sample without
// a host that fits, or without one as good as any for spreading, is followed by a look at all hosts,
// so that a nearly full fleet never gives a false shortage: a single node, or
// several of the same size and wishes, are refused only when they do not fit.
// Several different nodes are packed greedily, the largest first, and once more as tightly as
// possible when that fails; finding the last possible packing of those is not promised.
//
// The package is pure: no I/O, no clock, no goroutine; chance is the caller's. A Fleet is safe for
// concurrent use: Choose takes a read lock, everything that changes the fleet a
// write lock, for microseconds. A Fleet is a cache of what the store knows. Place reserves in it at once, so
// that callers of one process do not all choose the same room; the store's transaction
// that writes the placement must check the host's capacity itself, and on
// conflict the caller calls Release, Set with what it read, and Place again.
package placement
