package control

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// creators make an object of each noun by a name of the caller's choice.
func (w *world) creators(s *server) map[string]func(name string) (*model.Task, error) {
	ctx := context.Background()
	image := nodeImage(w.t)
	return map[string]func(string) (*model.Task, error){
		"tenant": func(n string) (*model.Task, error) { return s.CreateTenant(ctx, model.TenantCreateSpec{Name: n}) },
		"ticket": func(n string) (*model.Task, error) {
			return s.CreateResourceTicket(ctx, w.tenant, model.ResourceTicketCreateSpec{Name: n, Limits: memory(1)})
		},
		"project": func(n string) (*model.Task, error) {
			return s.CreateProject(ctx, w.tenant, model.ProjectCreateSpec{Name: n,
				ResourceTicket: model.ResourceTicketReservation{Name: "silver", Limits: memory(1)}})
		},
		"flavor": func(n string) (*model.Task, error) { return s.CreateFlavor(ctx, vmFlavor(n, 1)) },
		"subnet": func(n string) (*model.Task, error) {
			return s.CreateSubnet(ctx, model.SubnetCreateSpec{Name: n, PortGroups: []string{"vmnet"}})
		},
		"zone": func(n string) (*model.Task, error) { return s.CreateZone(ctx, model.ZoneCreateSpec{Name: n}) },
		"image": func(n string) (*model.Task, error) {
			return s.CreateImage(ctx, n, "ON_DEMAND", bytes.NewReader(image))
		},
	}
}

// silver makes a second ticket, of which nothing is reserved.
func (w *world) silver(s *server, gb float64) string {
	w.t.Helper()
	return w.done(s.CreateResourceTicket(context.Background(), w.tenant, model.ResourceTicketCreateSpec{Name: "silver", Limits: memory(gb)}))
}

func (w *world) ticketUsage(id string) string {
	w.t.Helper()
	t, err := store.ResourceTickets.Get(w.store, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return parse(w, t.Usage).String()
}

func TestBadNames(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(10), "h1")
	w.silver(s, 4)
	before, tasks := w.dump(), w.tasks()
	for noun, create := range w.creators(s) {
		for _, name := range []string{"", "-a", "a b", "a/b", "../a", "ä", "a\n", strings.Repeat("a", model.NameLimit+1)} {
			_, err := create(name)
			if e := model.AsError(err); e.Code != model.CodeInvalidEntity || !strings.Contains(e.Message, "name must be 1 to") {
				t.Errorf("%s %q: %v", noun, name, err)
			}
		}
	}
	same(t, before, w.dump())
	if n := w.tasks(); n != tasks {
		t.Errorf("%d tasks more than before", n-tasks)
	}
	for _, create := range w.creators(s) { // it was for the names
		w.done(create(strings.Repeat("a", model.NameLimit)))
	}
}

// One name, asked for by many at once, is given to exactly one of each noun.
func TestNamesAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(10), "h1")
	ticket := w.silver(s, 32)
	for noun, create := range w.creators(s) {
		t.Run(noun, func(t *testing.T) {
			before := w.dump()
			var wg sync.WaitGroup
			var won atomic.Pointer[model.Task]
			for range 16 {
				wg.Go(func() {
					task, err := create("demo")
					switch {
					case err == nil && !won.CompareAndSwap(nil, task):
						t.Error("two have one name")
					case err != nil && !errors.Is(err, model.ErrorOf(model.CodeNameTaken)):
						t.Errorf("refused with %v", err)
					}
				})
			}
			wg.Wait()
			if won.Load() == nil {
				t.Fatal("nobody got the name")
			}
			w.done(won.Load(), nil)
			after := w.dump()
			maps.DeleteFunc(after, func(k, _ string) bool { _, ok := before[k]; return ok })
			if len(after) != 1 {
				t.Errorf("there are %d more objects", len(after))
			}
		})
	}
	w.audit()
	if got := w.ticketUsage(ticket); got != "vm.memory 1 GB" {
		t.Errorf("the ticket has given %s", got)
	}
}

// What a request names must be there.
func TestUnknownIDs(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(10), "h1")
	ctx := context.Background()
	project := func(ticket string) model.ProjectCreateSpec {
		return model.ProjectCreateSpec{Name: "demo", ResourceTicket: model.ResourceTicketReservation{Name: ticket, Limits: memory(1)}}
	}
	before, tasks := w.dump(), w.tasks()
	for name, c := range map[string]struct {
		do   func() (*model.Task, error)
		code model.Code
	}{
		"project of no tenant": {func() (*model.Task, error) { return s.CreateProject(ctx, "nothing", project("gold")) }, model.CodeTenantNotFound},
		"ticket of no tenant": {func() (*model.Task, error) {
			return s.CreateResourceTicket(ctx, "nothing", model.ResourceTicketCreateSpec{Name: "demo", Limits: memory(1)})
		}, model.CodeTenantNotFound},
		"project of no ticket": {func() (*model.Task, error) { return s.CreateProject(ctx, w.tenant, project("nothing")) }, model.CodeResourceTicketNotFound},
		"type with no image": {func() (*model.Task, error) {
			return s.EnableClusterType(ctx, model.ClusterConfigurationSpec{Type: "KUBERNETES", ImageID: "nothing"})
		}, model.CodeImageNotFound},
		"default of no subnet": {func() (*model.Task, error) { return s.SetDefaultSubnet(ctx, "nothing") }, model.CodeNetworkNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.do()
			if e := refused(t, err, c.code); e.Data["id"] != "nothing" || !strings.Contains(e.Message, `"nothing"`) {
				t.Errorf("%v, data %v", e, e.Data)
			}
			same(t, before, w.dump())
			if n := w.tasks(); n != tasks {
				t.Errorf("%d tasks more than before", n-tasks)
			}
		})
	}
}

// A project takes its limits from its ticket, no more than are left, and returns them.
func TestProjectsShareTicket(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	w.setUp(s, memory(10), "h1")
	ticket := w.silver(s, 4)
	create := func(name string, gb float64) (*model.Task, error) {
		return s.CreateProject(context.Background(), w.tenant, model.ProjectCreateSpec{Name: name,
			ResourceTicket: model.ResourceTicketReservation{Name: "silver", Limits: memory(gb)}})
	}
	first := w.done(create("first", 3))
	before := w.dump()
	_, err := create("second", 2)
	e := refused(t, err, model.CodeQuotaError)
	for k, v := range map[string]string{"key": "vm.memory", "limit": "4 GB", "usage": "3 GB", "newUsage": "5 GB"} {
		if e.Data[k] != v {
			t.Errorf("data %s is %q, want %q", k, e.Data[k], v)
		}
	}
	for _, part := range []string{"vm.memory", "limit 4 GB", "usage 3 GB", "request 2 GB"} {
		if !strings.Contains(e.Message, part) {
			t.Errorf("%q does not say %q", e.Message, part)
		}
	}
	same(t, before, w.dump())
	w.done(create("rest", 1))
	w.audit()
	if got := w.ticketUsage(ticket); got != "vm.memory 4 GB" {
		t.Errorf("the ticket has given %s", got)
	}
	w.done(s.DeleteProject(context.Background(), first))
	w.audit()
	if got := w.ticketUsage(ticket); got != "vm.memory 1 GB" {
		t.Errorf("the ticket has given %s", got)
	}
	w.done(create("second", 2))
	w.audit()
}

// Several versions coexist: a cluster is made of the image that carries the one
// asked for, and of the type's own when none is.
func TestVersionChoosesImage(t *testing.T) {
	w := newWorld(t, nil)
	s := w.start()
	ctx := context.Background()
	w.setUp(s, memory(10), "h1")
	const newer = "v9.9.0"
	second := w.done(s.CreateImage(ctx, "newer", "EAGER", bytes.NewReader(nodeImage(t))))
	w.update(func(tx *store.Tx) error {
		img, err := store.Images.Get(tx, second)
		if err != nil {
			return err
		}
		img.Node.Version = newer
		for name, ref := range img.Node.ContainerImages {
			img.Node.ContainerImages[name] = strings.Replace(ref, version, newer, 1)
		}
		return store.Images.Put(tx, img)
	})
	for name, c := range map[string]struct{ asked, version, image string }{
		"none":  {"", version, w.image},
		"older": {version, version, w.image},
		"newer": {newer, newer, second},
	} {
		t.Run(name, func(t *testing.T) {
			spec := clusterSpec(name, 0)
			spec.Version = c.asked
			cl, err := store.Clusters.Get(w.store, w.done(s.CreateCluster(ctx, w.project, spec)))
			if err != nil {
				t.Fatal(err)
			}
			if cl.ImageID != c.image || cl.Version != c.version {
				t.Errorf("the cluster is made of %s, version %s", cl.ImageID, cl.Version)
			}
			vms, _, err := store.VMs.List(w.store, store.Query{Index: "clusterId", Value: cl.ID})
			if err != nil || len(vms) != 1 || vms[0].SourceImageID != c.image {
				t.Errorf("its VMs are %+v, %v", vms, err)
			}
		})
	}
}
