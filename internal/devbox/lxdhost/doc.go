// Package lxdhost brings up an LXD daemon of Pleiad's own on a machine, and
// takes it down again. It is what the development box and the tests use for a
// hypervisor host.
//
// The daemon lives in one directory: its own LXD_DIR, pool, log and state. It
// runs beside any LXD or Incus that the machine has, and needs no systemd: it
// is an ordinary process that survives the command that started it. Up is
// idempotent; Down leaves the machine as it was. What daemons on one machine
// share (lxcfs, kernel settings) is kept in a small register under /run, so that
// the last one to leave puts it back.
//
// Everything Down removes is recognised by the directory or the bridge it
// belongs to, never by a process name alone: it works the same whether the
// daemon is healthy, was killed, or never came up. Up and Down of one directory
// must not run at the same time; those of different directories may. All of it
// needs root.
package lxdhost
