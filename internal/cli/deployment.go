package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

var deployments = resource[model.Deployment]{
	noun: "deployment", short: "The deployment: the system itself and its settings",
	head: func(d model.Deployment) ref { return ref{d.ID, d.Name} },
	columns: []column[model.Deployment]{
		{"ID", func(d model.Deployment) string { return d.ID }},
		{"State", func(d model.Deployment) string { return string(d.State) }},
		{"Cluster types", func(d model.Deployment) string {
			types := make([]string, len(d.ClusterConfigurations))
			for i, c := range d.ClusterConfigurations {
				types[i] = string(c.Type)
			}
			return strings.Join(types, ",")
		}},
	},
	details: []column[model.Deployment]{
		{"ID", func(d model.Deployment) string { return d.ID }},
		{"State", func(d model.Deployment) string { return string(d.State) }},
		{"Auth enabled", func(d model.Deployment) string { return yesText(d.Auth.Enabled) }},
		{"Image datastores", func(d model.Deployment) string { return strings.Join(d.ImageDatastores, ",") }},
		{"Cluster types", func(d model.Deployment) string {
			types := make([]string, len(d.ClusterConfigurations))
			for i, c := range d.ClusterConfigurations {
				types[i] = fmt.Sprintf("%s: image %s", c.Type, c.ImageID)
			}
			return strings.Join(types, "\n")
		}},
	},
	list: all((*client.Client).Deployments),
	get:  byID((*client.Client).Deployment),
}

// theDeployment returns the one deployment there is.
func theDeployment(ctx context.Context, api *client.Client) (*model.Deployment, error) {
	all, err := api.Deployments(ctx)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("the server has no deployment")
	}
	return &all[0], nil
}

// givenDeployment returns the id that was given, or that of the one deployment.
func givenDeployment(ctx context.Context, api *client.Client, args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	d, err := theDeployment(ctx, api)
	if err != nil {
		return "", err
	}
	return d.ID, nil
}

func deploymentCommand(s *session) *cobra.Command {
	show := &cobra.Command{
		Use: "show [ID]", Short: "Show the deployment", Args: args(0, 1),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			id, err := givenDeployment(ctx, api, args)
			if err != nil {
				return err
			}
			d, err := api.Deployment(ctx, id)
			if err != nil {
				return err
			}
			return deployments.print(s, *d)
		}),
	}
	listHosts := &cobra.Command{
		Use: "list-hosts [ID]", Short: "List the deployment's hosts", Args: args(0, 1),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			id, err := givenDeployment(ctx, api, args)
			if err != nil {
				return err
			}
			all, err := api.Hosts(ctx, id)
			if err != nil {
				return err
			}
			return printList(s, hosts.columns, all, nil)
		}),
	}
	listVMs := &cobra.Command{
		Use: "list-vms [ID]", Short: "List all VMs", Args: args(0, 1),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			id, err := givenDeployment(ctx, api, args)
			if err != nil {
				return err
			}
			all, err := api.DeploymentVMs(ctx, id)
			if err != nil {
				return err
			}
			return printList(s, vms.columns, all, vms.state)
		}),
	}
	return deployments.command(s, show, listHosts, listVMs,
		clusterTypeCommand(s, "enable-cluster-type", "Enable a cluster type with a node image", (*client.Client).EnableClusterType),
		clusterTypeCommand(s, "disable-cluster-type", "Disable a cluster type", (*client.Client).DisableClusterType))
}

// clusterTypeCommand enables or disables a cluster type.
func clusterTypeCommand(s *session, verb, short string,
	do func(*client.Client, context.Context, string, model.ClusterConfigurationSpec) (*model.Task, error),
) *cobra.Command {
	var kind, image string
	needsImage := strings.HasPrefix(verb, "enable")
	c := &cobra.Command{
		Use: verb + " [ID]", Short: short, Args: args(0, 1),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			id, err := givenDeployment(ctx, api, args)
			if err != nil {
				return err
			}
			if err := s.ask(question{flag: "type", prompt: "Cluster type", value: &kind, fallback: string(model.Kubernetes)}); err != nil {
				return err
			}
			spec := model.ClusterConfigurationSpec{Type: strings.ToUpper(kind)}
			if needsImage {
				if err := s.ask(question{flag: "image-id", prompt: "Image ID or name", value: &image}); err != nil {
					return err
				}
				found, err := images.resolve(ctx, s, image)
				if err != nil {
					return err
				}
				spec.ImageID = found.ID
			}
			if err := s.confirm("%s %s", verb, spec.Type); err != nil {
				return err
			}
			task, err := do(api, ctx, id, spec)
			if err != nil {
				return err
			}
			return s.finish(ctx, task, spec.Type)
		}),
	}
	c.Flags().StringVarP(&kind, "type", "k", "", "cluster `TYPE`, as KUBERNETES")
	must(c.RegisterFlagCompletionFunc("type", clusterTypes))
	if needsImage {
		c.Flags().StringVarP(&image, "image-id", "i", "", "node image's `ID|NAME`")
		must(c.RegisterFlagCompletionFunc("image-id", flagValues(images, s)))
	}
	return c
}
