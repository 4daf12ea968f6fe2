// Package conformance is the suite that every hypervisor driver must pass. It
// holds a driver to the contract of package hypervisor, on a real host where
// there is one: a driver's own test gives it a Fixture and calls Run.
//
// The suite works through one host, one case after the other; each case uses ids
// of its own, so that what one leaves behind shows in the last.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
)

// Fixture is a host to test a driver on.
type Fixture struct {
	// Driver and Other are two sessions with the same host, as two installations
	// (or two replicas of one) would have.
	Driver, Other hypervisor.Driver
	// Open gives an image that boots at once, asks DHCP for an address where the
	// hypervisor reserves them, and prints its user data on the console.
	Open func() (hypervisor.Payload, error)
	// Network is the i-th connection to a network of the host: the MAC and IP addresses are
	// different for each i from 0 to 9.
	Network func(i int) model.VMNetwork
	// Datastore of the host.
	Datastore string
	// Foreign makes things on the host that are not ours, as much like ours as it can,
	// and returns a function that fails the test if one was changed.
	Foreign func(t *testing.T) (unchanged func(t *testing.T))
	// Images counts all images on the host, ours or not.
	Images func(t *testing.T) int
}

const (
	owner   = "installation-a"
	another = "installation-b"
	// patience bounds each case: a driver that hangs fails here, not at go test's own limit.
	patience = 90 * time.Second
)

// suite is one case's view of the fixture.
type suite struct {
	*testing.T
	Fixture
	ctx   context.Context
	image hypervisor.Image
}

// Run runs the suite against one host.
func Run(t *testing.T, newFixture func(t *testing.T) Fixture) {
	f := newFixture(t)
	image := hypervisor.Image{ID: uuid.NewString(), Name: "conformance", SHA256: strings.Repeat("ab", 32)}
	unchanged := f.Foreign(t)
	before := f.Images(t)
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"facts are sane", facts},
		{"a truncated image leaves nothing", imageTruncated},
		{"an image with too many bytes leaves nothing", imageTooLong},
		{"an error of the image's source is passed on", imageSourceFails},
		{"an image in a format of another hypervisor is refused", imageOfAnother},
		{"an image asked for many times at once is uploaded once", imageConcurrent},
		{"an image that is there is not opened", imageThere},
		{"two images of the same content live and go on their own", imageTwins},
		{"creating twice gives the same VM, stopped", createTwice},
		{"creating many times at once gives one VM", createConcurrent},
		{"what cannot be created leaves nothing", createRefused},
		{"an id of another installation is refused", createOfAnother},
		{"what is missing is not found, and deleting it is no error", missing},
		{"starting and stopping is idempotent from any state", startStop},
		{"a VM that heeds a shutdown stops within its grace", stopGracefully},
		{"deleting works from any state, any number of times", deleteAny},
		{"deleting while creating ends with nothing or a whole VM", deleteWhileCreating},
		{"a cluster node is created, started and deleted", node},
		{"lists show ours, of all installations, and nobody else's", lists},
		{"user data is seen inside, addresses are as given, the console tells", inside},
		{"contexts end every call", contexts},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c.test(&suite{T: t, Fixture: f, ctx: ctx, image: image})
		})
	}
	t.Run("nothing is left, and what is not ours is as it was", func(t *testing.T) {
		s := &suite{T: t, Fixture: f, ctx: t.Context(), image: image}
		s.ok(s.Driver.DeleteImage(s.ctx, image.ID), "delete the image")
		s.ok(s.Driver.DeleteImage(s.ctx, image.ID), "delete the image again")
		vms, err := s.Driver.VMs(s.ctx)
		s.ok(err, "list")
		if len(vms) != 0 {
			s.Errorf("VMs left: %+v", vms)
		}
		if n := f.Images(t); n != before {
			s.Errorf("the host has %d images, at the start %d", n, before)
		}
		unchanged(t)
	})
}

// ok fails the test at once on an error.
func (s *suite) ok(err error, what string) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

// code demands a *model.Error with that code.
func (s *suite) code(err error, code model.Code, what string) {
	s.Helper()
	if !errors.Is(err, model.ErrorOf(code)) {
		s.Fatalf("%s: error %v, want code %s", what, err, code)
	}
}

// notFound demands ErrNotFound.
func (s *suite) notFound(err error, what string) {
	s.Helper()
	if !errors.Is(err, hypervisor.ErrNotFound) {
		s.Fatalf("%s: error %v, want ErrNotFound", what, err)
	}
}

func (s *suite) ensureImage() {
	s.Helper()
	s.ok(s.Driver.EnsureImage(s.ctx, s.image, s.Open), "ensure the image")
}

// spec is a small VM with an id of its own.
func (s *suite) spec(name string) hypervisor.VMSpec {
	return hypervisor.VMSpec{
		ID: uuid.NewString(), Name: name, ImageID: s.image.ID, Owner: owner,
		Resources: model.Capacity{MilliCPU: 500, Memory: 64 << 20, Disk: 256 << 20},
		Datastore: s.Datastore,
		Networks:  []model.VMNetwork{s.Network(0)},
		UserData:  []byte("#cloud-config\n# of " + name + "\n"),
		Tags:      map[string]string{"cluster": "demo", "role": "worker"},
	}
}

// create makes a VM that is deleted when the case ends.
func (s *suite) create(spec hypervisor.VMSpec) hypervisor.VM {
	s.Helper()
	s.ensureImage()
	s.cleanUp(spec.ID)
	vm, err := s.Driver.CreateVM(s.ctx, spec)
	s.ok(err, "create "+spec.Name)
	return vm
}

func (s *suite) cleanUp(id string) {
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), patience)
		defer cancel()
		if err := s.Driver.DeleteVM(ctx, id); err != nil {
			s.Errorf("clean up %s: %v", id, err)
		}
	})
}

func (s *suite) power(id string, want hypervisor.PowerState) {
	s.Helper()
	vm, err := s.Driver.VM(s.ctx, id)
	s.ok(err, "look up "+id)
	if vm.Power != want {
		s.Fatalf("VM is %s, want %s", vm.Power, want)
	}
}

func (s *suite) listed(id string) bool {
	s.Helper()
	vms, err := s.Driver.VMs(s.ctx)
	s.ok(err, "list")
	return slices.ContainsFunc(vms, func(v hypervisor.VM) bool { return v.ID == id })
}

// eventually asks until cond holds; the host's work cannot be awaited by any event of the contract.
func (s *suite) eventually(what string, cond func() bool) {
	s.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-s.ctx.Done():
			s.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// atOnce calls f n times at once and returns the errors.
func atOnce(n int, f func() error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errs
}

func facts(s *suite) {
	f, err := s.Driver.Facts(s.ctx)
	s.ok(err, "facts")
	if f.Hypervisor == "" {
		s.Error("no name of the hypervisor")
	}
	if c := f.Capacity; c.MilliCPU < 100 || c.Memory < 64<<20 || c.Disk < 64<<20 {
		s.Errorf("capacity %+v cannot be true", c)
	}
	if !slices.Contains(f.Networks, s.Network(0).Network) {
		s.Errorf("network %s is not among %v", s.Network(0).Network, f.Networks)
	}
	i := slices.IndexFunc(f.Datastores, func(d model.HostDatastore) bool { return d.Name == s.Datastore })
	if i < 0 {
		s.Fatalf("datastore %s is not among %+v", s.Datastore, f.Datastores)
	}
	if d := f.Datastores[i]; d.Type == "" || d.Capacity <= 0 || d.Free < 0 || d.Free > d.Capacity {
		s.Errorf("datastore %+v cannot be true", d)
	}
	for key, n := range f.Limits {
		if n <= 0 {
			s.Errorf("limit %s is %d", key, n)
		}
	}
}

func missing(s *suite) {
	id := uuid.NewString()
	_, err := s.Driver.VM(s.ctx, id)
	s.notFound(err, "look up")
	s.notFound(s.Driver.StartVM(s.ctx, id), "start")
	s.notFound(s.Driver.StopVM(s.ctx, id, 0), "stop")
	s.notFound(s.Driver.StopVM(s.ctx, id, 1), "stop with grace")
	_, err = s.Driver.ConsoleTail(s.ctx, id, 100)
	s.notFound(err, "console")
	s.ok(s.Driver.DeleteVM(s.ctx, id), "delete")
	s.ok(s.Driver.DeleteImage(s.ctx, id), "delete image")
}

func contexts(s *suite) {
	s.ensureImage()
	spec := s.spec("late")
	s.cleanUp(spec.ID)
	over, cancel := context.WithCancel(s.ctx)
	cancel()
	unknown := hypervisor.Image{ID: uuid.NewString(), SHA256: strings.Repeat("cd", 32)}
	for name, call := range map[string]func(context.Context) error{
		"Facts":       func(ctx context.Context) error { _, err := s.Driver.Facts(ctx); return err },
		"EnsureImage": func(ctx context.Context) error { return s.Driver.EnsureImage(ctx, unknown, s.Open) },
		"DeleteImage": func(ctx context.Context) error { return s.Driver.DeleteImage(ctx, unknown.ID) },
		"CreateVM":    func(ctx context.Context) error { _, err := s.Driver.CreateVM(ctx, spec); return err },
		"VM":          func(ctx context.Context) error { _, err := s.Driver.VM(ctx, spec.ID); return err },
		"VMs":         func(ctx context.Context) error { _, err := s.Driver.VMs(ctx); return err },
		"StartVM":     func(ctx context.Context) error { return s.Driver.StartVM(ctx, spec.ID) },
		"StopVM":      func(ctx context.Context) error { return s.Driver.StopVM(ctx, spec.ID, 5) },
		"DeleteVM":    func(ctx context.Context) error { return s.Driver.DeleteVM(ctx, spec.ID) },
		"ConsoleTail": func(ctx context.Context) error { _, err := s.Driver.ConsoleTail(ctx, spec.ID, 10); return err },
	} {
		start := time.Now()
		if err := call(over); !errors.Is(err, context.Canceled) {
			s.Errorf("%s with an ended context: error %v, want context.Canceled", name, err)
		}
		if took := time.Since(start); took > 2*time.Second {
			s.Errorf("%s with an ended context took %s", name, took)
		}
		passed, cancel := context.WithDeadline(s.ctx, time.Now().Add(-time.Second))
		if err := call(passed); !errors.Is(err, context.DeadlineExceeded) {
			s.Errorf("%s with a passed deadline: error %v, want context.DeadlineExceeded", name, err)
		}
		cancel()
	}
	if s.listed(spec.ID) {
		s.Error("a call with an ended context made a VM")
	}
	// One that ends in the middle of the work is heeded as well, and can be done again.
	long := s.spec("cut-off")
	s.cleanUp(long.ID)
	half, cancelHalf := context.WithTimeout(s.ctx, 15*time.Millisecond)
	defer cancelHalf()
	if _, err := s.Driver.CreateVM(half, long); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		s.Errorf("create, cut off: %v", err)
	}
	vm, err := s.Driver.CreateVM(s.ctx, long)
	s.ok(err, "create again")
	if vm.ID != long.ID || vm.Power != hypervisor.Stopped {
		s.Errorf("created again: %+v", vm)
	}
	s.ok(s.Driver.StartVM(s.ctx, long.ID), "start what was created again")
}

func lists(s *suite) {
	a, b := s.spec("of-a"), s.spec("of-b")
	b.Owner, b.Networks = another, []model.VMNetwork{s.Network(1)}
	s.create(a)
	s.create(b)
	// Each installation sees both, and whose they are.
	for name, d := range map[string]hypervisor.Driver{"Driver": s.Driver, "Other": s.Other} {
		vms, err := d.VMs(s.ctx)
		s.ok(err, "list")
		got := map[string]string{}
		for _, v := range vms {
			got[v.ID] = v.Owner + " " + v.Name + " " + fmt.Sprint(v.Power)
		}
		want := map[string]string{a.ID: owner + " of-a stopped", b.ID: another + " of-b stopped"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			s.Errorf("%s lists %v, want %v", name, got, want)
		}
	}
	s.ok(s.Other.DeleteVM(s.ctx, b.ID), "delete the other's")
	if s.listed(b.ID) || !s.listed(a.ID) {
		s.Error("deleting one installation's VM did not take that one alone")
	}
}
