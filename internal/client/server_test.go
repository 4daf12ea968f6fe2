package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pleiad/pleiad/internal/api"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
	"github.com/pleiad/pleiad/internal/store/storetest"
)

// operations is what these tests need of the server's operations; the rest panics.
type operations struct {
	api.Operations
	image    bytes.Buffer
	imageErr chan error
	// now is the task as it is, which a watch tells first; changes come after it.
	now     model.Task
	changes chan model.Task
}

func (o *operations) CreateImage(_ context.Context, name, replication string, body io.Reader) (*model.Task, error) {
	_, err := o.image.ReadFrom(body)
	o.imageErr <- err
	if err != nil {
		return nil, err
	}
	return &model.Task{ID: name + " " + replication}, nil
}

func (o *operations) WatchTask(ctx context.Context, _ string, changed func(model.Task) error) error {
	if err := changed(o.now); err != nil {
		return err
	}
	for {
		select {
		case t, more := <-o.changes:
			if !more {
				return nil
			}
			if err := changed(t); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type anyToken struct{ api.Authenticator }

func (anyToken) Authenticate(_ context.Context, token string) (api.Principal, error) {
	if token != "admin" {
		return api.Principal{}, model.Errorf(model.CodeInvalidAuthToken, "not ours")
	}
	return api.Principal{Subject: "admin", Admin: true}, nil
}

// realServer is the API as it is, on a real store, and a client of it.
func realServer(t *testing.T) (*Client, *operations, *store.Store, *authority, string) {
	st := storetest.Open(t)
	ops := &operations{
		imageErr: make(chan error, 1), now: model.Task{ID: "t", State: model.TaskQueued}, changes: make(chan model.Task),
	}
	ca := newAuthority(t)
	server := ca.serve(api.New(api.Config{
		Operations: ops, Authenticator: anyToken{},
		Sources: api.Sources{Flavors: api.Stored(st, store.Flavors, "kind"), Tasks: api.Stored(st, store.Tasks)},
	}))
	return ca.client(server.URL), ops, st, ca, server.URL
}

func TestListsAgainstTheServer(t *testing.T) {
	c, _, st, _, _ := realServer(t)
	if items, err := c.Flavors(t.Context()); err != nil || items == nil || len(items) != 0 {
		t.Errorf("nothing: %v, %v", items, err)
	}
	_, err := st.Update(t.Context(), "", func(tx *store.Tx) error {
		for i := range 250 {
			f := model.Flavor{ID: fmt.Sprintf("%03d", i), Name: fmt.Sprintf("f%d", i), Kind: []string{model.FlavorVM, model.FlavorPersistentDisk}[i%2]}
			if err := store.Flavors.Create(tx, &f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	items, err := c.Flavors(t.Context())
	if err != nil || len(items) != 250 || items[249].Name != "f249" {
		t.Errorf("%d items, %v", len(items), err)
	}
	n := 0
	for f, err := range Each[model.Flavor](t.Context(), c, "/v1/flavors", Filter{"kind", model.FlavorVM}, Filter{"pageSize", "10"}) {
		if err != nil || f.Kind != model.FlavorVM {
			t.Fatalf("%+v, %v", f, err)
		}
		n++
	}
	if n != 125 {
		t.Errorf("%d flavors of VMs", n)
	}
	if _, err := c.Flavor(t.Context(), "../tenants"); !errors.Is(err, model.ErrorOf(model.CodeFlavorNotFound)) {
		t.Errorf("an id that is none: %v", err)
	}
}

func TestCreateImage(t *testing.T) {
	c, ops, _, ca, url := realServer(t)
	content := strings.Repeat("image", 200_000)
	task, err := c.CreateImage(t.Context(), `no"de.tar`, "ON_DEMAND", strings.NewReader(content))
	if err != nil || task.ID != `no"de.tar ON_DEMAND` || ops.image.String() != content || <-ops.imageErr != nil {
		t.Fatalf("%+v, %v", task, err)
	}
	burnt := errors.New("the disk is on fire")
	_, err = c.CreateImage(t.Context(), "a", "EAGER", io.MultiReader(strings.NewReader(content), failing{burnt}))
	if !errors.Is(err, burnt) {
		t.Errorf("error %v", err)
	}
	if err := <-ops.imageErr; err == nil {
		t.Error("the server took half an image for a whole one")
	}
	if _, err := c.CreateImage(t.Context(), "a", "SOMETIMES", strings.NewReader(content)); !errors.Is(err, model.ErrorOf(model.CodeInvalidEntity)) {
		t.Errorf("error %v", err)
	}
	// What the token alone refuses is not sent.
	stranger, err := New(Options{Endpoints: []string{url}, CAFingerprint: Fingerprint(ca.cert), Token: "guess"})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	var sent atomic.Int64
	endless := readerFunc(func(p []byte) (int, error) { sent.Add(int64(len(p))); return len(p), nil })
	if _, err := stranger.CreateImage(t.Context(), "a", "EAGER", endless); !errors.Is(err, model.ErrorOf(model.CodeInvalidAuthToken)) {
		t.Errorf("error %v", err)
	}
	if sent.Load() > 0 {
		t.Errorf("%d bytes were sent in vain", sent.Load())
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func putTask(t *testing.T, st *store.Store, task model.Task) {
	t.Helper()
	_, err := st.Update(t.Context(), "", func(tx *store.Tx) error { return store.Tasks.Put(tx, &task) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestFollowTask(t *testing.T) {
	c, ops, st, _, _ := realServer(t)
	putTask(t, st, model.Task{ID: "t", State: model.TaskStarted})
	go func() {
		for _, state := range []model.TaskState{model.TaskStarted, model.TaskStarted, model.TaskCompleted} {
			ops.changes <- model.Task{ID: "t", State: state}
		}
		close(ops.changes)
	}()
	var seen []model.TaskState
	task, err := c.WaitTask(t.Context(), "t", func(t model.Task) { seen = append(seen, t.State) })
	if err != nil || task.State != model.TaskCompleted || len(seen) != 3 {
		t.Errorf("%+v, %v, seen %v", task, err, seen)
	}
	if _, err := c.WaitTask(t.Context(), "none", nil); !errors.Is(err, model.ErrorOf(model.CodeTaskNotFound)) {
		t.Errorf("no such task: %v", err)
	}
}

func TestFollowTaskThatFails(t *testing.T) {
	c, ops, st, _, _ := realServer(t)
	putTask(t, st, model.Task{ID: "t", State: model.TaskStarted})
	go func() {
		cause := model.Errorf(model.CodeNodeNotReporting, "silent")
		ops.changes <- model.Task{ID: "t", State: model.TaskError, Steps: []model.Step{
			{State: model.TaskCompleted}, {State: model.TaskError, Errors: []model.Error{*cause}},
		}}
		close(ops.changes)
	}()
	task, err := c.WaitTask(t.Context(), "t", nil)
	if task == nil || !errors.Is(err, model.ErrorOf(model.CodeNodeNotReporting)) {
		t.Errorf("%+v, %v", task, err)
	}
}

// Following ends when the caller has enough.
func TestFollowTaskIsLeft(t *testing.T) {
	c, _, st, _, _ := realServer(t)
	putTask(t, st, model.Task{ID: "t", State: model.TaskStarted})
	stop := errors.New("enough")
	if err := c.FollowTask(t.Context(), "t", func(model.Task) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's error became %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.FollowTask(ctx, "t", func(model.Task) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Where events don't come through, or the server is away for a moment, the task
// is looked at from time to time.
func TestFollowTaskByPolling(t *testing.T) {
	ca := newAuthority(t)
	var looks, streams atomic.Int32
	server := ca.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/events") {
			streams.Add(1)
			return // a proxy that swallows them
		}
		switch looks.Add(1) {
		case 1:
			_, _ = io.WriteString(w, `{"id":"t","state":"STARTED"}`)
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = io.WriteString(w, `{"id":"t","state":"COMPLETED"}`)
		}
	}))
	var seen []model.TaskState
	task, err := ca.client(server.URL).WaitTask(t.Context(), "t", func(t model.Task) { seen = append(seen, t.State) })
	if err != nil || task.State != model.TaskCompleted || len(seen) != 2 || streams.Load() != 1 {
		t.Errorf("%+v, %v, seen %v, %d streams", task, err, seen, streams.Load())
	}
}
