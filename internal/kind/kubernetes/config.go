package kubernetes

import (
	"bytes"
	"net/netip"

	"github.com/pleiad/pleiad/internal/model"
)

const (
	clusterDomain = "cluster.local"
	criSocket     = "unix:///run/containerd/containerd.sock"
	masterTaint   = "node-role.kubernetes.io/control-plane"
)

// Service addresses that kubeadm, too, gives to the API and to DNS.
const (
	apiServiceIndex = 1
	dnsServiceIndex = 10
)

// serviceAddress is the n-th address of the cluster's service range, which Validate has checked.
func serviceAddress(c *model.Cluster, n int) netip.Addr {
	p, err := netip.ParsePrefix(c.ServiceCIDR)
	if err != nil {
		return netip.Addr{}
	}
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// The types below have those fields of kubeadm's and the kubelet's configuration
// that are set here, under the names of their APIs.

type typeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

type initConfiguration struct {
	typeMeta
	BootstrapTokens  []bootstrapToken `json:"bootstrapTokens"`
	LocalAPIEndpoint struct {
		AdvertiseAddress string `json:"advertiseAddress"`
		BindPort         int    `json:"bindPort"`
	} `json:"localAPIEndpoint"`
	NodeRegistration nodeRegistration `json:"nodeRegistration"`
	SkipPhases       []string         `json:"skipPhases"`
	Timeouts         struct {
		ControlPlaneComponentHealthCheck string `json:"controlPlaneComponentHealthCheck"`
		KubeletHealthCheck               string `json:"kubeletHealthCheck"`
		KubernetesAPICall                string `json:"kubernetesAPICall"`
	} `json:"timeouts"`
}

type bootstrapToken struct {
	Token       string   `json:"token"`
	Description string   `json:"description"`
	TTL         string   `json:"ttl"`
	Usages      []string `json:"usages"`
	Groups      []string `json:"groups"`
}

type nodeRegistration struct {
	Name             string     `json:"name"`
	CRISocket        string     `json:"criSocket"`
	ImagePullPolicy  string     `json:"imagePullPolicy"`
	KubeletExtraArgs []argument `json:"kubeletExtraArgs"`
	// Taints is never left out: kubeadm takes an empty list for none and no list for its own.
	Taints []taint `json:"taints"`
}

type argument struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type taint struct {
	Key    string `json:"key"`
	Effect string `json:"effect"`
}

type clusterConfiguration struct {
	typeMeta
	ClusterName          string        `json:"clusterName"`
	KubernetesVersion    string        `json:"kubernetesVersion"`
	ControlPlaneEndpoint string        `json:"controlPlaneEndpoint"`
	EncryptionAlgorithm  string        `json:"encryptionAlgorithm"`
	ImageRepository      string        `json:"imageRepository"`
	ControllerManager    controlPlane  `json:"controllerManager"`
	Scheduler            controlPlane  `json:"scheduler"`
	Etcd                 etcdConfig    `json:"etcd"`
	Networking           networking    `json:"networking"`
	DNS                  disabledAddOn `json:"dns"`
	Proxy                disabledAddOn `json:"proxy"`
}

type controlPlane struct {
	ExtraArgs []argument `json:"extraArgs,omitempty"`
}

type etcdConfig struct {
	Local struct {
		DataDir         string `json:"dataDir"`
		ImageRepository string `json:"imageRepository"`
		ImageTag        string `json:"imageTag"`
	} `json:"local"`
}

type networking struct {
	DNSDomain     string `json:"dnsDomain"`
	PodSubnet     string `json:"podSubnet"`
	ServiceSubnet string `json:"serviceSubnet"`
}

// disabledAddOn keeps kubeadm from making and upgrading an add-on that is ours.
type disabledAddOn struct {
	Disabled bool `json:"disabled"`
}

type kubeletConfiguration struct {
	typeMeta
	Authentication              kubeletAuthentication `json:"authentication"`
	Authorization               kubeletAuthorization  `json:"authorization"`
	CgroupDriver                string                `json:"cgroupDriver"`
	ClusterDNS                  []string              `json:"clusterDNS"`
	ClusterDomain               string                `json:"clusterDomain"`
	ContainerRuntimeEndpoint    string                `json:"containerRuntimeEndpoint"`
	EvictionHard                map[string]string     `json:"evictionHard"`
	FailCgroupV1                bool                  `json:"failCgroupV1"`
	FailSwapOn                  bool                  `json:"failSwapOn"`
	HealthzBindAddress          string                `json:"healthzBindAddress"`
	HealthzPort                 int                   `json:"healthzPort"`
	ImageGCHighThresholdPercent int                   `json:"imageGCHighThresholdPercent"`
	OOMScoreAdj                 int                   `json:"oomScoreAdj"`
	ResolvConf                  string                `json:"resolvConf"`
	RotateCertificates          bool                  `json:"rotateCertificates"`
	StaticPodPath               string                `json:"staticPodPath"`
}

type kubeletAuthentication struct {
	Anonymous struct {
		Enabled bool `json:"enabled"`
	} `json:"anonymous"`
	Webhook struct {
		Enabled bool `json:"enabled"`
	} `json:"webhook"`
	X509 struct {
		ClientCAFile string `json:"clientCAFile"`
	} `json:"x509"`
}

type kubeletAuthorization struct {
	Mode string `json:"mode"`
}

// newKubeletConfiguration is every kubelet's configuration: kubeadm's defaults,
// spelt out because a worker gets them without kubeadm, and what system
// containers need, which does no harm in a virtual machine: they may have
// cgroups of version 1, see the host's swap, share its disk, and cannot lower an
// OOM score. resolvConf is resolved's list of real servers; the stub's address
// would be the pod's own loopback and make CoreDNS ask itself.
func newKubeletConfiguration(c *model.Cluster) kubeletConfiguration {
	k := kubeletConfiguration{
		typeMeta:                    typeMeta{"kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"},
		Authorization:               kubeletAuthorization{Mode: "Webhook"},
		CgroupDriver:                "cgroupfs",
		ClusterDNS:                  []string{serviceAddress(c, dnsServiceIndex).String()},
		ClusterDomain:               clusterDomain,
		ContainerRuntimeEndpoint:    criSocket,
		EvictionHard:                map[string]string{"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		HealthzBindAddress:          "127.0.0.1",
		HealthzPort:                 10248,
		ImageGCHighThresholdPercent: 100,
		ResolvConf:                  "/run/systemd/resolve/resolv.conf",
		RotateCertificates:          true,
		StaticPodPath:               "/etc/kubernetes/manifests",
	}
	k.Authentication.Webhook.Enabled = true
	k.Authentication.X509.ClientCAFile = pkiDir + "/ca.crt"
	return k
}

// initConfig is the file kubeadm init reads. It holds the bootstrap token.
func initConfig(c *model.Cluster, img images, node string, address, endpoint netip.Addr, token string) []byte {
	init := initConfiguration{
		typeMeta: typeMeta{"kubeadm.k8s.io/v1beta4", "InitConfiguration"},
		BootstrapTokens: []bootstrapToken{{
			Token:       token,
			Description: "Lets the cluster's first workers join.",
			TTL:         tokenTTL.String(),
			Usages:      []string{"signing", "authentication"},
			Groups:      []string{tokenGroup},
		}},
		NodeRegistration: nodeRegistration{
			Name:             node,
			CRISocket:        criSocket,
			ImagePullPolicy:  "Never",
			KubeletExtraArgs: []argument{{"node-ip", address.String()}},
			Taints:           []taint{},
		},
		// preflight: see the package's comment. kubelet-finalize would restart the
		// kubelet to make it use a certificate that it gets in that place at once.
		SkipPhases: []string{"preflight", "kubelet-finalize", "upload-certs", "show-join-command"},
	}
	init.LocalAPIEndpoint.AdvertiseAddress = address.String()
	init.LocalAPIEndpoint.BindPort = apiPort
	init.Timeouts.ControlPlaneComponentHealthCheck = "2m0s"
	init.Timeouts.KubeletHealthCheck = "1m0s"
	init.Timeouts.KubernetesAPICall = "2m0s"
	// Without workers the master does their work.
	if c.WorkerCount > 0 {
		init.NodeRegistration.Taints = []taint{{Key: masterTaint, Effect: "NoSchedule"}}
	}

	cluster := clusterConfiguration{
		typeMeta:             typeMeta{"kubeadm.k8s.io/v1beta4", "ClusterConfiguration"},
		ClusterName:          c.Name,
		KubernetesVersion:    c.Version,
		ControlPlaneEndpoint: netip.AddrPortFrom(endpoint, apiPort).String(),
		EncryptionAlgorithm:  "ECDSA-P256",
		ImageRepository:      img.Repository,
		Networking:           networking{DNSDomain: clusterDomain, PodSubnet: c.PodCIDR, ServiceSubnet: c.ServiceCIDR},
		DNS:                  disabledAddOn{true},
		Proxy:                disabledAddOn{true},
	}
	// At its start the controller manager makes an account and a token for each of
	// its controllers, one after the other; with its default of 20 calls a second
	// that takes five seconds, in which nothing else happens.
	cluster.ControllerManager.ExtraArgs = []argument{{"kube-api-qps", "100"}, {"kube-api-burst", "200"}}
	// A lone controller manager or scheduler has nobody to elect against, and one
	// that is up before the API would wait seconds for its next try.
	if c.ControlPlane.Count == 1 {
		alone := argument{"leader-elect", "false"}
		cluster.ControllerManager.ExtraArgs = append(cluster.ControllerManager.ExtraArgs, alone)
		cluster.Scheduler.ExtraArgs = append(cluster.Scheduler.ExtraArgs, alone)
	}
	cluster.Etcd.Local.DataDir = "/var/lib/etcd"
	cluster.Etcd.Local.ImageRepository = img.EtcdRepository
	cluster.Etcd.Local.ImageTag = img.EtcdTag

	return bytes.Join([][]byte{mustJSON(init), mustJSON(cluster), mustJSON(newKubeletConfiguration(c))}, []byte("---\n"))
}

// networkConfig is what the container runtime reads of the pod network. From
// version 1.1.0 on, the runtime asks the plugins whether they can serve, and
// flannel's cannot before it has its subnet: so no node is Ready, and no pod
// started, too early, after a reboot either. A pod that is started too early
// fails, and is tried again only after many seconds.
func networkConfig() []byte {
	type object = map[string]any
	return mustJSON(object{
		"cniVersion": "1.1.0",
		"name":       "cbr0",
		"plugins": []object{
			{"type": "flannel", "delegate": object{"hairpinMode": true, "isDefaultGateway": true}},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	})
}
