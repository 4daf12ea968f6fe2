package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/devbox"
	"github.com/pleiad/pleiad/internal/server"
)

func devboxCommand() *cobra.Command {
	o := devbox.Options{}
	var address string
	up := &cobra.Command{
		Use:   "up",
		Short: "Make this machine a whole Pleiad, down to a running cluster",
		Long: `Make this machine a whole Pleiad: LXD daemons of its own as hosts, a server,
and what an operator and a tenant set up, down to a running cluster. What is
there already is left as it is. As root; "make devbox" installs what it needs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Address, err = netip.ParsePrefix(address); err != nil {
				return fmt.Errorf("--address: %w", err)
			}
			if o.Image, err = filepath.Abs(o.Image); err != nil {
				return err
			}
			if o.Exe, err = os.Executable(); err != nil {
				return err
			}
			o.Out = cmd.OutOrStdout()
			if err := devbox.Up(cmd.Context(), o); err != nil {
				return err
			}
			if o.Cluster != "" {
				fmt.Fprintf(o.Out, next, o.Exe, dirFlag(o.Dir), o.Cluster)
			}
			return nil
		},
	}
	f := up.Flags()
	f.StringVar(&address, "address", devbox.DefaultAddress.String(), "the bridge's own `ADDRESS` and prefix")
	f.StringVar(&o.Bridge, "bridge", "pleiad0", "`NAME` of the bridge")
	f.IntVar(&o.Port, "port", server.DefaultPort, "port of the server; the LXD daemons take those after it")
	f.IntVar(&o.Hosts, "hosts", 1, "how many LXD daemons to run as hosts")
	f.StringVar(&o.Image, "image", "", "`FILE` of the node image")
	f.StringVar(&o.Cluster, "cluster", "demo", "name of the cluster to make; empty makes none")
	f.IntVar(&o.Workers, "workers", 2, "workers of the cluster")
	down := &cobra.Command{
		Use:   "down",
		Short: "Remove all of it: containers, daemons, bridge, firewall rules and files",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return devbox.Down(cmd.Context(), o.Dir, cmd.OutOrStdout())
		},
	}
	env := &cobra.Command{
		Use:   "env",
		Short: "Print what a shell needs to use it: eval \"$(pleiad devbox env)\"",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			text, err := devbox.Env(o.Dir, exe)
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), text)
			return nil
		},
	}
	c := &cobra.Command{Use: "devbox", Short: "Pleiad on one machine, to try it", Args: cobra.NoArgs}
	c.PersistentFlags().StringVar(&o.Dir, "dir", defaultDevbox, "`DIR` that holds all of it")
	c.AddCommand(up, down, env)
	return c
}

const defaultDevbox = "/var/lib/pleiad/devbox"

func dirFlag(dir string) string {
	if dir == defaultDevbox {
		return ""
	}
	return " --dir " + dir
}

const next = `
Try next:
  eval "$(%[1]s devbox%[2]s env)"
  pleiad cluster show %[3]s
  pleiad cluster kubeconfig %[3]s > k && kubectl --kubeconfig k get nodes,pods -A
  pleiad task list
  pleiad cluster delete %[3]s
`
