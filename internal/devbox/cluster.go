package devbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/pleiad/pleiad/internal/model"
)

// nodesTimeout is how long the nodes of a cluster that is there may take to be
// Ready: after a reboot of the machine they start first.
const nodesTimeout = 5 * time.Minute

// cluster makes the cluster, waits for its nodes and shows them. What an earlier
// Up began is followed to its end; what failed then is made again.
func (o *Options) cluster(ctx context.Context) error {
	c, err := o.findCluster(ctx)
	if err != nil {
		return err
	}
	if c.busy() {
		followed := o.run(ctx, "task", "monitor", c.task)
		if c, err = o.findCluster(ctx); err != nil {
			return err
		}
		if c.busy() { // not the task's end, but that of following it
			return errors.Join(fmt.Errorf("cluster %s is still %s", o.Cluster, c.state), followed)
		}
	}
	if c.failed() {
		if err := o.run(ctx, "cluster", "delete", c.id); err != nil {
			return err
		}
		c = cluster{}
	}
	if c.id == "" {
		if err := o.run(ctx, "cluster", "create", "-n", o.Cluster, "-k", "KUBERNETES", "-c", fmt.Sprint(o.Workers)); err != nil {
			return err
		}
	}
	kubeconfig := o.path(o.Cluster + ".kubeconfig")
	if err := o.quiet(ctx, io.Discard, "cluster", "kubeconfig", o.Cluster, "--file", kubeconfig); err != nil {
		return err
	}
	if err := o.nodesReady(ctx, kubeconfig); err != nil {
		return err
	}
	o.say("\n$ kubectl get nodes")
	cmd := o.kubectlCommand(ctx, kubeconfig, "get", "nodes")
	cmd.Stdout, cmd.Stderr = o.Out, o.Out
	return cmd.Run()
}

// cluster is what must be known of the cluster; without an id there is none.
type cluster struct {
	id, task string
	state    model.ClusterState
}

// findCluster looks for the cluster by its name.
func (o *Options) findCluster(ctx context.Context) (cluster, error) {
	clusters, err := o.list(ctx, "cluster", "list")
	if err != nil {
		return cluster{}, err
	}
	found := clusters.find("name", o.Cluster)
	id, _ := found["id"].(string)
	task, _ := found["taskId"].(string)
	state, _ := found["state"].(string)
	return cluster{id, task, model.ClusterState(state)}, nil
}

// busy reports whether a task is at work on the cluster.
func (c cluster) busy() bool {
	return c.state == model.ClusterCreating || c.state == model.ClusterResizing || c.state == model.ClusterPendingDelete
}

func (c cluster) failed() bool {
	return c.state == model.ClusterRecoverableError || c.state == model.ClusterFatalError
}

// nodesReady waits until all nodes are Ready. It asks kubectl again when that
// fails: the cluster's API may not answer yet.
func (o *Options) nodesReady(ctx context.Context, kubeconfig string) error {
	ctx, cancel := context.WithTimeout(ctx, nodesTimeout)
	defer cancel()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		out, err := o.kubectlCommand(ctx, kubeconfig, "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=30s").CombinedOutput()
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("not all nodes of cluster %s are Ready: %w: %s", o.Cluster, err, bytes.TrimSpace(out))
		}
	}
}

func (o *Options) kubectlCommand(ctx context.Context, kubeconfig string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, o.path("bin", "kubectl"), append([]string{"--kubeconfig", kubeconfig}, args...)...)
}
