package plan

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func step(id string) Step { return Step{ID: id, Command: &Command{Argv: []string{"run", id}}} }

func sample() Plan {
	return Plan{NodeID: "n1", Steps: []Step{
		{ID: "files", Files: []File{{Path: "/etc/a", Mode: "0600", Content: []byte{0, 1, 255}}, {Path: "/etc/b", Mode: "755"}}},
		{ID: "run", Title: "Run", Command: &Command{
			Argv: []string{"a", "b"}, Env: []string{"C=d"}, Stdin: []byte("e"), Creates: "/f", Unless: []string{"g"},
			Cleanup: []string{"h"}, TimeoutSeconds: 5, Report: true}, LogUnits: []string{"i"}, LogFiles: []string{"/j*"}},
		{ID: "service", Service: &Service{Unit: "u", State: "restarted", Enable: true}},
		{ID: "http", Probe: &Probe{HTTP: &HTTPProbe{URL: "https://x", CAFile: "/ca"}, IntervalMillis: 100, TimeoutSeconds: 9}},
		{ID: "tcp", Probe: &Probe{TCP: "1.2.3.4:5"}},
		{ID: "dns", Probe: &Probe{DNS: &DNSProbe{Server: "1.2.3.4", Name: "a.b"}}},
		{ID: "exec", Probe: &Probe{Exec: []string{"true"}}},
	}}
}

func TestParseReadsWhatWasWritten(t *testing.T) {
	want := sample()
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(raw)
	if err != nil || !reflect.DeepEqual(got, want) || got.Hash() != want.Hash() {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseAndValidateRefuse(t *testing.T) {
	many := Plan{}
	for i := range MaxSteps + 1 {
		many.Steps = append(many.Steps, step(fmt.Sprint(i)))
	}
	file := func(path, mode string) Plan {
		return Plan{Steps: []Step{{ID: "a", Files: []File{{Path: path, Mode: mode}}}}}
	}
	one := func(change func(*Step)) Plan {
		s := step("a")
		change(&s)
		return Plan{Steps: []Step{s}}
	}
	for want, p := range map[string]Plan{
		"at most 200":                          many,
		`step id "" is empty`:                  {Steps: []Step{step("")}},
		`step id "x" is empty or not unique`:   {Steps: []Step{step("x"), step("x")}},
		"not 0":                                {Steps: []Step{{ID: "a"}}},
		"exactly one action, not 2":            one(func(s *Step) { s.Service = &Service{Unit: "u", State: "started"} }),
		"command is empty":                     one(func(s *Step) { s.Command.Argv = nil }),
		`creates "x" is not`:                   one(func(s *Step) { s.Command.Creates = "x" }),
		"timeoutSeconds -1":                    one(func(s *Step) { s.Command.TimeoutSeconds = -1 }),
		"timeoutSeconds 9000000000":            one(func(s *Step) { s.Command.TimeoutSeconds = 9_000_000_000 }),
		`state "running" is not`:               {Steps: []Step{{ID: "a", Service: &Service{Unit: "u", State: "running"}}}},
		"one thing, not 0":                     {Steps: []Step{{ID: "a", Probe: &Probe{}}}},
		"one thing, not 2":                     {Steps: []Step{{ID: "a", Probe: &Probe{TCP: "x", Exec: []string{"y"}}}}},
		"intervalMillis -5":                    {Steps: []Step{{ID: "a", Probe: &Probe{TCP: "x", IntervalMillis: -5}}}},
		"timeoutSeconds 86401":                 {Steps: []Step{{ID: "a", Probe: &Probe{TCP: "x", TimeoutSeconds: 86401}}}},
		`"etc/x" is not absolute`:              file("etc/x", "0600"),
		`"/etc/../x" is not absolute`:          file("/etc/../x", "0600"),
		`"/etc/x/" is not absolute`:            file("/etc/x/", "0600"),
		`"/" is not absolute`:                  file("/", "0600"),
		"\"/a\\x00\" is not absolute":          file("/a\x00", "0600"),
		`mode "" of /x is not octal`:           file("/x", ""),
		`mode "0800" of /x is not octal`:       file("/x", "0800"),
		`mode "0600 and more" of /x is not oc`: file("/x", "0600 and more"),
		`mode "10000" of /x is not octal`:      file("/x", "10000"),
	} {
		err := p.Validate()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %v", want, err)
		}
		raw, jsonErr := json.Marshal(p)
		if jsonErr != nil {
			t.Fatal(jsonErr)
		}
		if _, err := Parse(raw); err == nil {
			t.Errorf("%s: parsed all the same", want)
		}
	}
}

func TestHashesFollowTheContent(t *testing.T) {
	p := sample()
	seen := map[string]string{p.Hash(): "the plan itself"}
	for name, change := range map[string]func(*Plan){
		"node":    func(p *Plan) { p.NodeID = "n2" },
		"order":   func(p *Plan) { p.Steps[0], p.Steps[1] = p.Steps[1], p.Steps[0] },
		"fewer":   func(p *Plan) { p.Steps = p.Steps[1:] },
		"id":      func(p *Plan) { p.Steps[0].ID = "x" },
		"content": func(p *Plan) { p.Steps[0].Files[0].Content = []byte{0, 1, 254} },
		"env":     func(p *Plan) { p.Steps[1].Command.Env = nil },
	} {
		q := sample()
		change(&q)
		if other, ok := seen[q.Hash()]; ok {
			t.Errorf("%s has the hash of %s", name, other)
		}
		seen[q.Hash()] = name
	}
}

func TestReport(t *testing.T) {
	p := Plan{NodeID: "n", Steps: []Step{step("a"), {ID: "b", Title: "Do b", Command: &Command{Argv: []string{"b"}}}}}
	var none *Report
	if none.AllDone(p) || none.Done(p.Steps[0]) || none.Result("a") != nil || none.Failure("n", p) != nil {
		t.Error("a node that said nothing has done something")
	}
	r := &Report{Results: []StepResult{
		{ID: "a", Hash: p.Steps[0].Hash(), State: StepDone},
		{ID: "b", Hash: p.Steps[1].Hash(), State: StepFailed, Error: "exit status 1", LogTail: "tail"},
	}}
	if !r.Done(p.Steps[0]) || r.Done(p.Steps[1]) || r.AllDone(p) {
		t.Error("a is done, b is not")
	}
	if err := r.Failure("n", p); err == nil || err.Message != "node n: Do b: exit status 1" || err.Data["log"] != "tail" || err.Data["step"] != "b" {
		t.Errorf("failure %+v", err)
	}
	p.Steps[1].Command.Argv = []string{"c"}
	if r.Failure("n", p) != nil {
		t.Error("the failure of another content counts")
	}
	r.Results[1] = StepResult{ID: "b", Hash: p.Steps[1].Hash(), State: StepDone}
	if !r.AllDone(p) {
		t.Error("all are done")
	}
}

func FuzzParse(f *testing.F) {
	raw, err := json.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"nodeId":"n","steps":[{"id":"a","command":{"argv":["b"]}}]} `))
	f.Add([]byte(`{"nodeId":"n","steps":[{"id":"a","files":[{"path":"/b","mode":"0600","content":null}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil {
			return
		}
		// The node's hash must be the controller's, whatever either writes out again.
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(raw)
		if err != nil && len(raw) <= MaxPlan {
			t.Fatalf("not accepted again: %v", err)
		}
		if err == nil && again.Hash() != p.Hash() {
			t.Fatalf("another hash after a round: %s", raw)
		}
	})
}
