package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

var flavors = resource[model.Flavor]{
	noun: "flavor", short: "Flavors: sizes of VMs and disks",
	head: func(f model.Flavor) ref { return ref{f.ID, f.Name} },
	columns: []column[model.Flavor]{
		{"ID", func(f model.Flavor) string { return f.ID }},
		{"Name", func(f model.Flavor) string { return f.Name }},
		{"Kind", func(f model.Flavor) string { return f.Kind }},
		{"Cost", func(f model.Flavor) string { return quotaText(f.Cost) }},
	},
	list:   all((*client.Client).Flavors),
	get:    byID((*client.Client).Flavor),
	remove: byID((*client.Client).DeleteFlavor),
}

func flavorCommand(s *session) *cobra.Command {
	return flavors.command(s, flavorCreate(s), flavorList(s))
}

// flavorList lists flavors, by kind too: two of different kinds may have one name.
func flavorList(s *session) *cobra.Command {
	var kind string
	ofKind := flavors
	ofKind.list = func(ctx context.Context, api *client.Client, _ string) ([]model.Flavor, error) {
		all, err := api.Flavors(ctx)
		return filter(all, kind, func(f model.Flavor) string { return f.Kind }), err
	}
	c := ofKind.listCommand(s)
	c.Flags().StringVarP(&kind, "kind", "k", "", "only those of this `KIND`")
	must(c.RegisterFlagCompletionFunc("kind", flavorKinds))
	return c
}

var flavorKinds = cobra.FixedCompletions(
	[]string{model.FlavorVM, model.FlavorEphemeralDisk, model.FlavorPersistentDisk}, cobra.ShellCompDirectiveNoFileComp)

func flavorCreate(s *session) *cobra.Command {
	var name, kind, cost string
	c := &cobra.Command{
		Use: "create", Short: "Create a flavor", Args: args(0, 0),
		RunE: s.run(func(ctx context.Context, api *client.Client, _ []string) error {
			err := s.ask(
				question{flag: "name", prompt: "Flavor name", value: &name},
				question{flag: "kind", prompt: "Flavor kind (vm, ephemeral-disk or persistent-disk)", value: &kind},
				question{flag: "cost", prompt: "Cost (key value unit, …)", value: &cost})
			if err != nil {
				return err
			}
			lines, err := parseLines("cost", cost)
			if err != nil {
				return err
			}
			if err := s.confirm("Creating %s flavor %s: %s", kind, name, quotaText(lines)); err != nil {
				return err
			}
			task, err := api.CreateFlavor(ctx, model.FlavorCreateSpec{Name: name, Kind: kind, Cost: lines})
			if err != nil {
				return err
			}
			return flavors.created(ctx, s, task, name)
		}),
	}
	c.Flags().StringVarP(&name, "name", "n", "", "flavor's `NAME`")
	c.Flags().StringVarP(&kind, "kind", "k", "", "`KIND`: vm, ephemeral-disk or persistent-disk")
	c.Flags().StringVarP(&cost, "cost", "c", "", "`COST`, as \"vm.cpu 2 COUNT, vm.memory 4 GB\"")
	must(c.RegisterFlagCompletionFunc("kind", flavorKinds))
	return c
}
