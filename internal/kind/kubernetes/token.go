package kubernetes

import (
	"strings"
	"time"

	"github.com/pleiad/pleiad/internal/plan"
)

// tokenTTL ends the bootstrap token of workers that never join; otherwise it is
// removed when they have. It leaves time to resume a create that failed.
const tokenTTL = 24 * time.Hour

// tokenGroup is the group that kubeadm init lets ask for kubelets' certificates.
const tokenGroup = "system:bootstrappers:kubeadm:default-node-token"

// tokenSecret is how Kubernetes keeps a bootstrap token.
type tokenSecret struct {
	typeMeta
	Metadata objectMeta        `json:"metadata"`
	Type     string            `json:"type"`
	Data     map[string][]byte `json:"data"`
}

type objectMeta struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// tokenObject names the Secret of a token, whose first part is public.
func tokenObject(token string) (name, id, secret string) {
	id, secret, _ = strings.Cut(token, ".")
	return "bootstrap-token-" + id, id, secret
}

// makeToken makes the token known to the cluster until it expires.
func makeToken(token string, expires time.Time) *plan.Step {
	name, id, secret := tokenObject(token)
	return &plan.Step{ID: stepToken, Title: "Let new workers join",
		Command: &plan.Command{
			Argv: []string{"kubectl", "--kubeconfig", adminConf, "apply", "--server-side", "--force-conflicts",
				"--field-manager", "pleiad", "--filename", "-"},
			Stdin: mustJSON(tokenSecret{
				typeMeta: typeMeta{"v1", "Secret"},
				Metadata: objectMeta{Name: name, Namespace: "kube-system"},
				Type:     "bootstrap.kubernetes.io/token",
				Data: map[string][]byte{
					"token-id":                       []byte(id),
					"token-secret":                   []byte(secret),
					"expiration":                     []byte(expires.UTC().Format(time.RFC3339)),
					"usage-bootstrap-authentication": []byte("true"),
					"usage-bootstrap-signing":        []byte("true"),
					"auth-extra-groups":              []byte(tokenGroup),
				},
			}),
		}}
}

// removeToken ends the token.
func removeToken(token string) *plan.Step {
	name, _, _ := tokenObject(token)
	return &plan.Step{ID: stepToken, Title: "Remove the bootstrap token",
		Command: &plan.Command{Argv: []string{"kubectl", "--kubeconfig", adminConf, "--namespace", "kube-system",
			"delete", "secret", name, "--ignore-not-found"}}}
}
