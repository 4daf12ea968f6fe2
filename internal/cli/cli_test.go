package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/pleiad/pleiad/internal/model"
)

func TestContextFileIsPrivate(t *testing.T) {
	server := newTestServer(t)
	c := newConsole(t)
	if _, stderr, code := c.run("", "target", "set", server.url, "--fingerprint", server.fingerprint); code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if _, stderr, code := c.run(testToken+"\n", "target", "login"); code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for path, want := range map[string]os.FileMode{c.configPath(): 0o600, filepath.Dir(c.configPath()): 0o700 | os.ModeDir} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
	if got := c.config(); got.Token != testToken || got.Fingerprint != server.fingerprint {
		t.Errorf("the context is %+v", got)
	}
	entries, err := os.ReadDir(filepath.Dir(c.configPath()))
	if err != nil || len(entries) != 1 {
		t.Errorf("left beside the context file: %v, %v", entries, err)
	}
}

func TestSettingAnotherTargetForgetsTheToken(t *testing.T) {
	first, second := newTestServer(t), newTestServer(t)
	c := loggedIn(t, first)
	if _, stderr, code := c.run("", "target", "set", first.url); code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if got := c.config(); got.Token != testToken || got.Tenant == nil {
		t.Errorf("setting the same target changed the context to %+v", got)
	}
	if _, stderr, code := c.run("", "target", "set", second.url, "--fingerprint", second.fingerprint); code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if got, want := c.config(), (config{Target: second.url, Fingerprint: second.fingerprint}); !reflect.DeepEqual(got, want) {
		t.Errorf("the context is %+v, want %+v", got, want)
	}
}

func TestAnotherCertificateIsRefused(t *testing.T) {
	server, other := newTestServer(t), newTestServer(t)
	c := loggedIn(t, server)
	changed := c.config()
	changed.Fingerprint = other.fingerprint
	if err := changed.save(c.configPath()); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := c.run("", "tenant", "list")
	if code != ExitError || stdout != "" || !strings.Contains(stderr, "pleiad target set") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestEnvironmentOverridesTheContext(t *testing.T) {
	server, other := newTestServer(t), newTestServer(t)
	c := loggedIn(t, server)
	c.env["PLEIAD_TOKEN"] = "nonsense"
	if _, _, code := c.run("", "tenant", "list"); code != ExitError {
		t.Errorf("with a wrong PLEIAD_TOKEN: exit %d", code)
	}
	delete(c.env, "PLEIAD_TOKEN")
	c.env["PLEIAD_TARGET"], c.env["PLEIAD_FINGERPRINT"] = other.url, other.fingerprint
	if _, stderr, _ := c.run("", "tenant", "list"); !strings.Contains(stderr, string(model.CodeMissingAuthToken)) {
		t.Errorf("the token of one server was sent to another: %s", stderr)
	}
	c.env["PLEIAD_TOKEN"] = testToken
	if stdout, stderr, code := c.run("", "-n", "tenant", "list"); code != ExitOK || !strings.Contains(stdout, "acme") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if got := c.config(); got.Target != server.url || got.Token != testToken {
		t.Errorf("overrides were written to the context file: %+v", got)
	}
	for _, line := range []string{"tenant set acme", "target login " + testToken, "target logout"} {
		if _, _, code := c.run("", strings.Fields(line)...); code != ExitError {
			t.Errorf("%s: exit %d, although PLEIAD_TARGET names another server", line, code)
		}
	}
	if got := c.config(); got.Target != server.url || got.Tenant == nil || got.Token != testToken {
		t.Errorf("what belongs to another server was written to the context file: %+v", got)
	}
	elsewhere := filepath.Join(c.home, "elsewhere.json")
	c.env["PLEIAD_CONFIG"] = elsewhere
	if _, stderr, code := c.run("", "target", "set", other.url, "--fingerprint", other.fingerprint); code != ExitOK {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if _, err := os.Stat(elsewhere); err != nil {
		t.Error(err)
	}
}

func TestUploadSendsTheWholeFile(t *testing.T) {
	server := newTestServer(t)
	c := loggedIn(t, server)
	path := writeFile(t, filepath.Join(c.home, "big"), strings.Repeat("0123456789abcdef", 1<<16))
	if _, stderr, code := c.run("", "-n", "image", "create", path); code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if server.uploaded != 1<<20 {
		t.Errorf("%d bytes arrived, want %d", server.uploaded, 1<<20)
	}
}

func TestClusterCreateSendsWhatItsFlagsSay(t *testing.T) {
	server := newTestServer(t)
	c := loggedIn(t, server)
	_, stderr, code := c.run("", "-n", "cluster", "create", "-n", "full", "-k", "Swarm", "-v", "small", "-d", "disk", "-w", "nodes", "-s", "2",
		"--dns", "100.64.10.2", "--gateway", "100.64.10.1", "--netmask", "255.255.255.0", "--etcd1", "100.64.10.9", "--master-ip", "100.64.10.8",
		"--control-plane", "3", "--version", "v1", "--image_id", "kubernetes-v1.37.1", "--master-vm-flavor", "big", "--worker-vm-flavor", "small",
		"--pod-cidr", "10.1.0.0/16", "--service-cidr", "10.2.0.0/16", "--batchSize", "5", "--wait-for-ready")
	if code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	workers, masters := 2, 3
	want := model.ClusterCreateSpec{
		Name: "full", Type: "SWARM", VMFlavor: "small", DiskFlavor: "disk", SubnetID: subnetID, WorkerCount: &workers,
		WorkerBatchExpansionSize: 5, Version: "v1", ImageID: imageID, ControlPlaneCount: &masters,
		ControlPlaneFlavor: "big", WorkerFlavor: "small", PodCIDR: "10.1.0.0/16", ServiceCIDR: "10.2.0.0/16",
		ExtendedProperties: map[string]string{"dns": "100.64.10.2", "gateway": "100.64.10.1", "netmask": "255.255.255.0",
			"etcd_ip1": "100.64.10.9", "master_ip": "100.64.10.8"},
	}
	if !reflect.DeepEqual(server.cluster, want) {
		t.Errorf("sent %+v\nwant %+v", server.cluster, want)
	}
}

func TestHostAndSubnetSendWhatTheirFlagsSay(t *testing.T) {
	server := newTestServer(t)
	c := loggedIn(t, server)
	secret := writeFile(t, filepath.Join(c.home, "secret"), "trust me\n")
	if _, stderr, code := c.run("", "-n", "host", "create", "-i", "100.64.1.2:8443", "-t", "cloud,mgmt", "-z", "rack-1", "-u", "root",
		"-m", `{"a": "b"}`, "--driver", "lxd", "--password-file", secret); code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	wantHost := model.HostCreateSpec{Address: "100.64.1.2:8443", Username: "root", Password: "trust me", AvailabilityZone: "rack-1",
		UsageTags: []string{"CLOUD", "MGMT"}, Metadata: map[string]string{"a": "b"}, Driver: "lxd"}
	if !reflect.DeepEqual(server.host, wantHost) {
		t.Errorf("sent %+v\nwant %+v", server.host, wantHost)
	}
	if _, stderr, code := c.run("", "-n", "network", "create", "-n", "pods", "-d", "for pods", "-p", "br0, br1", "--cidr", "100.64.20.0/24",
		"--gateway", "100.64.20.1", "--dns", "100.64.20.2", "--range", "100.64.20.10-100.64.20.99"); code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	wantSubnet := model.SubnetCreateSpec{Name: "pods", Description: "for pods", PortGroups: []string{"br0", "br1"}, CIDR: "100.64.20.0/24",
		Gateway: "100.64.20.1", DNS: []string{"100.64.20.2"}, RangeStart: "100.64.20.10", RangeEnd: "100.64.20.99"}
	if !reflect.DeepEqual(server.subnet, wantSubnet) {
		t.Errorf("sent %+v\nwant %+v", server.subnet, wantSubnet)
	}
}

func TestClusterShowIsOneDocument(t *testing.T) {
	c := loggedIn(t, newTestServer(t))
	for output, decode := range map[string]func([]byte, any) error{
		"json": json.Unmarshal,
		"yaml": func(b []byte, v any) error { return yaml.Unmarshal(b, v) },
	} {
		stdout, stderr, code := c.run("", "cluster", "show", "demo", "-o", output)
		if code != ExitOK {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		var got shownCluster
		if err := decode([]byte(stdout), &got); err != nil {
			t.Fatalf("%s: %v in %s", output, err, stdout)
		}
		if got.ID != clusterID || got.Endpoint != "https://100.64.10.20:6443" || len(got.VMs) != 2 || got.VMs[0].ID != masterID {
			t.Errorf("%s: %+v", output, got)
		}
	}
}

func TestKubeconfigFiles(t *testing.T) {
	c := loggedIn(t, newTestServer(t))
	path := filepath.Join(c.home, ".kube", "config")
	writeFile(t, path, "apiVersion: v1\nkind: Config\npreferences: {colors: true}\ncurrent-context: other\n"+
		"clusters: [{name: other, cluster: {server: 'https://other'}}, {name: demo, cluster: {server: 'https://old'}}]\n"+
		"users: [{name: kubernetes-admin, user: {token: other}}]\n"+
		"contexts: [{name: other, context: {cluster: other, user: kubernetes-admin}}]\n")
	if _, stderr, code := c.run("", "cluster", "kubeconfig", "demo", "--merge"); code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := yaml.Unmarshal(content, &got); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte("apiVersion: v1\nkind: Config\npreferences: {colors: true}\ncurrent-context: kubernetes-admin@demo\n"+
		"clusters: [{name: other, cluster: {server: 'https://other'}}, {name: demo, cluster: {server: 'https://100.64.10.20:6443'}}]\n"+
		"users: [{name: kubernetes-admin, user: {token: other}}, {name: kubernetes-admin@demo, user: {token: secret}}]\n"+
		"contexts: [{name: other, context: {cluster: other, user: kubernetes-admin}}, {name: kubernetes-admin@demo, context: {cluster: demo, user: kubernetes-admin@demo}}]\n"), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("merged to\n%s", content)
	}
	writeFile(t, path, "- not a kubeconfig")
	if _, _, code := c.run("", "cluster", "kubeconfig", "demo", "--merge"); code != ExitError {
		t.Errorf("merged into what is no kubeconfig: exit %d", code)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "- not a kubeconfig" {
		t.Errorf("what is no kubeconfig was changed to %q, %v", content, err)
	}

	file := filepath.Join(c.home, "k", "demo")
	if _, stderr, code := c.run("", "cluster", "kubeconfig", "demo", "-f", file); code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestCompletion(t *testing.T) {
	c := loggedIn(t, newTestServer(t))
	for _, shell := range []string{"bash", "zsh", "fish"} {
		stdout, stderr, code := c.run("", "completion", shell)
		if code != ExitOK || !strings.Contains(stdout, "pleiad") || !strings.Contains(stdout, "__complete") {
			t.Errorf("%s: exit %d, %d bytes, %s", shell, code, len(stdout), stderr)
		}
	}
	for _, test := range []struct{ line, want string }{
		{"cluster show", "demo\t" + clusterID},
		{"cluster show", clusterID + "\tdemo"},
		{"tenant delete", "acme\t" + tenantID},
		{"cluster create -n x -w", "nodes\t" + subnetID},
		{"tenant list -o", "json"},
		{"cluster", "list-vms\tList the VMs of a cluster"},
		{"-n cluster", "kubeconfig\t"},
	} {
		stdout, stderr, code := c.run("", append(append([]string{"__complete"}, strings.Fields(test.line)...), "")...)
		if code != ExitOK || !strings.Contains(stdout, test.want) {
			t.Errorf("%s: exit %d, no %q in %q %s", test.line, code, test.want, stdout, stderr)
		}
	}
	if stdout, _, code := newConsole(t).run("", "__complete", "cluster", "show", ""); code != ExitOK || strings.Contains(stdout, "rror") {
		t.Errorf("without a target: exit %d, %q", code, stdout)
	}
}

func TestLogFileHasNoSecrets(t *testing.T) {
	c := loggedIn(t, newTestServer(t))
	path := filepath.Join(c.home, "log")
	if _, stderr, code := c.run("", "-n", "-l", path, "target", "login", testToken); code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if _, _, code := c.run("", "-n", "--log-file", path, "cluster", "create", "-n", "fail"); code != ExitError {
		t.Fatalf("exit %d", code)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`command="pleiad target login" exit=0`, `command="pleiad cluster create" exit=1`, "state=ERROR"} {
		if !strings.Contains(string(content), want) {
			t.Errorf("the log has no %s:\n%s", want, content)
		}
	}
	if strings.Contains(string(content), testToken) {
		t.Errorf("the log has the token:\n%s", content)
	}
}

func TestNamesThatAreNotUnique(t *testing.T) {
	server := newTestServer(t)
	server.tenants.put(model.Tenant{Meta: meta("00000000-0000-4000-8000-000000000012", "acme")})
	_, stderr, code := loggedIn(t, server).run("", "tenant", "show", "acme")
	if code != ExitError || !strings.Contains(stderr, tenantID) || !strings.Contains(stderr, "use an id") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// TestCommandsAreComplete checks what every command must have, and that no
// flag of a command takes a letter from a global one.
func TestCommandsAreComplete(t *testing.T) {
	root := New(Env{})
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" || c.RunE == nil && c.Run == nil {
			t.Errorf("%s: no description or nothing to run", c.CommandPath())
		}
		if c != root && c.Args == nil {
			t.Errorf("%s: says nothing of its arguments", c.CommandPath())
		}
		if f := c.Flags().ShorthandLookup("o"); f != nil && f.Name != "output" {
			t.Errorf("%s: -o is --%s", c.CommandPath(), f.Name)
		}
		for _, child := range c.Commands() {
			visit(child)
		}
	}
	visit(root)
}

// TestExtraCommands checks that commands of others run like ours.
func TestExtraCommands(t *testing.T) {
	var out, errs strings.Builder
	ran := false
	extra := &cobra.Command{Use: "server", Args: args(0, 0), RunE: func(*cobra.Command, []string) error { ran = true; return nil }}
	if code := Main([]string{"server"}, strings.NewReader(""), &out, &errs, extra); code != ExitOK || !ran {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	if code := Main([]string{"server", "x"}, strings.NewReader(""), &out, &errs, extra); code != ExitUsage {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}
