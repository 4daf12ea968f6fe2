package kubernetes

import (
	"net/netip"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
)

// Names of secrets that do not depend on a node.
const (
	secretCA                = "ca"
	secretEtcdCA            = "etcd-ca"
	secretFrontProxyCA      = "front-proxy-ca"
	secretServiceAccount    = "sa"
	secretToken             = "bootstrap-token"
	secretKubeletClient     = "apiserver-kubelet-client"
	secretEtcdClient        = "apiserver-etcd-client"
	secretEtcdHealthcheck   = "etcd-healthcheck-client"
	secretFrontProxyClient  = "front-proxy-client"
	secretAdmin             = "admin"
	secretSuperAdmin        = "super-admin"
	secretControllerManager = "controller-manager"
	secretScheduler         = "scheduler"
)

// tokenPattern is the form of a bootstrap token: a public id, a dot, a secret.
const tokenPattern = "xxxxxx.xxxxxxxxxxxxxxxx"

// sharedSecrets need no address. Subjects and usages are kubeadm's
// (cmd/kubeadm/app/phases/certs and kubeconfig); the bindings of the groups
// kubeadm:cluster-admins and of the kubelet client are made by kubeadm init.
func sharedSecrets() []kind.Request {
	client := func(name, issuer, commonName string, organization ...string) kind.Request {
		return kind.Request{Name: name, Certificate: &kind.CertificateRequest{
			Issuer: issuer, CommonName: commonName, Organization: organization, Client: true,
		}}
	}
	return []kind.Request{
		{Name: secretCA, CA: &kind.CARequest{CommonName: "kubernetes"}},
		{Name: secretEtcdCA, CA: &kind.CARequest{CommonName: "etcd-ca"}},
		{Name: secretFrontProxyCA, CA: &kind.CARequest{CommonName: "front-proxy-ca"}},
		{Name: secretServiceAccount, KeyPair: true},
		{Name: secretToken, Token: tokenPattern},
		client(secretKubeletClient, secretCA, "kube-apiserver-kubelet-client"),
		client(secretEtcdClient, secretEtcdCA, "kube-apiserver-etcd-client"),
		client(secretEtcdHealthcheck, secretEtcdCA, "kube-etcd-healthcheck-client"),
		client(secretFrontProxyClient, secretFrontProxyCA, "front-proxy-client"),
		client(secretAdmin, secretCA, "kubernetes-admin", "kubeadm:cluster-admins"),
		client(secretSuperAdmin, secretCA, "kubernetes-super-admin", "system:masters"),
		client(secretControllerManager, secretCA, "system:kube-controller-manager"),
		client(secretScheduler, secretCA, "system:kube-scheduler"),
	}
}

// masterSecret names a secret of one control plane node at one address, so that
// a node that comes back with another address gets another certificate.
func masterSecret(what, node string, address netip.Addr) string {
	return what + "/" + node + "/" + address.String()
}

const (
	ofAPIServer  = "apiserver"
	ofEtcdServer = "etcd-server"
	ofEtcdPeer   = "etcd-peer"
	ofKubelet    = "kubelet"
)

// masterSecrets are those of one control plane node.
func masterSecrets(c *model.Cluster, node string, address, endpoint netip.Addr) []kind.Request {
	loopback := []netip.Addr{address, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	etcd := func(what string) kind.Request {
		return kind.Request{Name: masterSecret(what, node, address), Certificate: &kind.CertificateRequest{
			Issuer: secretEtcdCA, CommonName: node, DNSNames: []string{node, "localhost"}, IPs: loopback,
			// etcd dials itself and its peers with the certificate it serves.
			Server: true, Client: true,
		}}
	}
	addresses := []netip.Addr{serviceAddress(c, apiServiceIndex), address}
	if endpoint != address {
		addresses = append(addresses, endpoint)
	}
	return []kind.Request{
		{Name: masterSecret(ofAPIServer, node, address), Certificate: &kind.CertificateRequest{
			Issuer: secretCA, CommonName: "kube-apiserver",
			DNSNames: []string{node, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + clusterDomain},
			IPs:      addresses,
			Server:   true,
		}},
		etcd(ofEtcdServer),
		etcd(ofEtcdPeer),
		{Name: masterSecret(ofKubelet, node, address), Certificate: &kind.CertificateRequest{
			Issuer: secretCA, CommonName: "system:node:" + node, Organization: []string{"system:nodes"}, Client: true,
		}},
	}
}

// missing are the requests that were not answered yet.
func missing(requests []kind.Request, have map[string]kind.Secret) []kind.Request {
	var out []kind.Request
	for _, r := range requests {
		if _, ok := have[r.Name]; !ok {
			out = append(out, r)
		}
	}
	return out
}
