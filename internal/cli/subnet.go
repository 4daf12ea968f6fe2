package cli

import (
	"context"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

var subnets = resource[model.Subnet]{
	noun: "subnet", aliases: []string{"network"}, short: "Subnets: networks that VMs are put on",
	head: func(n model.Subnet) ref { return ref{n.ID, n.Name} },
	columns: []column[model.Subnet]{
		{"ID", func(n model.Subnet) string { return n.ID }},
		{"Name", func(n model.Subnet) string { return n.Name }},
		{"State", func(n model.Subnet) string { return string(n.State) }},
		{"PortGroups", func(n model.Subnet) string { return strings.Join(n.PortGroups, ",") }},
		{"Descriptions", func(n model.Subnet) string { return n.Description }},
		{"IsDefault", func(n model.Subnet) string { return yesText(n.IsDefault) }},
		{"CIDR", func(n model.Subnet) string { return n.CIDR }},
	},
	details: []column[model.Subnet]{
		{"ID", func(n model.Subnet) string { return n.ID }},
		{"Name", func(n model.Subnet) string { return n.Name }},
		{"State", func(n model.Subnet) string { return string(n.State) }},
		{"PortGroups", func(n model.Subnet) string { return strings.Join(n.PortGroups, ",") }},
		{"Description", func(n model.Subnet) string { return n.Description }},
		{"IsDefault", func(n model.Subnet) string { return yesText(n.IsDefault) }},
		{"CIDR", func(n model.Subnet) string { return n.CIDR }},
		{"Gateway", func(n model.Subnet) string { return n.Gateway }},
		{"DNS", func(n model.Subnet) string { return strings.Join(n.DNS, ",") }},
		{"Addresses", func(n model.Subnet) string {
			if n.RangeStart == "" {
				return ""
			}
			return n.RangeStart + " to " + n.RangeEnd
		}},
	},
	list:   all((*client.Client).Subnets),
	get:    byID((*client.Client).Subnet),
	remove: byID((*client.Client).DeleteSubnet),
}

func subnetCommand(s *session) *cobra.Command {
	return subnets.command(s, subnetCreate(s), subnetSetDefault(s))
}

func subnetCreate(s *session) *cobra.Command {
	var spec model.SubnetCreateSpec
	var portGroups, dns, addresses string
	c := &cobra.Command{
		Use: "create", Short: "Create a subnet", Args: args(0, 0),
		Long: `Create a subnet: the names of networks on the hosts that VMs are put on.

With --cidr and --range, Pleiad gives out the addresses of the range itself;
without them, nodes get theirs by DHCP.`,
		RunE: s.run(func(ctx context.Context, api *client.Client, _ []string) error {
			err := s.ask(
				question{flag: "name", prompt: "Subnet name", value: &spec.Name},
				question{flag: "description", prompt: "Description of subnet", value: &spec.Description, optional: true},
				question{flag: "portgroups", prompt: "PortGroups of subnet (comma separated)", value: &portGroups})
			if err != nil {
				return err
			}
			spec.PortGroups, spec.DNS = splitList(portGroups), splitList(dns)
			if spec.RangeStart, spec.RangeEnd, err = parseRange(addresses); err != nil {
				return err
			}
			task, err := api.CreateSubnet(ctx, spec)
			if err != nil {
				return err
			}
			return subnets.created(ctx, s, task, spec.Name)
		}),
	}
	f := c.Flags()
	f.StringVarP(&spec.Name, "name", "n", "", "subnet's `NAME`")
	f.StringVarP(&spec.Description, "description", "d", "", "`TEXT` that says what it is for")
	f.StringVarP(&portGroups, "portgroups", "p", "", "`NAMES` of networks on the hosts, comma separated")
	f.StringVar(&spec.CIDR, "cidr", "", "the subnet's range, as 100.64.10.0/24")
	f.StringVar(&spec.Gateway, "gateway", "", "`ADDRESS` of the gateway")
	f.StringVar(&dns, "dns", "", "`ADDRESSES` of DNS servers, comma separated")
	f.StringVar(&addresses, "range", "", "addresses to give out, `START-END`, both included")
	return c
}

// parseRange splits START-END; whether they are in the subnet is for the server to say.
func parseRange(text string) (start, end string, err error) {
	if text == "" {
		return "", "", nil
	}
	start, end, _ = strings.Cut(text, "-")
	for _, address := range []*string{&start, &end} {
		parsed, err := netip.ParseAddr(strings.TrimSpace(*address))
		if err != nil {
			return "", "", usagef("--range must be START-END, two IP addresses (was %q)", text)
		}
		*address = parsed.String()
	}
	return start, end, nil
}

func subnetSetDefault(s *session) *cobra.Command {
	return &cobra.Command{
		Use: "set-default ID|NAME", Short: "Make a subnet the one that is used when none is given", Args: args(1, 1),
		ValidArgsFunction: subnets.complete(s),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			found, err := subnets.resolve(ctx, s, args[0])
			if err != nil {
				return err
			}
			task, err := api.SetDefaultSubnet(ctx, found.ID)
			if err != nil {
				return err
			}
			return s.finish(ctx, task, found.Name)
		}),
	}
}
