// Package node is the agent inside a node: it finds out who it is, sets the
// network, registers with a controller, and from then on makes the node what
// its plan says and tells how far it is.
//
// Run is all of it. Its parts, in the order of a node's life:
//
//   - source.go reads the Bootstrap document from where the hypervisor left it,
//     without waiting for cloud-init;
//   - network.go gives the machine its name and addresses;
//   - identity.go and client.go register it and speak mTLS to the controllers,
//     outbound only;
//   - applier.go decides, as a pure state machine, which step of the plan is
//     next; engine.go carries that out through executor.go, with every beginning
//     and end of a step on disk before anything follows from it (state.go);
//   - loops.go waits for plans and sends reports and heartbeats.
//
// A step is run at most once for each content, except that one that was cut off
// or failed is run again. What the agent knows lies in /var/lib/pleiad (0700);
// it may be killed at any time. Child processes do not outlive it: it stops
// their process groups when it ends, and the systemd unit must keep
// KillMode=control-group for when it is killed.
//
// Nothing here logs file contents, tokens, standard input, environments or
// outputs of commands. Time is the time package's; tests run the whole agent in
// a testing/synctest bubble.
//
// Concurrency: Run owns every goroutine it starts and returns when all have
// ended. A Client may be used by several goroutines; all else is Run's own.
package node
