package api

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/openapi.json")

// openAPI is what the tests look at of the document.
type openAPI struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		OperationID string                      `json:"operationId"`
		Summary     string                      `json:"summary"`
		Security    []map[string][]string       `json:"security"`
		RequestBody json.RawMessage             `json:"requestBody"`
		Parameters  []struct{ Name, In string } `json:"parameters"`
		Responses   map[string]struct {
			Content map[string]struct{ Schema map[string]any }
		} `json:"responses"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]json.RawMessage `json:"schemas"`
	} `json:"components"`
}

// The document is reviewed like code: a change of the contract shows in the diff.
func TestOpenAPIGolden(t *testing.T) {
	f := newFixture(t)
	golden := filepath.Join("testdata", "openapi.json")
	got := f.do("GET", "/v1/openapi.json", "", nil)
	if *update {
		if err := os.WriteFile(golden, []byte(got.text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.text != string(want) {
		t.Errorf("the OpenAPI document has changed; see the difference with \"go test ./internal/api -update\" and git diff")
	}
	if ct := got.Header.Get("Content-Type"); ct != "application/openapi+json" {
		t.Errorf("type %s", ct)
	}
	if text := f.do("GET", "/v1/openapi.yaml", "", nil).text; !strings.Contains(text, "operationId: createCluster\n") {
		t.Errorf("the YAML document lacks an operation: %.300s", text)
	}
}

// The document has every route under /v1, with its access, its parameters and
// bodies, and a schema for all it refers to.
func TestOpenAPIIsWhole(t *testing.T) {
	f := newFixture(t)
	text := f.do("GET", "/v1/openapi.json", "", nil).text
	var doc openAPI
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("version %s", doc.OpenAPI)
	}
	ids, count := map[string]bool{}, 0
	for _, row := range table {
		method, path, _ := strings.Cut(row.pattern, " ")
		if !strings.HasPrefix(path, "/v1/") || strings.HasPrefix(path, "/v1/openapi") {
			continue
		}
		count++
		o, ok := doc.Paths[path][strings.ToLower(method)]
		if !ok || o.OperationID == "" || o.Summary == "" || ids[o.OperationID] {
			t.Errorf("%s: operation %q is missing, nameless or not unique", row.pattern, o.OperationID)
			continue
		}
		ids[o.OperationID] = true
		if secured := len(o.Security) > 0; secured != (row.access != Public) {
			t.Errorf("%s: security is %v", row.pattern, o.Security)
		}
		if hasBody := len(o.RequestBody) > 0; hasBody != (row.body != "" || row.pattern == "POST /v1/images") {
			t.Errorf("%s: request body is %s", row.pattern, o.RequestBody)
		}
		if hasID := strings.Contains(string(mustJSON(t, o.Parameters)), `"Name":"id"`); hasID != strings.Contains(path, "{id}") {
			t.Errorf("%s: parameters are %v", row.pattern, o.Parameters)
		}
		good := "200"
		if method != http.MethodGet {
			good = "201"
		}
		if len(o.Responses[good].Content) != 1 {
			t.Errorf("%s: answers %v", row.pattern, o.Responses)
		}
		failure := o.Responses["default"].Content["application/json"].Schema["$ref"]
		if failure != "#/components/schemas/Error" {
			t.Errorf("%s: errors are %v", row.pattern, failure)
		}
	}
	documented := 0
	for _, methods := range doc.Paths {
		documented += len(methods)
	}
	if documented != count {
		t.Errorf("%d operations are documented, %d are in the table", documented, count)
	}
	for _, ref := range regexp.MustCompile(`#/components/schemas/([^"]+)`).FindAllStringSubmatch(text, -1) {
		if doc.Components.Schemas[ref[1]] == nil {
			t.Errorf("there is no schema %s", ref[1])
		}
	}
	for _, name := range []string{
		"Tenant", "ResourceTicket", "Project", "Flavor", "Image", "Zone", "Host", "Datastore", "Subnet", "Deployment", "VM", "Cluster", "Task", "Step", "Error",
		"TenantCreateSpec", "ResourceTicketCreateSpec", "ProjectCreateSpec", "FlavorCreateSpec", "ZoneCreateSpec", "HostCreateSpec", "SubnetCreateSpec",
		"ClusterConfigurationSpec", "ClusterCreateSpec", "TokenCreateSpec", "Token", "Info", "SystemStatus", "DeploymentSize", "AuthInfo",
	} {
		if doc.Components.Schemas[name] == nil {
			t.Errorf("there is no schema %s", name)
		}
	}
	if doc.Components.Schemas["Secret"] != nil {
		t.Error("secrets have a schema, so a route serves them")
	}
}

func mustJSON(t *testing.T, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
