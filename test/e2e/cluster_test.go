package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/model"
)

// TestCluster is a cluster's life: made across two hosts, used, deleted, and its
// name and quota free again.
func TestCluster(t *testing.T) {
	b := newBox(t)

	t.Run("bringing it up again changes nothing", func(t *testing.T) {
		before := get[[]model.Task](t, b, "task", "list")
		b.up(t)
		if after := get[[]model.Task](t, b, "task", "list"); len(after) != len(before) {
			t.Errorf("there were %d tasks and now are %d", len(before), len(after))
		}
	})
	t.Run("refusals", func(t *testing.T) { refusals(t, b) })

	b.run(t, 5*time.Minute, "cluster", "create", "-n", "demo", "-k", "KUBERNETES", "-c", "2")
	cluster := get[model.Cluster](t, b, "cluster", "show", "demo")
	if cluster.State != model.ClusterReady || cluster.WorkerCount != 2 {
		t.Fatalf("cluster is %s with %d workers", cluster.State, cluster.WorkerCount)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(b.run(t, time.Minute, "cluster", "kubeconfig", "demo")), 0o600); err != nil {
		t.Fatal(err)
	}

	vms := get[[]model.VM](t, b, "cluster", "list-vms", "demo")
	t.Run("its nodes are spread over the hosts", func(t *testing.T) {
		perHost := map[string]int{}
		for _, v := range vms {
			perHost[v.HostID]++
		}
		if len(vms) != 3 || len(perHost) != 2 {
			t.Errorf("%d nodes on %d hosts: %v", len(vms), len(perHost), perHost)
		}
	})
	t.Run("kubectl sees all nodes ready", func(t *testing.T) {
		out := b.kube(t, kubeconfig, "get", "nodes", "-o",
			`jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`)
		if strings.Count(out, " True\n") != 3 {
			t.Errorf("nodes:\n%s", out)
		}
	})
	t.Run("its etcd keeps its fsync", func(t *testing.T) {
		out := b.kube(t, kubeconfig, "get", "pods", "-n", "kube-system", "-l", "component=etcd", "-o", "jsonpath={.items[*].spec.containers[*].command}")
		if !strings.Contains(out, "--data-dir") || strings.Contains(out, "fsync") {
			t.Errorf("etcd is run as %s", out)
		}
	})
	t.Run("a service on two nodes is reached", func(t *testing.T) { service(t, b, kubeconfig, vms) })
	t.Run("it grows and shrinks while it is used", func(t *testing.T) { resized(t, b, kubeconfig) })
	t.Run("the server may restart", func(t *testing.T) {
		b.restartServer(t)
		if c := get[model.Cluster](t, b, "cluster", "show", "demo"); c.State != model.ClusterReady {
			t.Errorf("after a restart of the server the cluster is %s", c.State)
		}
	})

	b.refuse(t, "ContainerNotEmpty", "project", "delete", get[[]model.Project](t, b, "project", "list")[0].ID)
	b.run(t, 5*time.Minute, "cluster", "delete", "demo")
	t.Run("nothing is left of it", func(t *testing.T) { gone(t, b) })
	b.run(t, 5*time.Minute, "cluster", "create", "-n", "demo", "-k", "KUBERNETES", "-c", "0") // the name is free
	b.run(t, 5*time.Minute, "cluster", "delete", "demo")
	gone(t, b)
}

const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: %[1]s
        command: [sh, -c, 'mkdir /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www']
        readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
`

// service runs two replicas on two nodes and reaches them from outside by every
// node's port, and each from the other's node, by name.
func service(t *testing.T, b *box, kubeconfig string, vms []model.VM) {
	image := b.busybox(t)
	if out, err := b.tryKube(t, kubeconfig, fmt.Sprintf(web, image), "apply", "-f", "-"); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	b.kube(t, kubeconfig, "rollout", "status", "deployment/web", "--timeout=100s")
	pods := strings.Fields(b.kube(t, kubeconfig, "get", "pods", "-l", "app=web", "-o",
		`jsonpath={range .items[*]}{.metadata.name}/{.spec.nodeName}/{.status.podIP} {end}`))
	if len(pods) != 2 {
		t.Fatalf("pods: %v", pods)
	}
	var names, nodes, ips []string
	for _, p := range pods {
		f := strings.Split(p, "/")
		names, nodes, ips = append(names, f[0]), append(nodes, f[1]), append(ips, f[2])
	}
	if nodes[0] == nodes[1] {
		t.Errorf("both replicas are on %s", nodes[0])
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, v := range vms {
		url := "http://" + v.Networks[0].IPAddress + ":30080/"
		seen := map[string]bool{}
		eventually(t, "both replicas answer at "+url, time.Minute, func() (bool, string) {
			resp, err := client.Get(url)
			if err != nil {
				return false, err.Error()
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return false, err.Error()
			}
			seen[strings.TrimSpace(string(body))] = true
			return seen[names[0]] && seen[names[1]], fmt.Sprint(seen)
		})
	}
	for i, name := range names {
		other := ips[1-i]
		if out := b.kube(t, kubeconfig, "exec", name, "--", "wget", "-q", "-O", "-", "http://"+other+":8080/"); strings.TrimSpace(out) != names[1-i] {
			t.Errorf("%s at %s says %q, not %s", name, other, out, names[1-i])
		}
		if out := b.kube(t, kubeconfig, "exec", name, "--", "wget", "-q", "-O", "-", "http://web.default.svc.cluster.local/"); !slices.Contains(names, strings.TrimSpace(out)) {
			t.Errorf("by its DNS name the service says %q", out)
		}
	}
}

// resized has a worker join, and then takes one away that pods run on: they go on elsewhere.
func resized(t *testing.T, b *box, kubeconfig string) {
	b.run(t, 5*time.Minute, "cluster", "resize", "demo", "3")
	nodes := func() []string {
		return strings.Fields(b.kube(t, kubeconfig, "get", "nodes", "-o",
			`jsonpath={range .items[?(@.status.conditions[-1].status=="True")]}{.metadata.name} {end}`))
	}
	if got := nodes(); !slices.Equal(got, []string{"demo-master-0", "demo-worker-0", "demo-worker-1", "demo-worker-2"}) {
		t.Fatalf("ready nodes after growing: %v", got)
	}
	left := b.kube(t, kubeconfig, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].spec.nodeName}")
	b.run(t, 5*time.Minute, "cluster", "resize", "demo", "2", "--node", left)
	if got := nodes(); len(got) != 3 || slices.Contains(got, left) {
		t.Errorf("ready nodes without %s: %v", left, got)
	}
	for _, v := range get[[]model.VM](t, b, "cluster", "list-vms", "demo") {
		if v.Name == left {
			t.Errorf("the VM of %s is still there", left)
		}
	}
	b.kube(t, kubeconfig, "rollout", "status", "deployment/web", "--timeout=100s")
	if on := b.kube(t, kubeconfig, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"); strings.Contains(on, left) {
		t.Errorf("pods run on %s", on)
	}
}

// busybox is the reference of the image that node images carry for tests.
func (b *box) busybox(t *testing.T) string {
	t.Helper()
	for _, img := range get[[]model.Image](t, b, "image", "list") {
		if img.Node != nil && img.Node.ContainerImages["busybox"] != "" {
			return img.Node.ContainerImages["busybox"]
		}
	}
	t.Fatal("no node image carries busybox")
	return ""
}

// gone checks that no cluster, VM or use of quota is left.
func gone(t *testing.T, b *box) {
	t.Helper()
	if c := get[[]model.Cluster](t, b, "cluster", "list"); len(c) != 0 {
		t.Errorf("clusters left: %v", c)
	}
	if v := get[[]model.VM](t, b, "vm", "list"); len(v) != 0 {
		t.Errorf("VMs left: %v", v)
	}
	for _, p := range get[[]model.Project](t, b, "project", "list") {
		for _, u := range p.ResourceTicket.Usage {
			if u.Value != 0 {
				t.Errorf("project %s still uses %v %s of %s", p.Name, u.Value, u.Unit, u.Key)
			}
		}
	}
	for i := range 2 {
		if left := b.instances(t, i); left != "" {
			t.Errorf("instances left on host %d: %s", i+1, left)
		}
	}
}
