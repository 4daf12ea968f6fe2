package kubernetes

import (
	"bytes"
	"embed"
	"fmt"
	"net/netip"
	"strings"
	"text/template"

	"github.com/pleiad/pleiad/internal/kind"
)

//go:embed manifests/*.yaml
var manifestFiles embed.FS

var manifests = template.Must(template.New("").Option("missingkey=error").ParseFS(manifestFiles, "manifests/*.yaml"))

// addOns are in the order in which they are applied: what a node needs to be
// Ready comes first.
var addOns = []string{"flannel.yaml", "kube-proxy.yaml", "coredns.yaml"}

// addOnValues are what the manifests are filled with.
type addOnValues struct {
	images
	PodCIDR      string
	DNSAddress   netip.Addr
	DNSReplicas  int
	Domain       string
	Upstream     string
	EndpointURL  string
	EndpointHost string
	EndpointPort int
}

// renderAddOns returns the manifests of the network, kube-proxy and DNS as one stream.
func renderAddOns(v kind.View, img images, endpoint netip.Addr) []byte {
	values := addOnValues{
		images:       img,
		PodCIDR:      v.Cluster.PodCIDR,
		DNSAddress:   serviceAddress(v.Cluster, dnsServiceIndex),
		DNSReplicas:  min(2, v.Cluster.ControlPlane.Count+v.Cluster.WorkerCount),
		Domain:       clusterDomain,
		Upstream:     "/etc/resolv.conf", // the node's own servers
		EndpointURL:  endpointURL(endpoint),
		EndpointHost: endpoint.String(),
		EndpointPort: apiPort,
	}
	if v.Subnet != nil && len(v.Subnet.DNS) > 0 {
		values.Upstream = strings.Join(v.Subnet.DNS, " ")
	}
	var out bytes.Buffer
	for i, name := range addOns {
		if i > 0 {
			out.WriteString("---\n")
		}
		// The templates are part of the program and the values plain: a failure is a
		// programming error, found by the package's tests.
		if err := manifests.ExecuteTemplate(&out, name, values); err != nil {
			panic(fmt.Sprintf("rendering %s: %v", name, err))
		}
	}
	return out.Bytes()
}
