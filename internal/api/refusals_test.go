package api

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

func TestBadBodies(t *testing.T) {
	f := newFixture(t)
	const (
		flavorPath  = "/v1/flavors"
		hostPath    = "/v1/deployments/deployment/hosts"
		clusterPath = "/v1/projects/project/clusters"
	)
	for _, c := range []struct {
		name, path, body string
		code             model.Code
		message          string // is in the error's
	}{
		{"empty", "/v1/tenants", " ", model.CodeInvalidJSON, "empty"},
		{"not JSON", "/v1/tenants", `{"name":`, model.CodeInvalidJSON, "unexpected end"},
		{"where it is not JSON", "/v1/tenants", `{"name" "a"}`, model.CodeInvalidJSON, "at byte 9"},
		{"two documents", "/v1/tenants", `{"name":"a"}{"name":"b"}`, model.CodeInvalidJSON, "not JSON"},
		{"not an object", "/v1/tenants", `["a"]`, model.CodeInvalidEntity, "the body must be an object"},
		{"null", "/v1/tenants", `null`, model.CodeInvalidEntity, "the body must be an object"},
		{"a field that is not known", "/v1/tenants", `{"name":"a","nmae":"b"}`, model.CodeInvalidEntity, "nmae is not a known field"},
		{"a field in other letters", "/v1/tenants", `{"Name":"a"}`, model.CodeInvalidEntity, "Name is not a known field"},
		{"a field below that is not known", "/v1/tenants/tenant/projects", `{"name":"a","resourceTicket":{"name":"t","limits":[{"key":"vm","value":1,"unit":"COUNT","x":1}]}}`,
			model.CodeInvalidEntity, "resourceTicket.limits[0].x is not a known field"},
		{"a field is missing", "/v1/tenants", `{}`, model.CodeInvalidEntity, "name must be given"},
		{"a field below is missing", flavorPath, `{"name":"a","kind":"vm","cost":[{"key":"vm.cpu","value":1}]}`, model.CodeInvalidEntity, "cost[0].unit must be given"},
		{"another type", "/v1/tenants", `{"name":7}`, model.CodeInvalidEntity, "name must be a string (was 7)"},
		{"not one of", flavorPath, `{"name":"a","kind":"disk","cost":[{"key":"vm.cpu","value":1,"unit":"COUNT"}]}`,
			model.CodeInvalidEntity, `kind must be one of vm, ephemeral-disk, persistent-disk (was "disk")`},
		{"an empty list", flavorPath, `{"name":"a","kind":"vm","cost":[]}`, model.CodeInvalidEntity, "cost must have at least 1 items"},
		{"null for a list", flavorPath, `{"name":"a","kind":"vm","cost":null}`, model.CodeInvalidEntity, "cost must be a list (was null)"},
		{"below zero", flavorPath, `{"name":"a","kind":"vm","cost":[{"key":"vm.cpu","value":-1,"unit":"COUNT"}]}`, model.CodeInvalidEntity, "cost[0].value must be at least 0 (was -1)"},
		{"two faults", flavorPath, `{"kind":"disk","cost":[]}`, model.CodeInvalidEntity, `(was "disk"), name must be given`},
		{"a fraction", clusterPath, `{"name":"a","type":"KUBERNETES","workerCount":1.5}`, model.CodeInvalidEntity, "workerCount must be an integer (was 1.5)"},
		{"a number that fits nothing", clusterPath, `{"name":"a","type":"KUBERNETES","workerCount":1e400}`, model.CodeInvalidEntity, "out of range"},
		{"a number that fits no integer", clusterPath, `{"name":"a","type":"KUBERNETES","workerCount":1e30}`, model.CodeInvalidEntity, "workerCount must not be"},
		{"a text that is too long", hostPath, `{"address":"` + strings.Repeat("x", 300) + `","usageTags":["CLOUD"]}`, model.CodeInvalidEntity, "address must have at most 255 characters"},
		{"a usage that is not known", hostPath, `{"address":"h","usageTags":["NONE"]}`, model.CodeInvalidEntity, `usageTags[0] must be one of MGMT, CLOUD, IMAGE (was "NONE")`},
		{"a token for too long", "/v1/auth/tokens", `{"ttlSeconds":99999999999}`, model.CodeInvalidEntity, "ttlSeconds must be at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.t = t
			e := f.refused(f.do("POST", c.path, "admin", c.body, "Content-Type", "application/json"), http.StatusBadRequest, c.code)
			if !strings.Contains(e.Message, c.message) {
				t.Errorf("message %q, want %q in it", e.Message, c.message)
			}
			if strings.Contains(e.Message, "body.") || strings.Contains(e.Message, "json:") || len(e.Message) > 400 {
				t.Errorf("message %q is not for people", e.Message)
			}
		})
	}
	if calls := f.ops.called(); len(calls) != 0 {
		t.Errorf("operations were called: %v", calls)
	}
}

// What a client sends as a password is in no answer and in no log line.
func TestSecretsAreNotEchoed(t *testing.T) {
	f := newFixture(t)
	const secret = "hunter2-correct-horse"
	for _, body := range []string{
		`{"password":"` + secret + `"}`,
		`{"address":7,"password":"` + secret + `","usageTags":["CLOUD"]}`,
		`{"address":"h","password":["` + secret + `"],"usageTags":["CLOUD"]}`,
		`{"address":"h","password":"` + strings.Repeat(secret, 300) + `","usageTags":["CLOUD"]}`,
		`{"address":"h","password":{"a":"` + secret + `"},"usageTags":[],"x":1}`,
		`{"address":"h","password":"` + secret,
	} {
		r := f.do("POST", "/v1/deployments/deployment/hosts", "admin", body)
		if r.StatusCode != http.StatusBadRequest || strings.Contains(r.text, secret) {
			t.Errorf("status %d: %s", r.StatusCode, r.text)
		}
	}
	f.ops.fail = errors.New("cannot log in with " + secret)
	r := f.do("POST", "/v1/deployments/deployment/hosts", "admin", `{"address":"h","password":"x","usageTags":["CLOUD"]}`, "REQUEST-ID", "the-id")
	if e := f.refused(r, http.StatusInternalServerError, model.CodeInternalError); e.Data["requestId"] != "the-id" || strings.Contains(r.text, secret) {
		t.Errorf("internal error: %s", r.text)
	}
	f.Close()
	lines := strings.ReplaceAll(f.log.String(), "cannot log in with "+secret, "") // an operation's own words, which are for the log
	for _, hidden := range []string{secret, `"admin"`, "Bearer"} {
		if strings.Contains(lines, hidden) {
			t.Errorf("%q is in the log:\n%s", hidden, lines)
		}
	}
	if !strings.Contains(f.log.String(), `"msg":"internal error","request":"the-id"`) {
		t.Errorf("the cause of the internal error is not in the log:\n%s", f.log)
	}
}

func TestBodySize(t *testing.T) {
	f := newFixture(t)
	pad := func(size int) string {
		const frame = `{"name":""}`
		return `{"name":"` + strings.Repeat("x", size-len(frame)) + `"}`
	}
	if r := f.do("POST", "/v1/tenants", "admin", pad(MaxBody)); r.StatusCode != http.StatusCreated {
		t.Errorf("a body at the limit: %d: %.200s", r.StatusCode, r.text)
	}
	e := f.refused(f.do("POST", "/v1/tenants", "admin", pad(MaxBody+1)), http.StatusRequestEntityTooLarge, model.CodeRequestTooLarge)
	if e.Data["limit"] != "1048576" || !strings.Contains(e.Message, "1048576") {
		t.Errorf("the limit is not named: %+v", e)
	}
	// The size is refused before the token would be accepted, not instead of it.
	f.refused(f.do("POST", "/v1/tenants", "", pad(2*MaxBody)), http.StatusUnauthorized, model.CodeMissingAuthToken)
	if calls := f.ops.called(); len(calls) != 1 {
		t.Errorf("operations were called: %v", len(calls))
	}
}

func TestContentType(t *testing.T) {
	f := newFixture(t)
	for _, ct := range []string{"application/json", "application/json; charset=utf-8", "APPLICATION/JSON"} {
		if r := f.do("POST", "/v1/tenants", "admin", `{"name":"a"}`, "Content-Type", ct); r.StatusCode != http.StatusCreated {
			t.Errorf("%s: %d: %s", ct, r.StatusCode, r.text)
		}
	}
	for _, ct := range []string{"text/plain", "application/x-www-form-urlencoded", "application/xml", ";", "application/cbor"} {
		f.refused(f.do("POST", "/v1/tenants", "admin", `{"name":"a"}`, "Content-Type", ct), http.StatusBadRequest, model.CodeInvalidEntity)
	}
	// Whatever a client accepts, it gets JSON.
	for _, accept := range []string{"text/html", "application/xml;q=1", "nonsense"} {
		r := f.do("GET", "/v1/tenants", "admin", nil, "Accept", accept)
		if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("Accept %s: %d %s", accept, r.StatusCode, r.Header.Get("Content-Type"))
		}
	}
}

func TestAuthorizationHeader(t *testing.T) {
	f := newFixture(t)
	r := f.do("GET", "/v1/tenants", "", nil)
	f.refused(r, http.StatusUnauthorized, model.CodeMissingAuthToken)
	if r.Header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("headers %v", r.Header)
	}
	for _, header := range []string{"Basic YWRtaW46YWRtaW4=", "Bearer", "Bearer ", "admin"} {
		f.refused(f.do("GET", "/v1/tenants", "", nil, "Authorization", header), http.StatusBadRequest, model.CodeMalformedAuthToken)
	}
	if r := f.do("GET", "/v1/tenants", "", nil, "Authorization", "bearer  admin "); r.StatusCode != http.StatusOK {
		t.Errorf("status %d: %s", r.StatusCode, r.text)
	}
}

func TestTokens(t *testing.T) {
	f := newFixture(t)
	own := parse[model.Token](f, f.do("POST", "/v1/auth/tokens", "user", `{}`), http.StatusCreated)
	other := parse[model.Token](f, f.do("POST", "/v1/auth/tokens", "admin", `{"subject":"ada","ttlSeconds":60}`), http.StatusCreated)
	if own.Subject != "ada" || other.Subject != "ada" {
		t.Errorf("tokens of %q and %q", own.Subject, other.Subject)
	}
	f.refused(f.do("POST", "/v1/auth/tokens", "user", `{"subject":"administrator"}`), http.StatusForbidden, model.CodeAccessForbidden)
}

func TestPathsAndMethods(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/", "/v1", "/v1/nothing", "/v1/tenants/tenant/nothing", "/tenants", "/v1//tenants", "/v1/./tenants", "/v2/tenants", "/v1/openapi"} {
		f.refused(f.do("GET", path, "admin", nil), http.StatusNotFound, model.CodeNotFound)
	}
	for _, path := range []string{"/v1/tenants/", "/v1/tenants///", "/v1/tenants/tenant/", "/healthz/"} {
		if r := f.do("GET", path, "admin", nil); r.StatusCode != http.StatusOK {
			t.Errorf("%s: %d: %s", path, r.StatusCode, r.text)
		}
	}
	for _, c := range []struct{ method, path, allow string }{
		{"PUT", "/v1/tenants", "GET, POST"}, {"DELETE", "/v1/tenants", "GET, POST"}, {"POST", "/v1/tenants/tenant", "GET, DELETE"},
		{"OPTIONS", "/v1/info", "GET"}, {"GET", "/node/v1/register", "POST"}, {"POST", "/healthz", "GET"}, {"BREW", "/v1/tenants", "GET, POST"},
	} {
		r := f.do(c.method, c.path, "", nil)
		f.refused(r, http.StatusMethodNotAllowed, model.CodeInvalidOperation)
		if r.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: allowed %q, want %q", c.method, c.path, r.Header.Get("Allow"), c.allow)
		}
	}
	if r := f.do("HEAD", "/v1/tenants", "admin", nil); r.StatusCode != http.StatusOK || r.text != "" {
		t.Errorf("HEAD: %d %q", r.StatusCode, r.text)
	}
}

// An operation's own error arrives unchanged, with its code's status.
func TestOperationErrors(t *testing.T) {
	f := newFixture(t)
	f.ops.fail = errors.Join(errors.New("context"), model.Errorf(model.CodeQuotaError, "not enough").
		With("key", "vm.memory").Do("ask for less"))
	e := f.refused(f.do("POST", "/v1/projects/project/clusters", "admin", `{"name":"a","type":"KUBERNETES"}`), http.StatusBadRequest, model.CodeQuotaError)
	if e.Message != "not enough" || e.Data["key"] != "vm.memory" || e.Action != "ask for less" {
		t.Errorf("error %+v", e)
	}
	f.ops.fail = &model.Error{Code: model.CodeStorageFull, Message: "disk full"} // without data: refused checks that it is not null
	f.refused(f.do("DELETE", "/v1/tenants/tenant", "admin", nil), http.StatusInsufficientStorage, model.CodeStorageFull)
}

func TestPanic(t *testing.T) {
	f := newFixture(t)
	r := f.do("POST", "/v1/tenants", "admin", `{"name":"panic"}`, "REQUEST-ID", "p1")
	e := f.refused(r, http.StatusInternalServerError, model.CodeInternalError)
	if e.Data["requestId"] != "p1" || strings.Contains(r.text, "boom") {
		t.Errorf("answer %s", r.text)
	}
	if r := f.do("GET", "/healthz", "", nil); r.StatusCode != http.StatusOK {
		t.Errorf("the server does not go on: %d", r.StatusCode)
	}
	f.Close()
	if !strings.Contains(f.log.String(), "boom") || !strings.Contains(f.log.String(), "fixture_test.go") {
		t.Errorf("the panic's cause and stack are not in the log")
	}
}
