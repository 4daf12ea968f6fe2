#!/bin/sh
# Turns the fresh Debian system at $1 into the base of a node: it boots fast,
# in a container as in a machine, and holds nothing of the machine it was made
# on. Runs on the machine that builds, as mmdebstrap's last hook.
set -eu
root=$1
unit=$root/etc/systemd/system

# The agent writes the network's configuration when the node boots.
chroot "$root" systemctl --quiet enable systemd-networkd.service systemd-resolved.service
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

# Not a node's business, or not possible in a container, or slow.
for name in \
	apt-daily.service apt-daily.timer apt-daily-upgrade.service apt-daily-upgrade.timer \
	dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer logrotate.timer motd-news.timer \
	man-db.timer getty@tty1.service getty-static.service systemd-logind.service systemd-networkd-wait-online.service systemd-binfmt.service \
	proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount systemd-modules-load.service \
	dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
	sys-fs-fuse-connections.mount systemd-firstboot.service systemd-pstore.service systemd-timesyncd.service \
	systemd-update-utmp.service systemd-update-utmp-runlevel.service ldconfig.service systemd-hwdb-update.service \
	systemd-journal-catalog-update.service systemd-update-done.service \
	modprobe@.service systemd-network-generator.service; do
	ln -sf /dev/null "$unit/$name"
done
# These start when a node's plan says so.
chroot "$root" systemctl --quiet disable keepalived.service nftables.service

# The image starts as nobody in particular; the first boot makes it somebody.
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/etc/hostname" "$root"/etc/ssh/ssh_host_*
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
: >"$root/etc/fstab"

# Nothing of the mirror or of the build stays.
rm -rf "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/* "$root/etc/apt/apt.conf.d/99mmdebstrap" \
	"$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old \
	"$root"/var/cache/ldconfig/aux-cache "$root"/var/log/*.log "$root"/var/log/apt "$root"/usr/share/doc/* \
	"$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/* "$root"/usr/share/lintian
mkdir -p "$root/var/log/journal"
