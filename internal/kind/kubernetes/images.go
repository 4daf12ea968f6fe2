package kubernetes

import (
	"strings"

	"github.com/pleiad/pleiad/internal/model"
)

// images are the container images of a node image, as references.
type images struct {
	// Repository is where kubeadm finds the control plane's, tagged with the version.
	Repository string
	// EtcdRepository and EtcdTag are etcd's.
	EtcdRepository, EtcdTag string

	KubeProxy, CoreDNS, Flannel string
}

// newImages reads the references out of a node image's manifest. kubeadm builds
// those of the control plane itself, from a repository and the version, so they
// must have that form.
func newImages(image *model.NodeImage) (images, error) {
	refs := image.ContainerImages
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler",
		"kube-proxy", "etcd", "coredns", "pause", "flannel"} {
		if refs[name] == "" {
			return images{}, model.Errorf(model.CodeInvalidImageState, "the node image carries no container image %s", name).
				Do("build the node image again")
		}
	}
	repository, found := strings.CutSuffix(refs["kube-apiserver"], "/kube-apiserver:"+image.Version)
	if !found {
		return images{}, unexpectedImage("kube-apiserver", refs, "…/kube-apiserver:"+image.Version)
	}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		if want := repository + "/" + name + ":" + image.Version; refs[name] != want {
			return images{}, unexpectedImage(name, refs, want)
		}
	}
	etcd, tag, found := strings.Cut(refs["etcd"], "/etcd:")
	if !found {
		return images{}, unexpectedImage("etcd", refs, "…/etcd:TAG")
	}
	return images{
		Repository:     repository,
		EtcdRepository: etcd,
		EtcdTag:        tag,
		KubeProxy:      refs["kube-proxy"],
		CoreDNS:        refs["coredns"],
		Flannel:        refs["flannel"],
	}, nil
}

func unexpectedImage(name string, refs map[string]string, want string) error {
	return model.Errorf(model.CodeInvalidImageState, "the node image calls its container image %s %q, kubeadm needs %q",
		name, refs[name], want).Do("build the node image again")
}
