package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

// table is every route there is and who may use it. ids are those of the
// fixture's objects; body is what a good request sends.
var table = []struct {
	pattern string
	access  Access
	path    string // when it is not the pattern's
	body    string
}{
	{"GET /v1/auth", Public, "", ""},
	{"GET /v1/available", Public, "", ""},
	{"GET /v1/info", Authenticated, "", ""},
	{"GET /v1/status", Authenticated, "", ""},
	{"POST /v1/auth/tokens", Authenticated, "", `{}`},
	{"GET /healthz", Public, "", ""},
	{"GET /metrics", Authenticated, "", ""},
	{"GET /v1/openapi.json", Public, "", ""},
	{"GET /v1/openapi.yaml", Public, "", ""},

	{"GET /v1/tenants", Authenticated, "", ""},
	{"POST /v1/tenants", Admin, "", `{"name":"a"}`},
	{"GET /v1/tenants/{id}", Authenticated, "/v1/tenants/tenant", ""},
	{"DELETE /v1/tenants/{id}", Admin, "/v1/tenants/tenant", ""},
	{"GET /v1/tenants/{id}/tasks", Authenticated, "/v1/tenants/tenant/tasks", ""},
	{"GET /v1/tenants/{id}/resource-tickets", Authenticated, "/v1/tenants/tenant/resource-tickets", ""},
	{"POST /v1/tenants/{id}/resource-tickets", Admin, "/v1/tenants/tenant/resource-tickets", `{"name":"a","limits":[{"key":"vm","value":1,"unit":"COUNT"}]}`},
	{"GET /v1/resource-tickets/{id}", Authenticated, "/v1/resource-tickets/resource-ticket", ""},
	{"DELETE /v1/resource-tickets/{id}", Admin, "/v1/resource-tickets/resource-ticket", ""},
	{"GET /v1/resource-tickets/{id}/tasks", Authenticated, "/v1/resource-tickets/resource-ticket/tasks", ""},
	{"GET /v1/tenants/{id}/projects", Authenticated, "/v1/tenants/tenant/projects", ""},
	{"POST /v1/tenants/{id}/projects", Admin, "/v1/tenants/tenant/projects", `{"name":"a","resourceTicket":{"name":"t","limits":[{"key":"vm","value":1,"unit":"COUNT"}]}}`},
	{"GET /v1/projects/{id}", Authenticated, "/v1/projects/project", ""},
	{"DELETE /v1/projects/{id}", Admin, "/v1/projects/project", ""},
	{"GET /v1/projects/{id}/tasks", Authenticated, "/v1/projects/project/tasks", ""},

	{"GET /v1/flavors", Authenticated, "", ""},
	{"POST /v1/flavors", Admin, "", `{"name":"a","kind":"vm","cost":[{"key":"vm.cpu","value":1,"unit":"COUNT"}]}`},
	{"GET /v1/flavors/{id}", Authenticated, "/v1/flavors/1000", ""},
	{"DELETE /v1/flavors/{id}", Admin, "/v1/flavors/1000", ""},
	{"GET /v1/flavors/{id}/tasks", Authenticated, "/v1/flavors/1000/tasks", ""},
	{"GET /v1/images", Authenticated, "", ""},
	{"POST /v1/images", Admin, "", ""},
	{"GET /v1/images/{id}", Authenticated, "/v1/images/image", ""},
	{"DELETE /v1/images/{id}", Admin, "/v1/images/image", ""},
	{"GET /v1/images/{id}/tasks", Authenticated, "/v1/images/image/tasks", ""},
	{"GET /v1/availabilityzones", Authenticated, "", ""},
	{"POST /v1/availabilityzones", Admin, "", `{"name":"a"}`},
	{"GET /v1/availabilityzones/{id}", Authenticated, "/v1/availabilityzones/availability-zone", ""},
	{"DELETE /v1/availabilityzones/{id}", Admin, "/v1/availabilityzones/availability-zone", ""},
	{"GET /v1/availabilityzones/{id}/tasks", Authenticated, "/v1/availabilityzones/availability-zone/tasks", ""},
	{"GET /v1/hosts/{id}", Admin, "/v1/hosts/host", ""},
	{"DELETE /v1/hosts/{id}", Admin, "/v1/hosts/host", ""},
	{"GET /v1/hosts/{id}/vms", Admin, "/v1/hosts/host/vms", ""},
	{"GET /v1/hosts/{id}/tasks", Admin, "/v1/hosts/host/tasks", ""},
	{"GET /v1/datastores", Admin, "", ""},
	{"GET /v1/datastores/{id}", Admin, "/v1/datastores/datastore", ""},
	{"GET /v1/orphans", Admin, "", ""},
	{"GET /v1/orphans/{id}", Admin, "/v1/orphans/orphan", ""},
	{"GET /v1/subnets", Authenticated, "", ""},
	{"POST /v1/subnets", Admin, "", `{"name":"a","portGroups":["br0"]}`},
	{"GET /v1/subnets/{id}", Authenticated, "/v1/subnets/subnet", ""},
	{"DELETE /v1/subnets/{id}", Admin, "/v1/subnets/subnet", ""},
	{"POST /v1/subnets/{id}/set_default", Admin, "/v1/subnets/subnet/set_default", ""},

	{"GET /v1/deployments", Admin, "", ""},
	{"GET /v1/deployments/{id}", Admin, "/v1/deployments/deployment", ""},
	{"GET /v1/deployments/{id}/size", Admin, "/v1/deployments/deployment/size", ""},
	{"GET /v1/deployments/{id}/hosts", Admin, "/v1/deployments/deployment/hosts", ""},
	{"POST /v1/deployments/{id}/hosts", Admin, "/v1/deployments/deployment/hosts", `{"address":"unix:/run/lxd","usageTags":["CLOUD"]}`},
	{"GET /v1/deployments/{id}/vms", Admin, "/v1/deployments/deployment/vms", ""},
	{"POST /v1/deployments/{id}/enable_cluster_type", Admin, "/v1/deployments/deployment/enable_cluster_type", `{"type":"KUBERNETES","imageId":"image"}`},
	{"POST /v1/deployments/{id}/disable_cluster_type", Admin, "/v1/deployments/deployment/disable_cluster_type", `{"type":"KUBERNETES"}`},

	{"GET /v1/projects/{id}/clusters", Authenticated, "/v1/projects/project/clusters", ""},
	{"POST /v1/projects/{id}/clusters", Admin, "/v1/projects/project/clusters", `{"name":"a","type":"KUBERNETES"}`},
	{"GET /v1/clusters/{id}", Authenticated, "/v1/clusters/cluster", ""},
	{"POST /v1/clusters/{id}/resize", Admin, "/v1/clusters/cluster/resize", `{"newWorkerCount":3}`},
	{"DELETE /v1/clusters/{id}", Admin, "/v1/clusters/cluster", ""},
	{"GET /v1/clusters/{id}/vms", Authenticated, "/v1/clusters/cluster/vms", ""},
	{"GET /v1/clusters/{id}/tasks", Authenticated, "/v1/clusters/cluster/tasks", ""},
	{"GET /v1/clusters/{id}/kubeconfig", Admin, "/v1/clusters/cluster/kubeconfig", ""},
	{"GET /v1/projects/{id}/vms", Authenticated, "/v1/projects/project/vms", ""},
	{"GET /v1/vms/{id}", Authenticated, "/v1/vms/vm", ""},
	{"GET /v1/vms/{id}/tasks", Authenticated, "/v1/vms/vm/tasks", ""},

	{"GET /v1/tasks", Authenticated, "", ""},
	{"GET /v1/tasks/{id}", Authenticated, "/v1/tasks/task", ""},
	{"GET /v1/tasks/{id}/events", Authenticated, "/v1/tasks/task/events", ""},

	{"POST /node/v1/register", Public, "", `{"token":"once","csr":"csr"}`},
	{"POST /node/v1/renew", byNode, "", `{"csr":"csr"}`},
	{"GET /node/v1/plan", byNode, "", ""},
	{"POST /node/v1/report", byNode, "", `{"nodeId":"1"}`},
	{"POST /node/v1/heartbeat", byNode, "", `{"nodeId":"1"}`},
}

func TestEveryRouteIsInTheTable(t *testing.T) {
	f := newFixture(t)
	var registered, listed []string
	for _, rt := range f.api.routes {
		registered = append(registered, rt.pattern)
	}
	for _, row := range table {
		listed = append(listed, row.pattern)
		i := slices.IndexFunc(f.api.routes, func(rt route) bool { return rt.pattern == row.pattern })
		if i < 0 {
			t.Errorf("%s is not registered", row.pattern)
		} else if f.api.routes[i].access != row.access {
			t.Errorf("%s has access %d, want %d", row.pattern, f.api.routes[i].access, row.access)
		}
	}
	for _, pattern := range registered {
		if !slices.Contains(listed, pattern) {
			t.Errorf("%s is not in the table", pattern)
		}
	}
}

// Every route by every sort of caller.
func TestAccess(t *testing.T) {
	f := newFixture(t)
	f.ops.watch = endedTask
	for _, row := range table {
		method, path, _ := strings.Cut(row.pattern, " ")
		if row.path != "" {
			path = row.path
		}
		send := func(token string) reply {
			if row.pattern == "POST /v1/images" {
				body, contentType := imageForm("EAGER", "i", "content")
				return f.do(method, path, token, body, "Content-Type", contentType)
			}
			if row.body == "" {
				return f.do(method, path, token, nil)
			}
			return f.do(method, path, token, row.body)
		}
		good := http.StatusOK
		if method != http.MethodGet && strings.HasPrefix(path, "/v1") {
			good = http.StatusCreated
		}
		t.Run(row.pattern, func(t *testing.T) {
			f.t = t
			switch row.access {
			case Public:
				parseAny(f, send(""), good)
				parseAny(f, send("bad"), good)
				return
			case byNode: // a user's token, whatever its power, is nothing here
				f.refused(send(""), http.StatusUnauthorized, model.CodeMissingAuthToken)
				f.refused(send("admin"), http.StatusUnauthorized, model.CodeMissingAuthToken)
				return
			}
			f.refused(send(""), http.StatusUnauthorized, model.CodeMissingAuthToken)
			f.refused(send("bad"), http.StatusUnauthorized, model.CodeInvalidAuthToken)
			f.refused(send("expired"), http.StatusUnauthorized, model.CodeExpiredAuthToken)
			before := len(f.ops.called())
			if row.access == Admin {
				f.refused(send("user"), http.StatusForbidden, model.CodeAccessForbidden)
				if len(f.ops.called()) != before {
					t.Error("the operation ran although access was refused")
				}
			} else {
				parseAny(f, send("user"), good)
			}
			parseAny(f, send("admin"), good)
		})
	}
}

func parseAny(f *fixture, r reply, status int) {
	f.t.Helper()
	if r.StatusCode != status {
		f.t.Errorf("%s %s: status %d, want %d: %s", r.Request.Method, r.Request.URL.Path, r.StatusCode, status, r.text)
	}
}

// Mutations reach the operation they name, with id and spec, and answer the
// task with its link.
func TestMutations(t *testing.T) {
	f := newFixture(t)
	want := map[string]string{
		"POST /v1/tenants":                               "CreateTenant a",
		"DELETE /v1/tenants/{id}":                        "DeleteTenant tenant",
		"POST /v1/tenants/{id}/resource-tickets":         "CreateResourceTicket tenant a",
		"DELETE /v1/resource-tickets/{id}":               "DeleteResourceTicket resource-ticket",
		"POST /v1/tenants/{id}/projects":                 "CreateProject tenant a",
		"DELETE /v1/projects/{id}":                       "DeleteProject project",
		"POST /v1/flavors":                               "CreateFlavor a",
		"DELETE /v1/flavors/{id}":                        "DeleteFlavor 1000",
		"DELETE /v1/images/{id}":                         "DeleteImage image",
		"POST /v1/availabilityzones":                     "CreateZone a",
		"DELETE /v1/availabilityzones/{id}":              "DeleteZone availability-zone",
		"DELETE /v1/hosts/{id}":                          "DeleteHost host",
		"POST /v1/subnets":                               "CreateSubnet a",
		"DELETE /v1/subnets/{id}":                        "DeleteSubnet subnet",
		"POST /v1/subnets/{id}/set_default":              "SetDefaultSubnet subnet",
		"POST /v1/deployments/{id}/hosts":                "CreateHost unix:/run/lxd",
		"POST /v1/deployments/{id}/enable_cluster_type":  "EnableClusterType KUBERNETES image",
		"POST /v1/deployments/{id}/disable_cluster_type": "DisableClusterType KUBERNETES",
		"POST /v1/projects/{id}/clusters":                "CreateCluster project a",
		"DELETE /v1/clusters/{id}":                       "DeleteCluster cluster",
		"POST /v1/clusters/{id}/resize":                  "ResizeCluster cluster 3",
	}
	for _, row := range table {
		method, path, _ := strings.Cut(row.pattern, " ")
		if method == http.MethodGet || strings.HasPrefix(path, "/node") || path == "/v1/images" || path == "/v1/auth/tokens" {
			continue
		}
		if row.path != "" {
			path = row.path
		}
		var body any
		if row.body != "" {
			body = row.body
		}
		task := parse[model.Task](f, f.do(method, path, "admin", body), http.StatusCreated)
		if task.Kind != "task" || task.SelfLink != "/v1/tasks/task-1" {
			t.Errorf("%s: task %+v", row.pattern, task)
		}
		calls := f.ops.called()
		if got := calls[len(calls)-1]; got != want[row.pattern] {
			t.Errorf("%s: called %q, want %q", row.pattern, got, want[row.pattern])
		}
		delete(want, row.pattern)
	}
	if len(want) > 0 {
		t.Errorf("not tried: %v", want)
	}
}

// An id that no object has is the noun's NotFound, for reads below it too.
func TestUnknownIDs(t *testing.T) {
	f := newFixture(t)
	codes := map[string]model.Code{
		"tenants": model.CodeTenantNotFound, "resource-tickets": model.CodeResourceTicketNotFound, "projects": model.CodeProjectNotFound,
		"flavors": model.CodeFlavorNotFound, "images": model.CodeImageNotFound, "availabilityzones": model.CodeAvailabilityZoneNotFound,
		"hosts": model.CodeHostNotFound, "datastores": model.CodeDatastoreNotFound, "orphans": model.CodeOrphanNotFound, "subnets": model.CodeNetworkNotFound,
		"deployments": model.CodeDeploymentNotFound, "clusters": model.CodeClusterNotFound, "vms": model.CodeVMNotFound, "tasks": model.CodeTaskNotFound,
	}
	for _, row := range table {
		method, pattern, _ := strings.Cut(row.pattern, " ")
		noun := strings.Split(strings.TrimPrefix(pattern, "/v1/"), "/")[0]
		if !strings.Contains(pattern, "{id}") {
			continue
		}
		for _, id := range []string{"nothing", "no%2Fthing", "a%00b", strings.Repeat("x", 65), "%2e%2e%2fvms"} {
			if method != http.MethodGet && id == "nothing" {
				continue // whether it exists is the operation's to say
			}
			var body any
			if row.body != "" {
				body = row.body
			}
			e := f.refused(f.do(method, strings.Replace(pattern, "{id}", id, 1), "admin", body), http.StatusNotFound, codes[noun])
			if e.Data["id"] == "" {
				t.Errorf("%s: no id in data: %+v", row.pattern, e)
			}
		}
	}
	if calls := f.ops.called(); len(calls) != 0 {
		t.Errorf("operations were called: %v", calls)
	}
}
