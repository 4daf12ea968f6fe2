package sim_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/hypervisor/conformance"
	"github.com/pleiad/pleiad/internal/hypervisor/sim"
	"github.com/pleiad/pleiad/internal/model"
)

func connect(t testing.TB, f *sim.Fleet, name string) hypervisor.Driver {
	t.Helper()
	d, _, err := f.Connect(context.Background(), hypervisor.Target{Address: "sim:" + name})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func open() (hypervisor.Payload, error) {
	const content = "a file system"
	return hypervisor.Payload{Parts: map[string]hypervisor.Part{"sim": {Reader: strings.NewReader(content), Size: int64(len(content))}}}, nil
}

func TestConformance(t *testing.T) {
	fleet := sim.New()
	host := fleet.AddHost("h", sim.DefaultFacts(8, 8<<30, 100<<30))
	conformance.Run(t, func(t *testing.T) conformance.Fixture {
		return conformance.Fixture{
			Driver: connect(t, fleet, "h"), Other: connect(t, fleet, "h"), Open: open, Datastore: "default",
			Network: func(i int) model.VMNetwork {
				return model.VMNetwork{Network: "vmnet", MACAddress: fmt.Sprintf("02:00:00:00:00:%02x", i), IPAddress: fmt.Sprintf("192.0.2.%d", 10+i), Prefix: 24}
			},
			Foreign: func(*testing.T) func(*testing.T) {
				host.AddForeign("somebody")
				return func(t *testing.T) {
					if got := host.Foreign(); !slices.Equal(got, []string{"somebody"}) {
						t.Errorf("not ours: %v", got)
					}
				}
			},
			Images: func(*testing.T) int { return len(host.Images()) },
		}
	})
	if used := host.Used(); used != (model.Capacity{}) {
		t.Errorf("capacity not given back: %+v", used)
	}
}

// box is a fleet of one host with an image.
func box(t *testing.T, fleet *sim.Fleet, facts model.HostFacts) (*sim.Host, hypervisor.Driver) {
	t.Helper()
	h := fleet.AddHost("h", facts)
	d := connect(t, fleet, "h")
	if err := d.EnsureImage(t.Context(), hypervisor.Image{ID: "i"}, open); err != nil {
		t.Fatal(err)
	}
	return h, d
}

func TestConnect(t *testing.T) {
	fleet := sim.New()
	h := fleet.AddHost("h", sim.DefaultFacts(1, 1, 1))
	h.SetPassword("secret")
	for _, c := range []struct {
		name   string
		target hypervisor.Target
		want   model.Code // empty: connects
	}{
		{"right", hypervisor.Target{Address: "sim:h", Password: "secret", Fingerprint: sim.Fingerprint("h")}, ""},
		{"without prefix", hypervisor.Target{Address: "h", Password: "secret"}, ""},
		{"unknown host", hypervisor.Target{Address: "sim:x"}, model.CodeHostUnreachable},
		{"wrong password", hypervisor.Target{Address: "sim:h", Password: "x"}, model.CodeHostUnauthorized},
		{"wrong certificate", hypervisor.Target{Address: "sim:h", Password: "secret", Fingerprint: sim.Fingerprint("x")}, model.CodeHostCertificate},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, fingerprint, err := fleet.Connect(t.Context(), c.target)
			if c.want == "" && (err != nil || fingerprint != sim.Fingerprint("h")) {
				t.Errorf("fingerprint %s, error %v", fingerprint, err)
			}
			if c.want != "" && !errors.Is(err, model.ErrorOf(c.want)) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
	h.SetDown(true)
	if _, _, err := fleet.Connect(t.Context(), hypervisor.Target{Address: "h", Password: "secret"}); !errors.Is(err, model.ErrorOf(model.CodeHostUnreachable)) {
		t.Errorf("a host that is down: %v", err)
	}
}

func TestFaults(t *testing.T) {
	fleet := sim.New()
	lost := errors.New("lost")
	var fail sim.Moment = -1
	var calls []string
	fleet.Hook = func(_ context.Context, c sim.Call, m sim.Moment) error {
		if c.Op != "CreateVM" {
			return nil
		}
		calls = append(calls, fmt.Sprint(c.Host, c.ID, m))
		if m == fail {
			return lost
		}
		return nil
	}
	h, d := box(t, fleet, sim.DefaultFacts(4, 4<<30, 4<<30))
	spec := hypervisor.VMSpec{ID: "v", ImageID: "i"}

	fail = sim.Before
	if _, err := d.CreateVM(t.Context(), spec); !errors.Is(err, lost) || len(h.Specs()) != 0 {
		t.Errorf("failed before: %v, VMs %v", err, h.Specs())
	}
	fail = sim.After
	if _, err := d.CreateVM(t.Context(), spec); !errors.Is(err, lost) || len(h.Specs()) != 1 {
		t.Errorf("answer lost: %v, VMs %v", err, h.Specs())
	}
	fail = -1
	if _, err := d.CreateVM(t.Context(), spec); err != nil || len(h.Specs()) != 1 {
		t.Errorf("again: %v, VMs %v", err, h.Specs())
	}
	if want := []string{"hv0", "hv0", "hv1", "hv0", "hv1"}; !slices.Equal(calls, want) {
		t.Errorf("hook saw %v, want %v", calls, want)
	}

	// A call that takes longer than its context allows ends with it.
	ctx, cancel := context.WithCancel(t.Context())
	fleet.Hook = func(ctx context.Context, _ sim.Call, _ sim.Moment) error { cancel(); <-ctx.Done(); return nil }
	if err := d.DeleteVM(ctx, "v"); !errors.Is(err, context.Canceled) || len(h.Specs()) != 1 {
		t.Errorf("delete, cut off: %v, VMs %v", err, h.Specs())
	}
}

func TestBehindOurBack(t *testing.T) {
	h, d := box(t, sim.New(), sim.DefaultFacts(4, 4<<30, 4<<30))
	ctx := t.Context()
	for _, id := range []string{"a", "b"} {
		if _, err := d.CreateVM(ctx, hypervisor.VMSpec{ID: id, ImageID: "i", Resources: model.Capacity{MilliCPU: 1000}}); err != nil {
			t.Fatal(err)
		}
		if err := d.StartVM(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if h.Used().MilliCPU != 2000 {
		t.Errorf("used %+v", h.Used())
	}
	if !h.PowerOff("a") || !h.Remove("b") || h.Remove("b") || h.PowerOff("b") {
		t.Error("it does not know what it has")
	}
	if v, err := d.VM(ctx, "a"); err != nil || v.Power != hypervisor.Stopped {
		t.Errorf("powered off: %+v, %v", v, err)
	}
	if _, err := d.VM(ctx, "b"); !errors.Is(err, hypervisor.ErrNotFound) || h.Used().MilliCPU != 1000 {
		t.Errorf("removed: %v, used %+v", err, h.Used())
	}
	if err := d.StartVM(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	h.Crash()
	if _, err := d.VMs(ctx); !errors.Is(err, model.ErrorOf(model.CodeHostUnreachable)) {
		t.Errorf("crashed: %v", err)
	}
	h.SetDown(false)
	if v, err := d.VM(ctx, "a"); err != nil || v.Power != hypervisor.Stopped {
		t.Errorf("back after a crash: %+v, %v", v, err)
	}
}

func TestCapacity(t *testing.T) {
	_, d := box(t, sim.New(), sim.DefaultFacts(2, 2<<30, 2<<30))
	one := model.Capacity{MilliCPU: 1000, Memory: 1 << 30, Disk: 1 << 30}
	for i := range 3 {
		_, err := d.CreateVM(t.Context(), hypervisor.VMSpec{ID: fmt.Sprint(i), ImageID: "i", Resources: one})
		if full := i == 2; full != errors.Is(err, model.ErrorOf(model.CodeInsufficientCapacity)) || !full && err != nil {
			t.Errorf("VM %d: %v", i, err)
		}
	}
	if err := d.DeleteVM(t.Context(), "0"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.CreateVM(t.Context(), hypervisor.VMSpec{ID: "2", ImageID: "i", Resources: one}); err != nil {
		t.Errorf("room given back: %v", err)
	}
}

func TestAgent(t *testing.T) {
	fleet := sim.New()
	var mu sync.Mutex
	var events []string
	seen := make(chan string, 10)
	note := func(e string) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
		seen <- e
	}
	fleet.Agent = func(ctx context.Context, host string, spec hypervisor.VMSpec) {
		fleet.Host(host).WriteConsole(spec.ID, "agent speaks\n")
		note("up " + spec.ID)
		<-ctx.Done()
		note("down " + spec.ID)
	}
	_, d := box(t, fleet, sim.DefaultFacts(4, 4<<30, 4<<30))
	ctx := t.Context()
	if _, err := d.CreateVM(ctx, hypervisor.VMSpec{ID: "v", ImageID: "i"}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return d.StartVM(ctx, "v") }, "up v"},
		{func() error { return errors.Join(d.StartVM(ctx, "v"), d.StopVM(ctx, "v", 5)) }, "down v"},
		{func() error { return d.StartVM(ctx, "v") }, "up v"},
		{func() error { return d.DeleteVM(ctx, "v") }, "down v"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := <-seen; got != step.want {
			t.Fatalf("agent: %s, want %s", got, step.want)
		}
	}
	// Close ends what still runs, and waits for it.
	if _, err := d.CreateVM(ctx, hypervisor.VMSpec{ID: "w", ImageID: "i"}); err != nil {
		t.Fatal(err)
	}
	if err := d.StartVM(ctx, "w"); err != nil {
		t.Fatal(err)
	}
	<-seen
	if text, err := d.ConsoleTail(ctx, "w", 100); err != nil || !strings.HasSuffix(text, "agent speaks\n") {
		t.Errorf("console %q, %v", text, err)
	}
	fleet.Close()
	mu.Lock()
	defer mu.Unlock()
	if want := "down w"; events[len(events)-1] != want || len(events) != 6 {
		t.Errorf("events %v", events)
	}
}

// BenchmarkFleet tells what 10,000 hosts with a VM each cost.
func BenchmarkFleet(b *testing.B) {
	const hosts = 10_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		fleet := sim.New()
		facts := sim.DefaultFacts(8, 8<<30, 100<<30)
		for i := range hosts {
			name := fmt.Sprint("h", i)
			fleet.AddHost(name, facts)
			d := connect(b, fleet, name)
			if err := d.EnsureImage(b.Context(), hypervisor.Image{ID: "i"}, open); err != nil {
				b.Fatal(err)
			}
			if _, err := d.CreateVM(b.Context(), hypervisor.VMSpec{ID: name, ImageID: "i"}); err != nil {
				b.Fatal(err)
			}
			if err := d.StartVM(b.Context(), name); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/hosts, "B/host+VM")
		fleet.Close()
	}
}
