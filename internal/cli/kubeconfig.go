package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/pleiad/pleiad/internal/client"
)

func clusterKubeconfig(s *session) *cobra.Command {
	var file string
	var merge bool
	c := &cobra.Command{
		Use: "kubeconfig ID|NAME", Short: "Get the file kubectl reaches a cluster with", Args: args(1, 1),
		Long: `Get the file kubectl reaches a cluster with. It is a secret: it makes whoever has
it an administrator of the cluster.

It is written to standard output, to a file of mode 0600 (--file), or into the
file kubectl uses already (--merge): that of --file, else the first of
KUBECONFIG, else ~/.kube/config. What is there under other names is kept.`,
		ValidArgsFunction: clusters.complete(s),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			found, err := clusters.resolve(ctx, s, args[0])
			if err != nil {
				return err
			}
			content, err := api.Kubeconfig(ctx, found.ID)
			if err != nil {
				return err
			}
			if !merge && file == "" {
				_, err := s.env.Stdout.Write(content)
				return err
			}
			if file == "" {
				if file, err = kubectlFile(s.env.Getenv); err != nil {
					return err
				}
			}
			if merge {
				old, err := os.ReadFile(file)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				if content, err = mergeKubeconfig(old, content); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
			}
			if err := writeSecret(file, content); err != nil {
				return err
			}
			s.say("Wrote %s", file)
			return nil
		}),
	}
	s.scopeFlags(c, inProject)
	c.Flags().StringVarP(&file, "file", "f", "", "write to `FILE`, of mode 0600")
	c.Flags().BoolVar(&merge, "merge", false, "add it to the file that kubectl uses and make it the current context")
	return c
}

// kubectlFile returns the file kubectl writes to.
func kubectlFile(getenv func(string) string) (string, error) {
	for _, path := range filepath.SplitList(getenv("KUBECONFIG")) {
		if path != "" {
			return path, nil
		}
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("neither KUBECONFIG nor HOME is set; say where to write with --file")
	}
	return filepath.Join(home, ".kube", "config"), nil
}

// mergeKubeconfig puts the clusters, users and contexts of added into old, in
// place of those of the same names, and makes added's context the current one.
// All else in old stays, also what is not known here. Users are renamed after
// their contexts: each cluster's administrator has the same name.
func mergeKubeconfig(old, added []byte) ([]byte, error) {
	into, from := map[string]any{}, map[string]any{}
	if err := yaml.Unmarshal(old, &into); err != nil {
		return nil, fmt.Errorf("it is not a kubeconfig: %w", err)
	}
	if err := yaml.Unmarshal(added, &from); err != nil {
		return nil, fmt.Errorf("the server's kubeconfig cannot be read: %w", err)
	}
	if into == nil { // an empty file
		into = map[string]any{}
	}
	renameUsers(from)
	for key, value := range from {
		list, isList := value.([]any)
		if !isList {
			into[key] = value // apiVersion, kind, current-context, preferences
			continue
		}
		existing, _ := into[key].([]any)
		var kept []any
		for _, entry := range existing {
			if !hasName(list, nameOf(entry)) {
				kept = append(kept, entry)
			}
		}
		into[key] = append(kept, list...)
	}
	return yaml.Marshal(into)
}

// renameUsers gives each context's user the context's name.
func renameUsers(kubeconfig map[string]any) {
	names := map[string]string{}
	contexts, _ := kubeconfig["contexts"].([]any)
	for _, entry := range contexts {
		m, _ := entry.(map[string]any)
		inner, _ := m["context"].(map[string]any)
		if user, _ := inner["user"].(string); user != "" {
			names[user] = nameOf(entry)
			inner["user"] = nameOf(entry)
		}
	}
	users, _ := kubeconfig["users"].([]any)
	for _, entry := range users {
		if name, ok := names[nameOf(entry)]; ok {
			entry.(map[string]any)["name"] = name
		}
	}
}

func nameOf(entry any) string {
	m, _ := entry.(map[string]any)
	name, _ := m["name"].(string)
	return name
}

func hasName(list []any, name string) bool {
	for _, entry := range list {
		if nameOf(entry) == name {
			return true
		}
	}
	return false
}
