package kubernetes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/plan"
)

// Workers that are to go are first cordoned, all of them, so that no pod moves
// from one to the next; then each is drained, removed from the cluster, and its
// VM deleted. The leader does it: it has the right to, and is there when the
// worker is not.

// Ids of the leader's steps about a node.
func stepDrain(node string) string    { return "drain/" + node }
func stepRemove(node string) string   { return "remove/" + node }
func stepUncordon(node string) string { return "uncordon/" + node }

// Scripts get the nodes' names as arguments. A node that the cluster does not
// know has nothing to be drained of; that it could not be asked for is an error.
const (
	cordonScript = `set -e
for n; do
  known=$(kubectl get node "$n" --ignore-not-found -o name)
  [ -z "$known" ] || kubectl cordon "$n"
done`
	drainScript = `set -e
known=$(kubectl get node "$1" --ignore-not-found -o name)
[ -z "$known" ] || exec kubectl drain "$@"`
)

// drainTimeout of one attempt, in seconds; a step has maxAttempts. A pod on a
// node that is dead never ends: it is not waited for longer than skipAfter.
const (
	drainTimeout = 60
	skipAfter    = 30
)

// leave are the leader's steps about nodes that are to go, and about those that
// were to go and are wanted again.
func (s *situation) leave() []plan.Step {
	var steps []plan.Step
	kubectl := func(id, title string, argv ...string) {
		steps = append(steps, plan.Step{ID: id, Title: title, Command: &plan.Command{
			Argv: argv,
			// The task's id makes another attempt of what failed in an earlier task.
			Env:            []string{"KUBECONFIG=" + adminConf, "PLEIAD_TASK=" + s.view.Cluster.TaskID},
			TimeoutSeconds: 2 * drainTimeout,
		}})
	}
	leader := s.members[0]
	for _, m := range s.members[1:] {
		if leader.toldTo(stepDrain(m.spec.Name)) || leader.toldTo(stepUncordon(m.spec.Name)) {
			steps = append(steps, plan.Step{ID: stepUncordon(m.spec.Name), Title: "Let pods run on " + m.spec.Name + " again",
				Command: &plan.Command{Argv: []string{"kubectl", "--kubeconfig", adminConf, "uncordon", m.spec.Name}}})
		}
	}
	names := s.leaving()
	if len(names) == 0 {
		return steps
	}
	kubectl("cordon", "Keep new pods off "+strings.Join(names, ", "), append([]string{"sh", "-c", cordonScript, "sh"}, names...)...)
	for _, n := range names {
		argv := []string{"sh", "-c", drainScript, "sh", n, "--ignore-daemonsets", "--delete-emptydir-data",
			fmt.Sprintf("--timeout=%ds", drainTimeout), fmt.Sprintf("--skip-wait-for-delete-timeout=%d", skipAfter)}
		if s.view.Cluster.ForceDrain {
			argv = append(argv, "--force", "--disable-eviction")
		}
		kubectl(stepDrain(n), "Drain "+n, argv...)
		kubectl(stepRemove(n), "Remove "+n+" from the cluster", "kubectl", "delete", "node", n, "--ignore-not-found")
	}
	return steps
}

// leaving are the names of the nodes that are to go and are not going yet.
func (s *situation) leaving() []string {
	var names []string
	for _, n := range s.surplus {
		if !n.VM.Deleting {
			names = append(names, n.VM.Name)
		}
	}
	return names
}

// removable are the ids of the nodes that the cluster has let go.
func (s *situation) removable() []string {
	var ids []string
	for _, n := range s.surplus {
		if !n.VM.Deleting && s.members[0].done(stepRemove(n.VM.Name)) {
			ids = append(ids, n.VM.ID)
		}
	}
	return ids
}

// surplusOf are the nodes that no spec wants, sorted by name.
func surplusOf(specs []kind.NodeSpec, nodes []kind.Node) []*kind.Node {
	wanted := make(map[string]bool, len(specs))
	for _, s := range specs {
		wanted[s.Name] = true
	}
	var out []*kind.Node
	for i := range nodes {
		if !wanted[nodes[i].VM.Name] {
			out = append(out, &nodes[i])
		}
	}
	slices.SortFunc(out, func(a, b *kind.Node) int { return strings.Compare(a.VM.Name, b.VM.Name) })
	return out
}
