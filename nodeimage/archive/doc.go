// Package archive reads and writes node image archives: the one file that
// carries a node image from the builder to a Pleiad server.
//
// An archive is an uncompressed tar. Its first entry is "pleiad-image.json",
// the manifest; after it come the payloads that the manifest lists, in the
// manifest's order, and nothing else. A payload is one image in the format of
// one sort of hypervisor, or a part of one ("lxd-metadata" and "lxd-squashfs"
// together are an LXD image); an archive may carry several formats, so that one
// upload serves hosts of different sorts. The tar is not compressed because
// payloads already are.
//
// The manifest comes first so that a server can refuse an upload after its
// first kilobytes. Payloads are streamed and never held in memory; each is
// checked against the size and the SHA-256 of the manifest, so a truncated or
// altered upload is detected, and what was extracted of it is removed.
//
// The package depends on nothing of the builder's. Its functions keep no state
// and may be called concurrently; one Reader belongs to one goroutine.
package archive
