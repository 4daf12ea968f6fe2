package lxdhost_test

import (
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/pleiad/pleiad/internal/devbox/lxdhost"
)

// TestAdmitBridge runs nft in a network namespace of its own, with the sort of rules that
// Docker, ufw and firewalld leave there.
func TestAdmitBridge(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test, and its namespace with it
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	nft := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("nft", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("nft %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	for _, rule := range []string{
		"add table ip filter",
		"add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
		"add chain ip filter INPUT { type filter hook input priority 0; policy accept; }",
		"add table inet firewalld",
		"add chain inet firewalld filter_INPUT { type filter hook input priority 10; policy accept; }",
		"add rule inet firewalld filter_INPUT tcp dport 22 accept",
		"add rule inet firewalld filter_INPUT reject",
	} {
		nft(strings.Fields(rule)...)
	}
	before := nft("list", "ruleset")
	config := lxdhost.Config{Bridge: "plfw0", CreateBridge: true}
	for range 2 { // the second time must add nothing
		if err := lxdhost.AdmitBridge(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		after := nft("list", "ruleset")
		if n := strings.Count(after, "plfw0\" accept"); n != 3 {
			t.Errorf("%d rules admit the bridge, want 3 (both directions forwarded, input):\n%s", n, after)
		}
		input := after[strings.Index(after, "filter_INPUT"):]
		if strings.Index(input, "plfw0") > strings.Index(input, "reject") {
			t.Errorf("the bridge is refused before it is admitted:\n%s", after)
		}
	}
	// LXD's own chains go with the bridge; those of another network stay.
	nft("add", "table", "inet", "lxd")
	nft("add", "chain", "inet", "lxd", "fwd.plfw0")
	nft("add", "chain", "inet", "lxd", "fwd.other")
	if err := lxdhost.RemoveRules(t.Context(), "plfw0"); err != nil {
		t.Fatal(err)
	}
	if after := nft("list", "ruleset"); strings.Contains(after, "plfw0") || !strings.Contains(after, "fwd.other") {
		t.Errorf("rules left: %s", after)
	}
	nft("delete", "chain", "inet", "lxd", "fwd.other")
	if err := lxdhost.RemoveRules(t.Context(), "plfw0"); err != nil {
		t.Fatal(err)
	}
	if after := nft("list", "ruleset"); after != before {
		t.Errorf("rules were\n%s\nand are\n%s", before, after)
	}
}
