// Package nodeimage builds node images: the root file systems from which
// hypervisors start the nodes of a cluster, with everything a node will run
// already inside, so that nothing is downloaded while a cluster is built.
//
// A recipe (the folder kubernetes, embedded in the binary) names a Debian
// release, Go modules at exact versions with their checksums, files, and the
// container images to preload. Build turns one release of a recipe into one
// file, described in the sub-package archive. It needs a Debian mirror, which
// is the machine's own apt sources or a given one, and a Go module proxy, which
// is whatever "go env" says; neither is recorded in the image.
//
// The stages are: the Debian base, the components (both at once), the node
// (base, binaries, files, and containerd's store with the container images
// imported and unpacked), and the payloads. Each is kept in a cache under a
// hash of its inputs: the recipe's part, the versions of the tools that matter,
// and the content of the stages before it, so that a stage that came out the
// same does not cause later ones to be redone. The agent's binary is put in by
// the last stage only. Debian's packages are taken as they are on the day when
// the base is made; Options.Refresh makes it anew. The cache holds one result
// per stage and release, 2.2 GB in all; Go's own build cache grows by 3 GB.
//
// Building needs root, for file ownership and mounts. One build at a time works
// in a cache: another waits for its lock. Build starts goroutines and child
// processes and has ended all of them when it returns, also when its context is
// cancelled.
package nodeimage
