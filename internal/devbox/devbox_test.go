package devbox

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/devbox/process"
)

// TestDownKnowsOfAFailedUp: an Up that failed at its first daemon has told Down
// of all that it might have made.
func TestDownKnowsOfAFailedUp(t *testing.T) {
	var out bytes.Buffer
	// Without a bridge's name, the first daemon is refused before it is made.
	o := Options{Dir: t.TempDir(), Hosts: 2, Address: DefaultAddress, Port: 1, Out: &out}
	if err := Up(t.Context(), o); err == nil || !strings.Contains(err.Error(), "LXD daemon 1") {
		t.Fatalf("up: %v", err)
	}
	for i := range o.Hosts { // as if it had got further
		if err := os.MkdirAll(o.hostDir(i), 0o711); err != nil {
			t.Fatal(err)
		}
	}
	out.Reset()
	if err := Down(t.Context(), o.Dir, &out); err != nil {
		t.Fatal(err)
	}
	if want := "removing LXD daemon 2\nremoving LXD daemon 1\n"; out.String() != want {
		t.Errorf("down says %q, want %q", &out, want)
	}
	if _, err := os.Stat(o.Dir); err == nil {
		t.Error("down left the directory")
	}
}

// TestServerThatStillStarts: an Up that was interrupted while its server started
// has left one that runs, and does not answer yet.
func TestServerThatStillStarts(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := fileSum(exe)
	if err != nil {
		t.Fatal(err)
	}
	running, err := process.Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: t.TempDir(), Exe: exe, Address: netip.MustParsePrefix("127.0.0.1/8"), Out: t.Output()}
	st := state{Server: running, Exe: sum}
	at, giveUp := context.WithCancel(t.Context())
	giveUp()
	if err := o.server(at, &st); err == nil {
		t.Error("a server that does not answer counts as up")
	}
	if err := os.WriteFile(o.readyFile(), []byte("sum"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.server(at, &st); err != nil {
		t.Errorf("a server that answers: %v", err)
	}
}
