package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

var vms = resource[model.VM]{
	noun: "vm", short: "VMs, among them the nodes of clusters", scope: inProject,
	head: func(v model.VM) ref { return ref{v.ID, v.Name} },
	columns: []column[model.VM]{
		{"ID", func(v model.VM) string { return v.ID }},
		{"Name", func(v model.VM) string { return v.Name }},
		{"State", func(v model.VM) string { return string(v.State) }},
	},
	details: []column[model.VM]{
		{"ID", func(v model.VM) string { return v.ID }},
		{"Name", func(v model.VM) string { return v.Name }},
		{"State", func(v model.VM) string { return string(v.State) }},
		{"Flavor", func(v model.VM) string { return v.Flavor }},
		{"Source image ID", func(v model.VM) string { return v.SourceImageID }},
		{"Host", func(v model.VM) string { return v.Host }},
		{"Datastore", func(v model.VM) string { return v.Datastore }},
		{"Metadata", func(v model.VM) string { return pairsText(v.Metadata) }},
		{"Tags", func(v model.VM) string { return strings.Join(v.Tags, ",") }},
		{"Networks", func(v model.VM) string {
			networks := make([]string, len(v.Networks))
			for i, n := range v.Networks {
				networks[i] = strings.Join([]string{n.Network, n.MACAddress, n.IPAddress}, " ")
			}
			return strings.Join(networks, "\n")
		}},
		{"Cluster ID", func(v model.VM) string { return v.ClusterID }},
		{"Role", func(v model.VM) string { return v.Role }},
		{"Pool", func(v model.VM) string { return v.Pool }},
		{"Error", func(v model.VM) string {
			if v.Error == nil {
				return ""
			}
			return v.Error.Error()
		}},
		{"Conditions", func(v model.VM) string { return conditionsText(v.Conditions) }},
	},
	state: func(v model.VM) string { return string(v.State) },
	list:  byID((*client.Client).VMs),
	get:   byID((*client.Client).VM),
}

func vmCommand(s *session) *cobra.Command { return vms.command(s) }

// addressOf returns a VM's first address.
func addressOf(v model.VM) string {
	for _, n := range v.Networks {
		if n.IPAddress != "" {
			return n.IPAddress
		}
	}
	return ""
}

// vmsOf returns a command that lists the VMs of an object.
func vmsOf[T any](s *session, of resource[T], verb string, list func(*client.Client, context.Context, string) ([]model.VM, error)) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " ID|NAME", Short: "List the VMs of a " + of.noun, Args: args(1, 1),
		ValidArgsFunction: of.complete(s),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			found, err := of.resolve(ctx, s, args[0])
			if err != nil {
				return err
			}
			all, err := list(api, ctx, found.ID)
			if err != nil {
				return err
			}
			return printList(s, vms.columns, all, vms.state)
		}),
	}
	s.scopeFlags(c, of.scope)
	return c
}
