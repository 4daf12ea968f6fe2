package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

var clusterColumns = []column[model.Cluster]{
	{"ID", func(c model.Cluster) string { return c.ID }},
	{"Name", func(c model.Cluster) string { return c.Name }},
	{"Type", func(c model.Cluster) string { return string(c.Type) }},
	{"State", func(c model.Cluster) string { return string(c.State) }},
	{"Worker Count", func(c model.Cluster) string { return numberText(c.WorkerCount) }},
}

var clusters = resource[model.Cluster]{
	noun: "cluster", short: "Clusters", scope: inProject,
	head:    func(c model.Cluster) ref { return ref{c.ID, c.Name} },
	columns: clusterColumns,
	details: append(clusterColumns[:len(clusterColumns):len(clusterColumns)],
		column[model.Cluster]{"Version", func(c model.Cluster) string { return c.Version }},
		column[model.Cluster]{"Control plane", func(c model.Cluster) string { return numberText(c.ControlPlane.Count) }},
		column[model.Cluster]{"Endpoint", func(c model.Cluster) string { return c.Endpoint }},
		column[model.Cluster]{"Error", func(c model.Cluster) string { return c.ErrorReason }},
		column[model.Cluster]{"Properties", func(c model.Cluster) string { return pairsText(c.ExtendedProperties) }},
		column[model.Cluster]{"Conditions", func(c model.Cluster) string { return conditionsText(c.Conditions) }},
		column[model.Cluster]{"Task in work", func(c model.Cluster) string { return c.TaskID }},
	),
	state:  func(c model.Cluster) string { return string(c.State) },
	list:   byID((*client.Client).Clusters),
	get:    byID((*client.Client).Cluster),
	remove: byID((*client.Client).DeleteCluster),
}

var clusterTypes = cobra.FixedCompletions([]string{
	string(model.Kubernetes), string(model.Swarm), string(model.Mesos), string(model.Nomad),
}, cobra.ShellCompDirectiveNoFileComp)

func clusterCommand(s *session) *cobra.Command {
	listVMs := vmsOf(s, clusters, "list-vms", (*client.Client).ClusterVMs)
	listVMs.Aliases = []string{"list_vms"}
	return clusters.command(s, clusterCreate(s), clusterShow(s), listVMs, clusterResize(s), clusterKubeconfig(s))
}

// shownCluster is a cluster with its VMs, in one document.
type shownCluster struct {
	model.Cluster
	VMs []model.VM `json:"vms"`
}

// clusterShow shows a cluster and the VMs of its control plane.
func clusterShow(s *session) *cobra.Command {
	c := &cobra.Command{
		Use: "show ID|NAME", Short: "Show one cluster and its control plane's VMs", Args: args(1, 1),
		ValidArgsFunction: clusters.complete(s),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			found, err := clusters.find(ctx, s, args[0])
			if err != nil {
				return err
			}
			nodes, err := api.ClusterVMs(ctx, found.ID)
			if err != nil {
				return err
			}
			if s.format.structured() {
				return s.printDocument(shownCluster{*found, nodes})
			}
			if err := clusters.print(s, *found); err != nil {
				return err
			}
			var masters []model.VM
			for _, v := range nodes {
				if v.Pool == "" { // workers are in pools
					masters = append(masters, v)
				}
			}
			columns := []column[model.VM]{
				{"VM ID", func(v model.VM) string { return v.ID }},
				{"VM Name", func(v model.VM) string { return v.Name }},
				{"VM IP", addressOf},
			}
			if s.format == formatBare {
				return printList(s, columns, masters, nil)
			}
			s.say("")
			return printTable(s.env.Stdout, columns, masters)
		}),
	}
	s.scopeFlags(c, inProject)
	return c
}

// clusterFlags are the flags of "cluster create" that aren't fields of the spec as they are.
type clusterFlags struct {
	workers, controlPlane int
	subnet, image         string
	properties            map[string]*string
	noWait                bool
}

// Properties that Photon's CLI had flags for, by flag.
var propertyFlags = []struct{ flag, property, usage string }{
	{"dns", "dns", "`ADDRESS` of the nodes' DNS server"},
	{"gateway", "gateway", "`ADDRESS` of the nodes' gateway"},
	{"netmask", "netmask", "nodes' network `MASK`"},
	{"master-ip", "master_ip", "`ADDRESS` of the cluster's API"},
	{"container-network", "container_network", "`CIDR` of the pods' network"},
	{"zookeeper1", "zookeeper_ip1", "`ADDRESS` of the first ZooKeeper node"},
	{"zookeeper2", "zookeeper_ip2", "`ADDRESS` of the second ZooKeeper node"},
	{"zookeeper3", "zookeeper_ip3", "`ADDRESS` of the third ZooKeeper node"},
	{"etcd1", "etcd_ip1", "`ADDRESS` of the first etcd node"},
	{"etcd2", "etcd_ip2", "`ADDRESS` of the second etcd node"},
	{"etcd3", "etcd_ip3", "`ADDRESS` of the third etcd node"},
}

func clusterCreate(s *session) *cobra.Command {
	var spec model.ClusterCreateSpec
	flags := clusterFlags{properties: map[string]*string{}}
	c := &cobra.Command{
		Use: "create", Short: "Create a cluster and wait until it is ready", Args: args(0, 0),
	}
	c.RunE = s.run(func(ctx context.Context, api *client.Client, _ []string) error {
		project, err := s.project(ctx)
		if err != nil {
			return err
		}
		if err := s.completeCluster(ctx, c, &spec, &flags); err != nil {
			return err
		}
		if err := s.confirm("Creating cluster: %s (%s)\n  Worker count: %d", spec.Name, spec.Type, *spec.WorkerCount); err != nil {
			return err
		}
		task, err := api.CreateCluster(ctx, project.ID, spec)
		if err != nil {
			return err
		}
		if !flags.noWait {
			return clusters.created(ctx, s, task, spec.Name)
		}
		if s.format != formatTable {
			return s.printTask(*task)
		}
		s.say("Creating cluster %s. Follow it with \"pleiad task monitor %s\"", task.Entity.ID, task.ID)
		return nil
	})
	s.scopeFlags(c, inProject)
	f := c.Flags()
	f.StringVarP(&spec.Name, "name", "n", "", "cluster's `NAME`")
	f.StringVarP(&spec.Type, "type", "k", "", "cluster `TYPE`: KUBERNETES, SWARM, MESOS or NOMAD")
	f.StringVarP(&spec.VMFlavor, "vm-flavor", "v", "", "`FLAVOR` of all nodes, unless given for a role")
	f.StringVarP(&spec.DiskFlavor, "disk-flavor", "d", "", "`FLAVOR` of the nodes' disks")
	f.StringVarP(&flags.subnet, "network-id", "w", "", "subnet's `ID|NAME`; the default one when left out")
	f.IntVarP(&flags.workers, "worker-count", "c", 1, "`NUMBER` of workers")
	f.IntVarP(&flags.workers, "slave-count", "s", 1, "what Photon 0.9 calls --worker-count")
	f.IntVar(&flags.controlPlane, "control-plane", 1, "`NUMBER` of control plane nodes: 1, 3 or 5")
	f.StringVar(&spec.Version, "version", "", "`VERSION` of the cluster's software; the image's when left out")
	f.StringVarP(&flags.image, "image-id", "i", "", "node image's `ID|NAME`; the one the type is enabled with when left out")
	f.StringVar(&spec.ControlPlaneFlavor, "master-vm-flavor", "", "`FLAVOR` of the control plane nodes")
	f.StringVar(&spec.WorkerFlavor, "worker-vm-flavor", "", "`FLAVOR` of the workers")
	f.StringVar(&spec.PodCIDR, "pod-cidr", "", "`CIDR` of the pods' network")
	f.StringVar(&spec.ServiceCIDR, "service-cidr", "", "`CIDR` of services")
	f.IntVar(&spec.WorkerBatchExpansionSize, "batchSize", 0, "`NUMBER` of workers to add at a time")
	f.Bool("wait-for-ready", false, "wait until the cluster is ready, which is done anyway")
	f.BoolVar(&flags.noWait, "no-wait", false, "return as soon as the creation has begun")
	for _, p := range propertyFlags {
		flags.properties[p.property] = f.String(p.flag, "", p.usage)
	}
	must(c.RegisterFlagCompletionFunc("type", clusterTypes))
	must(c.RegisterFlagCompletionFunc("network-id", flagValues(subnets, s)))
	must(c.RegisterFlagCompletionFunc("image-id", flagValues(images, s)))
	for _, flavor := range []string{"vm-flavor", "disk-flavor", "master-vm-flavor", "worker-vm-flavor"} {
		must(c.RegisterFlagCompletionFunc(flavor, flagValues(flavors, s)))
	}
	return c
}

func clusterResize(s *session) *cobra.Command {
	var noWait bool
	var op model.ClusterResizeOperation
	c := &cobra.Command{
		Use: "resize ID|NAME COUNT", Short: "Change the number of a cluster's workers and wait until they are ready", Args: args(2, 2),
		ValidArgsFunction: clusters.complete(s),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			workers, err := strconv.Atoi(args[1])
			if err != nil || workers < 0 {
				return usagef("the number of workers must be 0 or more (was %q)", args[1])
			}
			found, err := clusters.find(ctx, s, args[0])
			if err != nil {
				return err
			}
			if err := s.confirm("Resizing cluster %s from %d to %d workers", found.Name, found.WorkerCount, workers); err != nil {
				return err
			}
			op.NewWorkerCount = &workers
			task, err := api.ResizeCluster(ctx, found.ID, op)
			if err != nil {
				return err
			}
			if !noWait {
				return clusters.created(ctx, s, task, found.Name)
			}
			if s.format != formatTable {
				return s.printTask(*task)
			}
			s.say("Resizing cluster %s. Follow it with \"pleiad task monitor %s\"", found.Name, task.ID)
			return nil
		}),
	}
	s.scopeFlags(c, inProject)
	c.Flags().Bool("wait-for-ready", false, "wait until the cluster is ready, which is done anyway")
	c.Flags().BoolVar(&noWait, "no-wait", false, "return as soon as the resize has begun")
	c.Flags().StringSliceVar(&op.Nodes, "node", nil, "`ID|NAME` of a worker to take away; may be repeated")
	c.Flags().BoolVar(&op.Force, "force", false, "take workers away without regard for disruption budgets, and with pods that nothing will make again")
	return c
}

// completeCluster asks for what is missing and turns names into ids.
func (s *session) completeCluster(ctx context.Context, c *cobra.Command, spec *model.ClusterCreateSpec, flags *clusterFlags) error {
	for _, pair := range [][2]string{{"worker-count", "slave-count"}, {"wait-for-ready", "no-wait"}} {
		if c.Flags().Changed(pair[0]) && c.Flags().Changed(pair[1]) {
			return usagef("--%s and --%s exclude each other", pair[0], pair[1])
		}
	}
	err := s.ask(
		question{flag: "name", prompt: "Cluster name", value: &spec.Name},
		question{flag: "type", prompt: "Cluster type", value: &spec.Type, fallback: string(model.Kubernetes)})
	if err != nil {
		return err
	}
	if !c.Flags().Changed("worker-count") && !c.Flags().Changed("slave-count") {
		var answer string
		if err := s.ask(question{flag: "worker-count", prompt: "Worker count", value: &answer, fallback: "1"}); err != nil {
			return err
		}
		if flags.workers, err = strconv.Atoi(answer); err != nil {
			return usagef("--worker-count must be a number (was %q)", answer)
		}
	}
	spec.Type = strings.ToUpper(spec.Type)
	spec.WorkerCount, spec.ControlPlaneCount = &flags.workers, &flags.controlPlane
	if flags.subnet != "" {
		found, err := subnets.resolve(ctx, s, flags.subnet)
		if err != nil {
			return err
		}
		spec.SubnetID = found.ID
	}
	if flags.image != "" {
		found, err := images.resolve(ctx, s, flags.image)
		if err != nil {
			return err
		}
		spec.ImageID = found.ID
	}
	spec.ExtendedProperties = map[string]string{}
	for property, value := range flags.properties {
		if *value != "" {
			spec.ExtendedProperties[property] = *value
		}
	}
	return nil
}
