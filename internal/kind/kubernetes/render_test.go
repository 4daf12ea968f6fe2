package kubernetes

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/plan"
)

// settled is a cluster whose nodes all have their whole plans.
func settled(t *testing.T, workers int) *world {
	t.Helper()
	w := newWorld(&model.Cluster{Meta: model.Meta{Name: "demo"}, WorkerCount: workers})
	for range 5 {
		w.decide()
		if err := w.carryOut(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for _, n := range w.view.Nodes {
			if err := w.run(n.VM.Name, "all"); err != nil {
				t.Fatal(err)
			}
		}
		w.decide()
		if err := w.carryOut(); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func files(t *testing.T, n *kind.Node) map[string]plan.File {
	t.Helper()
	out := map[string]plan.File{}
	for _, s := range n.Plan.Steps {
		for _, f := range s.Files {
			if _, twice := out[f.Path]; twice {
				t.Errorf("%s is written twice", f.Path)
			}
			out[f.Path] = f
		}
	}
	return out
}

func step(t *testing.T, n *kind.Node, id string) plan.Step {
	t.Helper()
	for _, s := range n.Plan.Steps {
		if s.ID == id {
			return s
		}
	}
	t.Fatalf("%s has no step %s", n.VM.Name, id)
	return plan.Step{}
}

// TestGolden compares the whole of what is rendered with testdata/golden, where
// it can be read.
func TestGolden(t *testing.T) {
	w := settled(t, 2)
	master, worker := w.node("demo-master-0"), w.node("demo-worker-0")
	access, err := Kind{}.Access(w.view)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{
		"kubeadm.conf":           files(t, master)[initConfigFile].Content,
		"kubelet.conf":           files(t, master)[kubeletConf].Content,
		"addons.yaml":            step(t, master, "addons").Command.Stdin,
		"kubelet-config.json":    files(t, worker)[kubeletConfig].Content,
		"10-flannel.conflist":    files(t, worker)[networkConfFile].Content,
		"kubelet-flags.env":      files(t, worker)[kubeletFlags].Content,
		"bootstrap-kubelet.conf": files(t, worker)[bootstrapConf].Content,
		"kubeconfig.yaml":        access["kubeconfig"],
	} {
		path := filepath.Join("testdata", "golden", name)
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %s", path, firstDifference(string(got), string(want)))
		}
	}
}

// documents splits a stream as kubectl and kubeadm do.
func documents(stream []byte) [][]byte {
	return bytes.Split(stream, []byte("\n---\n"))
}

func TestKubeadmConfigIsStrict(t *testing.T) {
	w := settled(t, 2)
	docs := documents(files(t, w.node("demo-master-0"))[initConfigFile].Content)
	var init initConfiguration
	var cluster clusterConfiguration
	var kubelet kubeletConfiguration
	for i, into := range []any{&init, &cluster, &kubelet} {
		if err := yaml.UnmarshalStrict(docs[i], into); err != nil {
			t.Errorf("document %d: %v", i, err)
		}
	}
	if got := init.BootstrapTokens[0].Token; got != w.view.Secrets[secretToken].Token {
		t.Errorf("the bootstrap token is %q", got)
	}
	if got, want := cluster.ControlPlaneEndpoint, "100.64.10.20:6443"; got != want {
		t.Errorf("controlPlaneEndpoint is %q, want %q", got, want)
	}
	if got, want := kubelet.ClusterDNS, []string{"10.96.0.10"}; !slices.Equal(got, want) {
		t.Errorf("clusterDNS is %v, want %v", got, want)
	}
	// The worker's file is the same one that kubeadm gives the master's kubelet.
	if got := files(t, w.node("demo-worker-0"))[kubeletConfig].Content; !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(docs[2])) {
		t.Error("master and worker get different kubelet configurations")
	}
}

func TestMasterWorksAloneOnlyWithoutWorkers(t *testing.T) {
	for workers, taints := range map[int]int{0: 0, 1: 1} {
		w := settled(t, workers)
		var init initConfiguration
		if err := yaml.Unmarshal(documents(files(t, w.node("demo-master-0"))[initConfigFile].Content)[0], &init); err != nil {
			t.Fatal(err)
		}
		if len(init.NodeRegistration.Taints) != taints {
			t.Errorf("with %d workers the master has taints %v", workers, init.NodeRegistration.Taints)
		}
	}
}

type manifest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Spec struct {
		Replicas *int `json:"replicas"`
		Template struct {
			Spec struct {
				Containers []struct {
					Image           string `json:"image"`
					ImagePullPolicy string `json:"imagePullPolicy"`
				} `json:"containers"`
			} `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
	Data map[string]string `json:"data"`
}

func TestManifests(t *testing.T) {
	w := settled(t, 2)
	inImage := map[string]bool{}
	for _, ref := range w.view.Image.ContainerImages {
		inImage[ref] = true
	}
	seen := map[string]manifest{}
	for _, doc := range documents(step(t, w.node("demo-master-0"), "addons").Command.Stdin) {
		var m manifest
		if err := yaml.Unmarshal(doc, &m); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		id := m.Kind + "/" + m.Metadata.Name
		if _, twice := seen[id]; twice || m.APIVersion == "" || m.Kind == "" || m.Metadata.Name == "" {
			t.Errorf("%s is there twice or incomplete", id)
		}
		seen[id] = m
		for _, c := range m.Spec.Template.Spec.Containers {
			if !inImage[c.Image] || c.ImagePullPolicy != "IfNotPresent" {
				t.Errorf("%s: image %q (%s) is not one of the node image's", id, c.Image, c.ImagePullPolicy)
			}
		}
		for key, text := range m.Data {
			if strings.HasSuffix(key, ".json") || strings.HasSuffix(key, ".conf") {
				var any map[string]any
				if err := yaml.UnmarshalStrict([]byte(text), &any); err != nil {
					t.Errorf("%s: %s: %v", id, key, err)
				}
			}
		}
	}
	for _, id := range []string{"DaemonSet/kube-proxy", "DaemonSet/flannel", "Deployment/coredns", "Service/kube-dns"} {
		if _, ok := seen[id]; !ok {
			t.Errorf("%s is missing", id)
		}
	}
	if got := *seen["Deployment/coredns"].Spec.Replicas; got != 2 {
		t.Errorf("coredns has %d replicas on three nodes", got)
	}
}

// TestSecretsAreHandledAsSuch: no key or token in arguments, which any process of
// the node can see, and none in a file that others can read.
func TestSecretsAreHandledAsSuch(t *testing.T) {
	w := settled(t, 2)
	_, _, tokenSecret := tokenObject(w.view.Secrets[secretToken].Token)
	isSecret := func(b []byte) bool {
		return bytes.Contains(b, []byte("<key ")) || bytes.Contains(b, []byte(tokenSecret)) ||
			bytes.Contains(b, []byte("client-key-data"))
	}
	secrets := 0
	for _, n := range w.view.Nodes {
		for _, s := range n.Plan.Steps {
			for _, f := range s.Files {
				if isSecret(f.Content) {
					secrets++
					if f.Mode != "0600" {
						t.Errorf("%s: %s has mode %s", n.VM.Name, f.Path, f.Mode)
					}
				}
			}
			if c := s.Command; c != nil {
				for _, a := range append(append([]string{}, c.Argv...), c.Env...) {
					if isSecret([]byte(a)) {
						t.Errorf("%s: step %s shows a secret in %q", n.VM.Name, s.ID, a)
					}
				}
			}
		}
	}
	if secrets < 10 {
		t.Errorf("only %d files with secrets were looked at", secrets)
	}
}

// TestCAKeysStayHome: of the three CAs only the cluster's own key is on a node, and on the master only.
func TestCAKeysStayHome(t *testing.T) {
	w := settled(t, 2)
	for _, n := range w.view.Nodes {
		for path, f := range files(t, &n) {
			for _, ca := range []string{secretCA, secretEtcdCA, secretFrontProxyCA} {
				if bytes.Contains(f.Content, word("key", ca)) && (path != pkiDir+"/ca.key" || n.VM.Role != RoleMaster || ca != secretCA) {
					t.Errorf("%s: %s holds the key of %s", n.VM.Name, path, ca)
				}
			}
		}
	}
}

// TestEverySecretIsUsed finds secrets that are issued for nothing.
func TestEverySecretIsUsed(t *testing.T) {
	w := settled(t, 1)
	var all bytes.Buffer
	for _, n := range w.view.Nodes {
		for _, f := range files(t, &n) {
			all.Write(f.Content)
		}
	}
	for name, s := range w.view.Secrets {
		for _, part := range [][]byte{s.Certificate, s.PublicKey, []byte(s.Token)} {
			if len(part) > 0 && !bytes.Contains(all.Bytes(), part) && !containsBase64(all.Bytes(), part) {
				t.Errorf("%s is issued, but not given to any node", name)
			}
		}
	}
}

func TestTokenIsMadeAgainWithAnEnd(t *testing.T) {
	w := settled(t, 1)
	n := w.node("demo-worker-0")
	n.Report, n.Plan, n.VM.CreatedTime = nil, nil, 86_400_000
	w.decide()
	if err := w.carryOut(); err != nil {
		t.Fatal(err)
	}
	made := step(t, w.node("demo-master-0"), stepToken)
	var secret tokenSecret
	if err := yaml.UnmarshalStrict(made.Command.Stdin, &secret); err != nil {
		t.Fatal(err)
	}
	if got, want := string(secret.Data["expiration"]), "1970-01-03T00:00:00Z"; got != want {
		t.Errorf("the token expires at %s, want %s", got, want)
	}
	if got := string(secret.Data["token-id"]) + "." + string(secret.Data["token-secret"]); got != w.view.Secrets[secretToken].Token {
		t.Errorf("the token is %s", got)
	}
}

func TestAccessNeedsAnEndpoint(t *testing.T) {
	w := newWorld(&model.Cluster{Meta: model.Meta{Name: "demo"}})
	if _, err := (Kind{}).Access(w.view); err == nil {
		t.Error("a kubeconfig for a cluster that is not there")
	}
}

func containsBase64(in, part []byte) bool {
	return bytes.Contains(in, []byte(base64.StdEncoding.EncodeToString(part)))
}
