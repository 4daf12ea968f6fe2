package kubernetes

import (
	"fmt"
	"net/netip"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/plan"
)

// Ids of the steps that decisions look at.
const (
	stepInit    = "init"    // leader: the API answers and workers may join
	stepKubelet = "kubelet" // worker: it was told to join
	stepJoined  = "joined"  // worker: the cluster has signed its certificate
	stepToken   = "token"   // leader: the bootstrap token is there again, or gone
	stepReady   = "ready"   // every node: Kubernetes calls it Ready
	stepDNS     = "dns"     // every node: the cluster's DNS answers there
)

// Places on a node. They are kubeadm's, so that its other commands work there.
const (
	pkiDir           = "/etc/kubernetes/pki"
	adminConf        = "/etc/kubernetes/admin.conf"
	kubeletConf      = "/etc/kubernetes/kubelet.conf"
	bootstrapConf    = "/etc/kubernetes/bootstrap-kubelet.conf"
	initConfigFile   = "/etc/kubernetes/kubeadm.conf"
	networkConfFile  = "/etc/cni/net.d/10-flannel.conflist"
	kubeletConfig    = "/var/lib/kubelet/config.yaml"
	kubeletFlags     = "/var/lib/kubelet/kubeadm-flags.env"
	kubeletFirstCert = "/var/lib/kubelet/pki/kubelet-client-first.pem"
	kubeletCert      = "/var/lib/kubelet/pki/kubelet-client-current.pem"
)

// What explains a failure.
var (
	kubeletUnits = []string{"kubelet.service", "containerd.service"}
	podLogs      = []string{"/var/log/pods/kube-system_*/*/*.log"}
)

// leaderPlan makes the control plane and what every node needs of the cluster.
func leaderPlan(v kind.View, img images, node kind.Node, endpoint netip.Addr) plan.Plan {
	steps := []plan.Step{
		{ID: "files", Title: "Write certificates and configuration", Files: leaderFiles(v, img, node, endpoint)},
		// A kubelet replaces its certificate through this link, and only through a link.
		{ID: "certificate", Title: "Hand the kubelet its first certificate",
			Command: &plan.Command{Argv: []string{"ln", "-s", kubeletFirstCert, kubeletCert}, Creates: kubeletCert}},
		startContainerd(),
		{ID: stepInit, Title: "Initialise the control plane",
			Command: &plan.Command{
				// The token must not get into the output, which is shown when the step fails.
				Argv:           []string{"kubeadm", "init", "--config", initConfigFile, "--skip-token-print"},
				TimeoutSeconds: 300,
			},
			LogUnits: kubeletUnits, LogFiles: podLogs},
		// On standard input, so that the step runs again when a manifest changes.
		{ID: "addons", Title: "Install network, kube-proxy and DNS",
			Command: &plan.Command{
				Argv: []string{"kubectl", "--kubeconfig", adminConf, "apply", "--server-side", "--force-conflicts",
					"--field-manager", "pleiad", "--validate=false", "--filename", "-"},
				Stdin: renderAddOns(v, img, endpoint),
			},
			LogFiles: podLogs},
	}
	steps = append(steps, verify(v, node.VM.Name)...)
	return plan.Plan{NodeID: node.VM.ID, Steps: steps}
}

// workerFiles are what all workers of a cluster are given alike.
type workerFiles struct {
	ca, bootstrapConf, networkConfig, kubeletConfig []byte
}

func newWorkerFiles(v kind.View, endpoint netip.Addr) workerFiles {
	ca, token := v.Secrets[secretCA], v.Secrets[secretToken].Token
	return workerFiles{
		ca: ca.Certificate,
		bootstrapConf: newKubeconfig(v.Cluster, endpointURL(endpoint), ca, "tls-bootstrap-token-user",
			kubeconfigAuth{Token: token}).json(),
		networkConfig: networkConfig(),
		kubeletConfig: mustJSON(newKubeletConfiguration(v.Cluster)),
	}
}

// workerPlan prepares a worker, and makes it join once the API is there.
func workerPlan(v kind.View, common workerFiles, node kind.Node, join bool) plan.Plan {
	steps := []plan.Step{
		{ID: "files", Title: "Write the credentials for joining", Files: []plan.File{
			{Path: pkiDir + "/ca.crt", Mode: "0644", Content: common.ca},
			{Path: bootstrapConf, Mode: "0600", Content: common.bootstrapConf},
			{Path: networkConfFile, Mode: "0644", Content: common.networkConfig},
		}},
		startContainerd(),
	}
	if join {
		steps = append(steps,
			plan.Step{ID: "configuration", Title: "Configure the kubelet", Files: []plan.File{
				{Path: kubeletConfig, Mode: "0600", Content: common.kubeletConfig},
				{Path: kubeletFlags, Mode: "0644", Content: fmt.Appendf(nil, "KUBELET_KUBEADM_ARGS=\"--hostname-override=%s --node-ip=%s\"\n",
					node.VM.Name, node.Address())},
			}},
			plan.Step{ID: stepKubelet, Title: "Start the kubelet",
				Service:  &plan.Service{Unit: "kubelet.service", State: "started", Enable: true},
				LogUnits: kubeletUnits},
			plan.Step{ID: stepJoined, Title: "Join the cluster",
				Probe:    &plan.Probe{Exec: []string{"test", "-s", kubeletCert}, TimeoutSeconds: 120},
				LogUnits: kubeletUnits},
			plan.Step{ID: "forget", Title: "Forget the credentials for joining",
				Command: &plan.Command{Argv: []string{"rm", "-f", bootstrapConf}}},
		)
		steps = append(steps, verify(v, node.VM.Name)...)
	}
	return plan.Plan{NodeID: node.VM.ID, Steps: steps}
}

func startContainerd() plan.Step {
	return plan.Step{ID: "containerd", Title: "Start the container runtime",
		Service:  &plan.Service{Unit: "containerd.service", State: "started", Enable: true},
		LogUnits: []string{"containerd.service"}}
}

// verify are the proofs that a node is of use: Kubernetes calls it Ready, and a
// name resolves there, which takes kube-proxy, the pod network and DNS.
func verify(v kind.View, node string) []plan.Step {
	return []plan.Step{
		{ID: stepReady, Title: "Wait for the node to be Ready",
			Probe: &plan.Probe{
				Exec: []string{"kubectl", "--kubeconfig", kubeletConf, "--cache-dir", "/run/kubectl",
					"wait", "--for=condition=Ready", "--timeout=25s", "node/" + node},
				IntervalMillis: 500, TimeoutSeconds: 180,
			},
			LogUnits: kubeletUnits, LogFiles: podLogs},
		{ID: stepDNS, Title: "Resolve a name through the cluster's DNS",
			Probe: &plan.Probe{
				DNS: &plan.DNSProbe{
					Server: netip.AddrPortFrom(serviceAddress(v.Cluster, dnsServiceIndex), 53).String(),
					Name:   "kubernetes.default.svc." + clusterDomain + ".",
				},
				TimeoutSeconds: 120,
			},
			LogUnits: kubeletUnits, LogFiles: podLogs},
	}
}

// leaderFiles are what kubeadm would make itself if it were not there, and its
// configuration. The keys of two of the three CAs are missing on purpose: only
// the cluster's own is needed on a node, to sign kubelets' certificates.
func leaderFiles(v kind.View, img images, node kind.Node, endpoint netip.Addr) []plan.File {
	name, address := node.VM.Name, node.Address()
	own := func(what string) kind.Secret { return v.Secrets[masterSecret(what, name, address)] }

	files := []plan.File{
		{Path: networkConfFile, Mode: "0644", Content: networkConfig()},
		{Path: pkiDir + "/etcd/ca.crt", Mode: "0644", Content: v.Secrets[secretEtcdCA].Certificate},
		{Path: pkiDir + "/front-proxy-ca.crt", Mode: "0644", Content: v.Secrets[secretFrontProxyCA].Certificate},
		{Path: pkiDir + "/sa.key", Mode: "0600", Content: v.Secrets[secretServiceAccount].Key},
		{Path: pkiDir + "/sa.pub", Mode: "0644", Content: v.Secrets[secretServiceAccount].PublicKey},
	}
	for _, pair := range []struct {
		path   string
		secret kind.Secret
	}{
		{"/ca", v.Secrets[secretCA]},
		{"/apiserver", own(ofAPIServer)},
		{"/apiserver-kubelet-client", v.Secrets[secretKubeletClient]},
		{"/apiserver-etcd-client", v.Secrets[secretEtcdClient]},
		{"/front-proxy-client", v.Secrets[secretFrontProxyClient]},
		{"/etcd/server", own(ofEtcdServer)},
		{"/etcd/peer", own(ofEtcdPeer)},
		{"/etcd/healthcheck-client", v.Secrets[secretEtcdHealthcheck]},
	} {
		files = append(files,
			plan.File{Path: pkiDir + pair.path + ".crt", Mode: "0644", Content: pair.secret.Certificate},
			plan.File{Path: pkiDir + pair.path + ".key", Mode: "0600", Content: pair.secret.Key})
	}

	// The components of a control plane node talk to its own API server.
	ca, local, shared := v.Secrets[secretCA], endpointURL(address), endpointURL(endpoint)
	config := func(path, server, user, secret string) plan.File {
		return plan.File{Path: path, Mode: "0600", Content: clientConfig(v.Cluster, server, ca, user, v.Secrets[secret]).json()}
	}
	kubelet := own(ofKubelet)
	return append(files,
		config(adminConf, shared, "kubernetes-admin", secretAdmin),
		config("/etc/kubernetes/super-admin.conf", shared, "kubernetes-super-admin", secretSuperAdmin),
		config("/etc/kubernetes/controller-manager.conf", local, "system:kube-controller-manager", secretControllerManager),
		config("/etc/kubernetes/scheduler.conf", local, "system:kube-scheduler", secretScheduler),
		plan.File{Path: kubeletConf, Mode: "0600", Content: newKubeconfig(v.Cluster, shared, ca, "system:node:"+name,
			kubeconfigAuth{Certificate: kubeletCert, Key: kubeletCert}).json()},
		plan.File{Path: kubeletFirstCert, Mode: "0600", Content: append(append([]byte{}, kubelet.Certificate...), kubelet.Key...)},
		plan.File{Path: initConfigFile, Mode: "0600",
			Content: initConfig(v.Cluster, img, name, address, endpoint, v.Secrets[secretToken].Token)},
	)
}
