package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

// Every operation of the API's document has a method, which sends what the
// document says.
func TestMethodsCoverTheAPI(t *testing.T) {
	raw, err := os.ReadFile("../api/testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string          `json:"operationId"`
			RequestBody json.RawMessage `json:"requestBody"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	called := map[string]bool{} // by operation
	ca := newAuthority(t)
	server := ca.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		for path, methods := range doc.Paths {
			pattern := regexp.MustCompile("^" + strings.ReplaceAll(path, "{id}", "the%20id") + "$")
			o, ok := methods[strings.ToLower(r.Method)]
			if !ok || !pattern.MatchString(r.URL.EscapedPath()) {
				continue
			}
			if (len(body) > 0) != (len(o.RequestBody) > 0) {
				t.Errorf("%s: body %q, the document says %.60s", o.OperationID, body, o.RequestBody)
			}
			if r.Header.Get("Authorization") != "Bearer admin" || r.Header.Get("User-Agent") != "pleiad" {
				t.Errorf("%s: headers %v", o.OperationID, r.Header)
			}
			mu.Lock()
			called[o.OperationID] = true
			mu.Unlock()
		}
		if strings.HasSuffix(r.URL.Path, "/events") {
			_, _ = io.WriteString(w, "data: {\"state\":\"COMPLETED\"}\n\n")
			return
		}
		_, _ = io.WriteString(w, "{}")
	}))
	c, ctx, id := ca.client(server.URL), t.Context(), "the id"
	for _, call := range []func() error{
		func() error { _, err := c.Auth(ctx); return err },
		func() error { return c.Available(ctx) },
		func() error { _, err := c.Info(ctx); return err },
		func() error { _, err := c.Status(ctx); return err },
		func() error { _, err := c.CreateToken(ctx, model.TokenCreateSpec{}); return err },
		func() error { _, err := c.Tenants(ctx); return err },
		func() error { _, err := c.Tenant(ctx, id); return err },
		func() error { _, err := c.CreateTenant(ctx, model.TenantCreateSpec{}); return err },
		func() error { _, err := c.DeleteTenant(ctx, id); return err },
		func() error { _, err := c.ResourceTickets(ctx, id); return err },
		func() error { _, err := c.ResourceTicket(ctx, id); return err },
		func() error { _, err := c.CreateResourceTicket(ctx, id, model.ResourceTicketCreateSpec{}); return err },
		func() error { _, err := c.DeleteResourceTicket(ctx, id); return err },
		func() error { _, err := c.Projects(ctx, id); return err },
		func() error { _, err := c.Project(ctx, id); return err },
		func() error { _, err := c.CreateProject(ctx, id, model.ProjectCreateSpec{}); return err },
		func() error { _, err := c.DeleteProject(ctx, id); return err },
		func() error { _, err := c.Flavors(ctx); return err },
		func() error { _, err := c.Flavor(ctx, id); return err },
		func() error { _, err := c.CreateFlavor(ctx, model.FlavorCreateSpec{}); return err },
		func() error { _, err := c.DeleteFlavor(ctx, id); return err },
		func() error { _, err := c.Images(ctx); return err },
		func() error { _, err := c.Image(ctx, id); return err },
		func() error { _, err := c.CreateImage(ctx, "i", "EAGER", strings.NewReader("x")); return err },
		func() error { _, err := c.DeleteImage(ctx, id); return err },
		func() error { _, err := c.Zones(ctx); return err },
		func() error { _, err := c.Zone(ctx, id); return err },
		func() error { _, err := c.CreateZone(ctx, model.ZoneCreateSpec{}); return err },
		func() error { _, err := c.DeleteZone(ctx, id); return err },
		func() error { _, err := c.Hosts(ctx, id); return err },
		func() error { _, err := c.Host(ctx, id); return err },
		func() error { _, err := c.CreateHost(ctx, id, model.HostCreateSpec{}); return err },
		func() error { _, err := c.DeleteHost(ctx, id); return err },
		func() error { _, err := c.HostVMs(ctx, id); return err },
		func() error { _, err := c.Datastores(ctx); return err },
		func() error { _, err := c.Datastore(ctx, id); return err },
		func() error { _, err := c.Orphans(ctx); return err },
		func() error { _, err := c.Orphan(ctx, id); return err },
		func() error { _, err := c.Subnets(ctx); return err },
		func() error { _, err := c.Subnet(ctx, id); return err },
		func() error { _, err := c.CreateSubnet(ctx, model.SubnetCreateSpec{}); return err },
		func() error { _, err := c.DeleteSubnet(ctx, id); return err },
		func() error { _, err := c.SetDefaultSubnet(ctx, id); return err },
		func() error { _, err := c.Deployments(ctx); return err },
		func() error { _, err := c.Deployment(ctx, id); return err },
		func() error { _, err := c.DeploymentSize(ctx, id); return err },
		func() error { _, err := c.DeploymentVMs(ctx, id); return err },
		func() error { _, err := c.EnableClusterType(ctx, id, model.ClusterConfigurationSpec{}); return err },
		func() error { _, err := c.DisableClusterType(ctx, id, model.ClusterConfigurationSpec{}); return err },
		func() error { _, err := c.Clusters(ctx, id); return err },
		func() error { _, err := c.Cluster(ctx, id); return err },
		func() error { _, err := c.CreateCluster(ctx, id, model.ClusterCreateSpec{}); return err },
		func() error { _, err := c.ResizeCluster(ctx, id, model.ClusterResizeOperation{}); return err },
		func() error { _, err := c.DeleteCluster(ctx, id); return err },
		func() error { _, err := c.ClusterVMs(ctx, id); return err },
		func() error { _, err := c.Kubeconfig(ctx, id); return err },
		func() error { _, err := c.VMs(ctx, id); return err },
		func() error { _, err := c.VM(ctx, id); return err },
		func() error { _, err := c.Tasks(ctx); return err },
		func() error { _, err := c.Task(ctx, id); return err },
		func() error { _, err := c.WaitTask(ctx, id, nil); return err },
	} {
		if err := call(); err != nil {
			t.Error(err)
		}
	}
	for _, noun := range []string{"tenants", "resource-tickets", "projects", "flavors", "images", "availabilityzones", "hosts", "clusters", "vms"} {
		if _, err := c.TasksOf(ctx, noun, id); err != nil {
			t.Error(err)
		}
	}
	for path, methods := range doc.Paths {
		for method, o := range methods {
			if !called[o.OperationID] {
				t.Errorf("no method calls %s: %s %s", o.OperationID, method, path)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	ca := newAuthority(t)
	server := ca.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("REQUEST-ID", "r1")
		switch r.URL.Path {
		case "/v1/tenants/refused":
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code":"TenantNotFound","message":"no such tenant","data":{"id":"refused"},"action":"look again"}`)
		case "/v1/tenants/proxy":
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "<html>secret proxy</html>")
		case "/v1/tenants/redirect":
			http.Redirect(w, r, "https://elsewhere.invalid/", http.StatusFound)
		case "/v1/tenants/nonsense":
			_, _ = io.WriteString(w, "<html>")
		case "/v1/tenants/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"id":`)
		}
	}))
	c := ca.client(server.URL)
	_, err := c.Tenant(t.Context(), "refused")
	var answer *ResponseError
	if !errors.As(err, &answer) || answer.Status != http.StatusNotFound || answer.RequestID != "r1" {
		t.Errorf("error %#v", err)
	}
	var cause *model.Error
	if !errors.Is(err, model.ErrorOf(model.CodeTenantNotFound)) || !errors.As(err, &cause) || cause.Data["id"] != "refused" || cause.Action != "look again" {
		t.Errorf("cause %#v", cause)
	}
	for id, status := range map[string]int{"proxy": http.StatusBadGateway, "redirect": http.StatusFound} {
		if _, err = c.Tenant(t.Context(), id); !errors.As(err, &answer) || answer.Status != status || strings.Contains(err.Error(), "html") {
			t.Errorf("%s: %v", id, err)
		}
	}
	for _, id := range []string{"nonsense", "cut"} {
		if v, err := c.Tenant(t.Context(), id); err == nil || v != nil {
			t.Errorf("%s: %v, %v", id, v, err)
		}
	}
}

func TestBadOptions(t *testing.T) {
	for _, o := range []Options{
		{}, {Endpoints: []string{"http://plain:80"}}, {Endpoints: []string{"https://"}}, {Endpoints: []string{"https://user:secret@host"}},
		{Endpoints: []string{"https://a?b=c"}}, {Endpoints: []string{"a"}, CAFingerprint: "abc"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	c, err := New(Options{Endpoints: []string{"host:9443/prefix/"}})
	if err != nil || c.endpoints[0].url.String() != "https://host:9443/prefix" {
		t.Errorf("%v, %v", c, err)
	}
}

// A server that has pages without end, or whose links lead away, is not followed for ever.
func TestListLinks(t *testing.T) {
	ca := newAuthority(t)
	page := ""
	server := ca.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "pageLink=2" {
			_, _ = io.WriteString(w, `{"items":[{"id":"b"}]}`)
			return
		}
		_, _ = io.WriteString(w, `{"items":[{"id":"a"}],"nextPageLink":"`+page+`"}`)
	}))
	c := ca.client(server.URL)
	page = "/v1/tenants?pageLink=2"
	if items, err := c.Tenants(t.Context()); err != nil || len(items) != 2 || items[1].ID != "b" {
		t.Errorf("%v, %v", items, err)
	}
	for range Each[model.Tenant](t.Context(), c, "/v1/tenants", Filter{"name", "x"}) {
		break // an iteration may be left
	}
	for _, page = range []string{"/v1/tenants", "https://elsewhere.invalid/v1/tenants", "@elsewhere.invalid/"} {
		if _, err := c.Tenants(t.Context()); err == nil {
			t.Errorf("link %q was followed", page)
		}
	}
}

// An endpoint that is gone is left for the next, and what may have changed
// something is not sent twice.
func TestSeveralEndpoints(t *testing.T) {
	ca := newAuthority(t)
	var mu sync.Mutex
	var got []string
	note := func(name string, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, name+" "+r.Method+" "+string(body))
	}
	breaking := ca.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		note("breaking", r)
		panic(http.ErrAbortHandler)
	}))
	good := ca.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("good", r)
		_, _ = io.WriteString(w, "{}")
	}))
	gone := ca.serve(http.NotFoundHandler())
	gone.Close()
	expect := func(what string, want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if strings.Join(got, ",") != strings.Join(want, ",") {
			t.Errorf("%s: requests %q, want %q", what, got, want)
		}
		got = nil
	}

	c := ca.client(gone.URL, good.URL)
	if _, err := c.CreateTenant(t.Context(), model.TenantCreateSpec{Name: "a"}); err != nil {
		t.Error(err)
	}
	expect("a change that could not be sent", `good POST {"name":"a"}`)
	if c.current.Load() != 1 {
		t.Error("the endpoint that answered is not preferred")
	}

	c = ca.client(breaking.URL, good.URL)
	if _, err := c.Info(t.Context()); err != nil {
		t.Error(err)
	}
	expect("a read", "breaking GET ", "good GET ")

	c = ca.client(breaking.URL, good.URL)
	if _, err := c.CreateTenant(t.Context(), model.TenantCreateSpec{Name: "a"}); err == nil || !strings.Contains(err.Error(), breaking.URL) {
		t.Errorf("a change that may have arrived: %v", err)
	}
	expect("a change", `breaking POST {"name":"a"}`)

	c = ca.client(gone.URL)
	if _, err := c.Info(t.Context()); err == nil || !strings.Contains(err.Error(), gone.URL) {
		t.Errorf("no server: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c = ca.client(good.URL, good.URL)
	if _, err := c.Info(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	expect("cancelled")
}
