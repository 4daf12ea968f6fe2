package api

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

// walk follows a list's links and returns the ids, and how many pages there were.
func walk(f *fixture, path string) (ids []string, pages int) {
	f.t.Helper()
	for path != "" {
		list := parse[model.ResourceList[model.Flavor]](f, f.do("GET", path, "user", nil), http.StatusOK)
		for _, v := range list.Items {
			ids = append(ids, v.ID)
		}
		pages++
		if pages > 100 {
			f.t.Fatal("the links go round in circles")
		}
		path = list.NextPageLink
	}
	return ids, pages
}

func TestPages(t *testing.T) {
	f := newFixture(t)
	var everything, vmKind []string
	for _, v := range f.api.Sources.Flavors.(memory[model.Flavor]).items {
		everything = append(everything, v.ID)
		if v.Kind == model.FlavorVM {
			vmKind = append(vmKind, v.ID)
		}
	}
	for _, c := range []struct {
		path  string
		want  []string
		pages int
	}{
		{"/v1/flavors", everything, 3},
		{"/v1/flavors?pageSize=100", everything, 3},
		{"/v1/flavors?pageSize=50", everything, 5}, // a full last page has no link
		{"/v1/flavors?pageSize=7", everything, 36},
		{"/v1/flavors?kind=vm&pageSize=40", vmKind, 5}, // by an index
		{"/v1/flavors?name=rare", []string{"1240"}, 1}, // without one
		{"/v1/flavors?name=rare&kind=vm", nil, 1},      // both; there is none
		{"/v1/flavors?name=small&kind=vm&pageSize=99", vmKind, 3},
		{"/v1/flavors?name=&kind=", everything, 3}, // an empty filter is none
		{"/v1/flavors/?kind=ephemeral-disk&name=rare", []string{"1240"}, 1},
	} {
		ids, pages := walk(f, c.path)
		if !slices.Equal(ids, c.want) || pages != c.pages {
			t.Errorf("%s: %d ids on %d pages, want %d on %d", c.path, len(ids), pages, len(c.want), c.pages)
		}
	}
}

func TestPageSizeAndLinks(t *testing.T) {
	f := newFixture(t)
	for _, size := range []string{"0", "-1", "101", "ten", "1e2", "99999999999999999999"} {
		e := f.refused(f.do("GET", "/v1/flavors?pageSize="+size, "user", nil), http.StatusBadRequest, model.CodeInvalidPageSize)
		if e.Data["pageSize"] != size || e.Data["minPageSize"] != "1" || e.Data["maxPageSize"] != "100" {
			t.Errorf("pageSize=%s: data %v", size, e.Data)
		}
	}
	first := parse[model.ResourceList[model.Flavor]](f, f.do("GET", "/v1/flavors?kind=vm", "user", nil), http.StatusOK)
	if !strings.HasPrefix(first.NextPageLink, "/v1/flavors?pageLink=") {
		t.Fatalf("link %q", first.NextPageLink)
	}
	link, err := url.Parse(first.NextPageLink)
	if err != nil {
		t.Fatal(err)
	}
	token := link.Query().Get("pageLink")
	forge := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	for _, c := range []struct{ path, token string }{
		{"/v1/flavors", "nonsense!"}, {"/v1/flavors", "AAAA"}, {"/v1/flavors", token[:len(token)-3]},
		{"/v1/tenants", token}, // of another list
		{"/v1/flavors", forge(`{"p":"/v1/flavors","s":0,"a":"1"}`)},
		{"/v1/flavors", forge(`{"p":"/v1/flavors","s":1000000,"a":"1"}`)},
		{"/v1/flavors", forge(`{"p":"/v1/flavors","s":10,"a":"../1"}`)},
		{"/v1/flavors", forge(`{"p":"/v1/flavors","s":10,"a":"1","f":{"password":"x"}}`)},
		{"/v1/flavors", forge(`{"p":"/v1/flavors","s":10}`)},
	} {
		f.refused(f.do("GET", c.path+"?pageLink="+url.QueryEscape(c.token), "user", nil), http.StatusNotFound, model.CodePageExpired)
	}
	for _, query := range []string{"nmae=a", "name=a&name=b", "pageSize=1&pageSize=2", "tag=x", "kind[]=vm"} {
		f.refused(f.do("GET", "/v1/flavors?"+query, "user", nil), http.StatusBadRequest, model.CodeInvalidQueryParams)
	}
}

// Lists below an object hold what belongs to it, by index and without one.
func TestListsBelow(t *testing.T) {
	f := newFixture(t)
	for path, want := range map[string]int{
		"/v1/projects/project/vms": 1, "/v1/clusters/cluster/vms": 1, "/v1/hosts/host/vms": 1, "/v1/deployments/deployment/vms": 1,
		"/v1/tenants/tenant/projects": 1, "/v1/tenants/tenant/projects?name=other": 0, "/v1/clusters/cluster/tasks": 1,
		"/v1/clusters/cluster/tasks?state=STARTED": 1, "/v1/clusters/cluster/tasks?state=ERROR": 0, "/v1/vms/vm/tasks": 0,
		"/v1/tenants/tenant/tasks": 1, "/v1/tasks?entityKind=cluster&entityId=cluster": 1, "/v1/tasks?entityKind=vm": 0,
		"/v1/datastores?tag=fast": 1, "/v1/datastores?tag=slow": 0, "/v1/deployments/deployment/hosts": 1,
	} {
		list := parse[model.ResourceList[map[string]any]](f, f.do("GET", path, "admin", nil), http.StatusOK)
		if len(list.Items) != want || list.Items == nil {
			t.Errorf("%s: %d items, want %d", path, len(list.Items), want)
		}
	}
}

// Every object says what it is and where it is served; lists in it are never
// null; what the source holds is left as it is.
func TestObjects(t *testing.T) {
	f := newFixture(t)
	for path, kind := range map[string]string{
		"/v1/tenants/tenant": "tenant", "/v1/resource-tickets/resource-ticket": "resource-ticket", "/v1/projects/project": "project",
		"/v1/flavors/1001": "vm", "/v1/images/image": "image", "/v1/availabilityzones/availability-zone": "availability-zone",
		"/v1/hosts/host": "host", "/v1/datastores/datastore": "datastore", "/v1/subnets/subnet": "subnet",
		"/v1/deployments/deployment": "deployment", "/v1/vms/vm": "vm", "/v1/clusters/cluster": "cluster", "/v1/tasks/task": "task",
	} {
		r := f.do("GET", path, "admin", nil)
		v := parse[map[string]any](f, r, http.StatusOK)
		if v["kind"] != kind || v["selfLink"] != path || !strings.HasSuffix(path, "/"+v["id"].(string)) {
			t.Errorf("%s: kind %v, selfLink %v", path, v["kind"], v["selfLink"])
		}
		if strings.Contains(r.text, "null") {
			t.Errorf("%s has null: %s", path, r.text)
		}
	}
	if d := f.api.Sources.Deployments.(memory[model.Deployment]).items[0]; d.SelfLink != "" || d.ClusterConfigurations[0].Kind != "" {
		t.Errorf("the source's object was changed: %+v", d)
	}
	if status := f.do("GET", "/v1/status", "user", nil); strings.Contains(status.text, "null") {
		t.Errorf("status has null: %s", status.text)
	}
	size := parse[model.DeploymentSize](f, f.do("GET", "/v1/deployments/deployment/size", "admin", nil), http.StatusOK)
	if size != (model.DeploymentSize{NumberHosts: 1, NumberVMs: 1, NumberTenants: 1, NumberProjects: 1, NumberDatastores: 1, NumberClusters: 1}) {
		t.Errorf("size %+v", size)
	}
	kubeconfig := f.do("GET", "/v1/clusters/cluster/kubeconfig", "admin", nil)
	if kubeconfig.text != "apiVersion: v1\n" || kubeconfig.Header.Get("Content-Type") != "application/yaml" {
		t.Errorf("kubeconfig %q of type %s", kubeconfig.text, kubeconfig.Header.Get("Content-Type"))
	}
}
