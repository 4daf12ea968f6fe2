// Package e2e tests the whole of Pleiad on real parts: the program itself, run
// as its users run it, two real LXD daemons as hosts, and a real Kubernetes
// cluster on them. It needs root and what `make e2e` installs and builds.
package e2e
