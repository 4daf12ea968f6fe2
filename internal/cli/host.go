package cli

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

var zones = resource[model.Zone]{
	noun: "availability-zone", aliases: []string{"zone"}, short: "Availability zones: hosts that fail together",
	head: func(z model.Zone) ref { return ref{z.ID, z.Name} },
	columns: []column[model.Zone]{
		{"ID", func(z model.Zone) string { return z.ID }},
		{"Name", func(z model.Zone) string { return z.Name }},
		{"State", func(z model.Zone) string { return string(z.State) }},
	},
	list:   all((*client.Client).Zones),
	get:    byID((*client.Client).Zone),
	remove: byID((*client.Client).DeleteZone),
}

func zoneCommand(s *session) *cobra.Command {
	var name string
	create := &cobra.Command{
		Use: "create", Short: "Create an availability zone", Args: args(0, 0),
		RunE: s.run(func(ctx context.Context, api *client.Client, _ []string) error {
			if err := s.ask(question{flag: "name", prompt: "Availability zone name", value: &name}); err != nil {
				return err
			}
			task, err := api.CreateZone(ctx, model.ZoneCreateSpec{Name: name})
			if err != nil {
				return err
			}
			return zones.created(ctx, s, task, name)
		}),
	}
	create.Flags().StringVarP(&name, "name", "n", "", "zone's `NAME`")
	return zones.command(s, create)
}

var hosts = resource[model.Host]{
	noun: "host", short: "Hosts: hypervisors that VMs run on",
	head: func(h model.Host) ref { return ref{h.ID, h.Address} },
	columns: []column[model.Host]{
		{"ID", func(h model.Host) string { return h.ID }},
		{"State", func(h model.Host) string { return string(h.State) }},
		{"IP", func(h model.Host) string { return h.Address }},
		{"Tags", func(h model.Host) string { return strings.Join(h.UsageTags, ",") }},
	},
	details: []column[model.Host]{
		{"ID", func(h model.Host) string { return h.ID }},
		{"Username", func(h model.Host) string { return h.Username }},
		{"IP", func(h model.Host) string { return h.Address }},
		{"Tags", func(h model.Host) string { return strings.Join(h.UsageTags, ",") }},
		{"State", func(h model.Host) string { return string(h.State) }},
		{"Metadata", func(h model.Host) string { return pairsText(h.Metadata) }},
		{"Availability zone", func(h model.Host) string { return h.AvailabilityZone }},
		{"Version", func(h model.Host) string { return h.EsxVersion }},
		{"Driver", func(h model.Host) string { return h.Driver }},
		{"Certificate", func(h model.Host) string { return h.Fingerprint }},
		{"CPUs", func(h model.Host) string {
			return strconv.FormatFloat(float64(h.Facts.Capacity.MilliCPU)/1000, 'f', -1, 64)
		}},
		{"Memory", func(h model.Host) string { return bytesText(h.Facts.Capacity.Memory) }},
		{"Disk", func(h model.Host) string { return bytesText(h.Facts.Capacity.Disk) }},
		{"Networks", func(h model.Host) string { return strings.Join(h.Facts.Networks, ",") }},
		{"Conditions", func(h model.Host) string { return conditionsText(h.Conditions) }},
	},
	list:   listHosts,
	get:    byID((*client.Client).Host),
	remove: byID((*client.Client).DeleteHost),
}

// listHosts lists the hosts of the one deployment.
func listHosts(ctx context.Context, api *client.Client, _ string) ([]model.Host, error) {
	d, err := theDeployment(ctx, api)
	if err != nil {
		return nil, err
	}
	return api.Hosts(ctx, d.ID)
}

func hostCommand(s *session) *cobra.Command {
	return hosts.command(s, hostCreate(s), vmsOf(s, hosts, "list-vms", (*client.Client).HostVMs))
}

func hostCreate(s *session) *cobra.Command {
	var spec model.HostCreateSpec
	var tags, metadata, passwordFile, deployment string
	c := &cobra.Command{
		Use: "create", Short: "Register a host", Args: args(0, 0),
		Long: `Register a host.

The password, or the trust token that an LXD or Incus host gave out, is read
from --password-file or asked for. --password is accepted as in Photon, but
other users of this machine can see it while the command runs.`,
		RunE: s.run(func(ctx context.Context, api *client.Client, _ []string) error {
			err := s.ask(
				question{flag: "address", prompt: "Host address", value: &spec.Address},
				question{flag: "tag", prompt: "Host usage tags (CLOUD, MGMT, IMAGE; comma separated)", value: &tags, fallback: model.UsageCloud})
			if err != nil {
				return err
			}
			spec.UsageTags = splitList(strings.ToUpper(tags))
			if spec.Metadata, err = parseMetadata(metadata); err != nil {
				return err
			}
			local := strings.HasPrefix(spec.Address, "unix:")
			if spec.Password == "" && (passwordFile != "" || !local && s.interactive()) {
				if spec.Password, err = s.readSecret(passwordFile, "password-file", "Host password or trust token"); err != nil {
					return err
				}
			}
			if deployment == "" {
				d, err := theDeployment(ctx, api)
				if err != nil {
					return err
				}
				deployment = d.ID
			}
			task, err := api.CreateHost(ctx, deployment, spec)
			if err != nil {
				return err
			}
			return hosts.created(ctx, s, task, spec.Address)
		}),
	}
	f := c.Flags()
	f.StringVarP(&spec.Address, "address", "i", "", "`ADDRESS`: a name or IP address, with a port if need be, or unix:PATH")
	f.StringVarP(&spec.Username, "username", "u", "", "`USER` to log in as, where the hypervisor has users")
	f.StringVarP(&spec.Password, "password", "p", "", "`PASSWORD`; rather use --password-file or the question")
	f.StringVar(&passwordFile, "password-file", "", "`FILE` with the password or trust token")
	f.StringVarP(&spec.AvailabilityZone, "availability-zone", "z", "", "`ZONE` the host is in")
	f.StringVarP(&tags, "tag", "t", "", "usage `TAGS`: CLOUD, MGMT, IMAGE, comma separated")
	f.StringVarP(&metadata, "metadata", "m", "", "metadata, a `JSON` object of strings")
	f.StringVarP(&deployment, "deployment-id", "d", "", "`ID` of the deployment; there is only one")
	f.StringVar(&spec.Driver, "driver", "", "hypervisor's `DRIVER`: lxd, vsphere, libvirt or sim; lxd when left out")
	f.StringVar(&spec.Fingerprint, "fingerprint", "", "`SHA256` of the host's certificate, to insist on")
	must(f.MarkHidden("deployment-id"))
	must(c.RegisterFlagCompletionFunc("driver", cobra.FixedCompletions([]string{"lxd", "vsphere", "libvirt", "sim"}, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("tag", cobra.FixedCompletions([]string{model.UsageCloud, model.UsageMgmt, model.UsageImage}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// parseMetadata reads a JSON object of strings; Photon's transcripts have single quotes, too.
func parseMetadata(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	var m map[string]string
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, usagef("--metadata must be a JSON object of strings, as '{\"key\": \"value\"}': %v", err)
	}
	return m, nil
}

var datastores = resource[model.Datastore]{
	noun: "datastore", short: "Datastores: storage on hosts",
	head: func(d model.Datastore) ref { return ref{d.ID, d.Name} },
	columns: []column[model.Datastore]{
		{"ID", func(d model.Datastore) string { return d.ID }},
		{"Name", func(d model.Datastore) string { return d.Name }},
		{"Type", func(d model.Datastore) string { return d.Type }},
		{"Tags", func(d model.Datastore) string { return strings.Join(d.Tags, ",") }},
		{"Host ID", func(d model.Datastore) string { return d.HostID }},
		{"Capacity", func(d model.Datastore) string { return bytesText(d.Capacity) }},
	},
	list: all((*client.Client).Datastores),
	get:  byID((*client.Client).Datastore),
}

func datastoreCommand(s *session) *cobra.Command { return datastores.command(s) }
