// Package lxd is the hypervisor driver for LXD and Incus: VMs are system containers.
//
// It speaks to one daemon, over its unix socket or over HTTPS with a client
// certificate. The certificate of the daemon is pinned by its SHA-256; ours
// joins the daemon's trust with a trust token or password, once.
//
// What is ours on a host:
//   - an instance is named pleiad-ID and carries the keys user.pleiad.*: id,
//     name, owner, address, made, and tag.* for people. One of that name without the
//     key user.pleiad.id is somebody else's, and is neither listed nor touched;
//   - an image has an alias pleiad-ID for each image of ours with that content,
//     and, where we uploaded it, the property pleiad.image.
//
// User data is in the key cloud-init.user-data. Inside the VM it is read without
// any network from the socket /dev/lxd/sock (Incus: /dev/incus/sock), by
// GET /1.0/config/cloud-init.user-data; cloud-init's LXD datasource finds it as well.
//
// Instances use no profile: what they have is what the driver gives them.
//
// A Driver is safe for concurrent use. It holds one pool of connections and, for
// each VM whose console was asked for, the last 64 KiB seen: LXD hands the console of
// a running container out only once.
package lxd
