package kubernetes

import (
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
)

// kubeconfig is a file that says where an API is and how to authenticate.
type kubeconfig struct {
	APIVersion     string              `json:"apiVersion"`
	Kind           string              `json:"kind"`
	Clusters       []kubeconfigCluster `json:"clusters"`
	Users          []kubeconfigUser    `json:"users"`
	Contexts       []kubeconfigContext `json:"contexts"`
	CurrentContext string              `json:"current-context"`
}

type kubeconfigCluster struct {
	Name    string `json:"name"`
	Cluster struct {
		Server string `json:"server"`
		CAData []byte `json:"certificate-authority-data"`
	} `json:"cluster"`
}

type kubeconfigUser struct {
	Name string         `json:"name"`
	User kubeconfigAuth `json:"user"`
}

// kubeconfigAuth has one of: certificate and key, their file, a token.
type kubeconfigAuth struct {
	CertificateData []byte `json:"client-certificate-data,omitempty"`
	KeyData         []byte `json:"client-key-data,omitempty"`
	Certificate     string `json:"client-certificate,omitempty"`
	Key             string `json:"client-key,omitempty"`
	Token           string `json:"token,omitempty"`
}

type kubeconfigContext struct {
	Name    string `json:"name"`
	Context struct {
		Cluster string `json:"cluster"`
		User    string `json:"user"`
	} `json:"context"`
}

// newKubeconfig renders a kubeconfig with one cluster, one user and one context,
// named as kubeadm names them.
func newKubeconfig(c *model.Cluster, server string, ca kind.Secret, user string, auth kubeconfigAuth) kubeconfig {
	context := user + "@" + c.Name
	cluster := kubeconfigCluster{Name: c.Name}
	cluster.Cluster.Server = server
	cluster.Cluster.CAData = ca.Certificate
	ctx := kubeconfigContext{Name: context}
	ctx.Context.Cluster = c.Name
	ctx.Context.User = user
	return kubeconfig{
		APIVersion:     "v1",
		Kind:           "Config",
		Clusters:       []kubeconfigCluster{cluster},
		Users:          []kubeconfigUser{{Name: user, User: auth}},
		Contexts:       []kubeconfigContext{ctx},
		CurrentContext: context,
	}
}

// clientConfig is a kubeconfig that carries a client certificate and its key.
func clientConfig(c *model.Cluster, server string, ca kind.Secret, user string, client kind.Secret) kubeconfig {
	return newKubeconfig(c, server, ca, user, kubeconfigAuth{CertificateData: client.Certificate, KeyData: client.Key})
}

// json is the form for programs.
func (k kubeconfig) json() []byte { return mustJSON(k) }

// yaml is the form for people.
func (k kubeconfig) yaml() ([]byte, error) { return yaml.Marshal(k) }

// mustJSON renders plain structs of ours, which cannot fail. Whatever reads
// YAML on a node reads JSON as well, and it is made in a tenth of the time,
// which counts where every look at a cluster renders what its nodes should be.
func mustJSON(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("rendering %T: %v", v, err))
	}
	return append(b, '\n')
}
