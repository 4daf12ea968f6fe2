package kubernetes

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/plan"
)

var update = flag.Bool("update", false, "write what the scenarios print into testdata")

// TestScenarios runs the scripts in testdata. A line is a command; lines that
// start with "> " are what the command before them printed.
//
//	cluster NAME workers=N   begins with a spec
//	decide                   asks for a decision and prints it
//	do                       carries the last decision out
//	settle                   decides and carries out until nothing changes
//	start NODE...            the VM is started
//	reports NODE...          the agent registers; it has done nothing yet
//	runs NODE STEP           the agent has done its plan up to a step, or all
//	fails NODE STEP N TEXT   the step failed N times
//	silent NODE DURATION     nothing was heard of the node for so long
//	broken NODE TEXT         the hypervisor could not make the VM
//	deleting NODE            the VM is being deleted
//	gone NODE                the VM is gone
//	resize N                 there are to be N workers
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(script))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(script) {
				t.Errorf("the scenario went otherwise (go test -update writes it down):\n%s", firstDifference(got, string(script)))
			}
		})
	}
}

// play runs a script and returns it with what its commands print.
func play(t *testing.T, script string) string {
	t.Helper()
	var w *world
	var out strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(script, "\n"), "\n") {
		if strings.HasPrefix(line, ">") {
			continue
		}
		fmt.Fprintln(&out, line)
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if words[0] == "cluster" {
			w = newWorld(specFrom(words[1:]))
			continue
		}
		printed, err := w.command(words[0], words[1:])
		if err != nil {
			t.Fatalf("line %d: %s: %v", i+1, line, err)
		}
		for _, p := range printed {
			fmt.Fprintln(&out, "> "+p)
		}
	}
	return out.String()
}

func specFrom(words []string) *model.Cluster {
	c := &model.Cluster{Meta: model.Meta{Name: words[0]}}
	for _, w := range words[1:] {
		if n, ok := strings.CutPrefix(w, "workers="); ok {
			c.WorkerCount, _ = strconv.Atoi(n)
		}
	}
	return c
}

func (w *world) command(name string, args []string) ([]string, error) {
	switch name {
	case "decide":
		return w.describe(w.decide()), nil
	case "do":
		return nil, w.carryOut()
	case "settle":
		for range 10 {
			d := w.decide()
			if err := w.carryOut(); err != nil {
				return nil, err
			}
			if len(d.Issue)+len(d.Create)+len(d.Apply)+len(d.Publish) == 0 {
				return nil, nil
			}
		}
		return nil, fmt.Errorf("does not settle")
	}
	if name == "resize" {
		count, err := strconv.Atoi(args[0])
		c := w.view.Cluster
		for len(c.Pools[0].NodeNumbers()) > count {
			numbers := c.Pools[0].NodeNumbers()
			c.Pools[0] = c.Pools[0].Without(numbers[len(numbers)-1])
		}
		c.Pools[0] = c.Pools[0].With(count - c.Pools[0].Count)
		c.WorkerCount, c.State, c.TaskID = count, model.ClusterResizing, "a task"
		return nil, err
	}
	n := w.node(args[0])
	if n == nil {
		return nil, fmt.Errorf("no node %s", args[0])
	}
	switch name {
	case "start":
		for _, a := range args {
			w.node(a).VM.State = model.VMStarted
		}
	case "reports":
		for _, a := range args {
			w.node(a).Report = &plan.Report{NodeID: w.node(a).VM.ID}
		}
	case "runs":
		return nil, w.run(args[0], args[1])
	case "fails":
		attempts, err := strconv.Atoi(args[2])
		if err != nil {
			return nil, err
		}
		return nil, w.fail(n, args[1], attempts, strings.Join(args[3:], " "))
	case "silent":
		d, err := time.ParseDuration(args[1])
		n.Silent = d.Milliseconds()
		return nil, err
	case "broken":
		n.VM.State = model.VMError
		n.VM.Error = model.Errorf(model.CodeHypervisorError, "%s", strings.Join(args[1:], " ")).Do("look at the host")
	case "deleting":
		n.VM.Deleting = true
	case "gone":
		w.view.Nodes = slices.DeleteFunc(w.view.Nodes, func(o kind.Node) bool { return o.VM.Name == args[0] })
	default:
		return nil, fmt.Errorf("unknown command")
	}
	return nil, nil
}

// fail lets the steps before one be done and that one fail.
func (w *world) fail(n *kind.Node, step string, attempts int, text string) error {
	if err := w.run(n.VM.Name, step); err != nil {
		return err
	}
	last := &n.Report.Results[len(n.Report.Results)-1]
	last.State, last.Attempts, last.Error, last.LogTail = plan.StepFailed, attempts, text, "the node's log"
	return nil
}

// describe prints a decision for people.
func (w *world) describe(d kind.Decision) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, r := range d.Issue {
		say("issue    %s", r.Name)
	}
	for _, s := range d.Create {
		say("create   %s", s.Name)
	}
	for _, id := range slices.Sorted(maps.Keys(d.Apply)) {
		var steps []string
		for _, s := range d.Apply[id].Steps {
			steps = append(steps, s.ID)
		}
		say("apply    %s: %s", w.byID(id).VM.Name, strings.Join(steps, " "))
	}
	for _, id := range d.Remove {
		say("remove   %s", w.byID(id).VM.Name)
	}
	for _, key := range slices.Sorted(maps.Keys(d.Publish)) {
		say("publish  %s=%s", key, d.Publish[key])
	}
	if d.Endpoint != "" {
		say("endpoint %s", d.Endpoint)
	}
	ops := Kind{}.Steps(w.view.Cluster)
	if w.view.Cluster.State == model.ClusterResizing {
		ops = append(ops, Kind{}.Removal(w.view.Cluster)...)
	}
	for _, op := range ops {
		p := d.Progress[op]
		_, name, _ := strings.Cut(op, "_KUBERNETES_CLUSTER_")
		line := fmt.Sprintf("%-9s %s %s", p.State, name, p.Message)
		say("%s", strings.TrimSpace(line))
		if p.Error != nil {
			say("          %s", p.Error.Code)
		}
	}
	for _, c := range d.Conditions {
		say("%s=%s (%s)", c.Type, c.Status, c.Message)
	}
	if d.Failed != nil {
		say("FAILED   %v", d.Failed)
	}
	if d.Ready {
		say("READY")
	}
	return out
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			was := "(end)"
			if i < len(w) {
				was = w[i]
			}
			return fmt.Sprintf("line %d\n got: %s\nwant: %s", i+1, g[i], was)
		}
	}
	return fmt.Sprintf("line %d\n got: (end)\nwant: %s", len(g)+1, w[len(g)])
}
