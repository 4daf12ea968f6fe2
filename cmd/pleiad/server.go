package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/hypervisor/lxd"
	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/kind/kubernetes"
	"github.com/pleiad/pleiad/internal/server"
)

func serverCommand() *cobra.Command {
	o := server.Options{
		Kinds:      kind.NewRegistry(kubernetes.Kind{}),
		Connectors: hypervisor.Connectors{"lxd": lxd.Connector{}},
	}
	var readyFile, level string
	c := &cobra.Command{
		Use:   "server",
		Short: "Run a server",
		Long: `Run a server. Its data directory holds everything it keeps: the store, image
files, the key that seals the store (back it up apart from the rest), and, once
it has started, the administrator's token in admin.token.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("--log-level: %w", err)
			}
			o.Logger = slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
			o.Version, o.Commit = cmd.Root().Version, commit
			o.Ready = func(address, fingerprint string) {
				fmt.Fprintf(cmd.OutOrStdout(), "serving on https://%s\nSHA-256 of its CA: %s\n", address, fingerprint)
				if readyFile != "" {
					if err := os.WriteFile(readyFile, []byte(fingerprint+"\n"), 0o600); err != nil {
						o.Logger.Error("the ready file could not be written", "error", err)
					}
				}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return server.Run(ctx, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.DataDir, "data-dir", "/var/lib/pleiad/server", "`DIR` that holds everything the server keeps")
	f.StringVar(&o.SealKey, "seal-key", "", "`FILE` of the key that seals the store, the same for all servers of one etcd (default: seal.key in the data directory)")
	f.StringVar(&o.Listen, "listen", fmt.Sprintf(":%d", server.DefaultPort), "`ADDRESS` to serve HTTPS on")
	f.StringSliceVar(&o.Advertise, "advertise", nil, "names and addresses by which users and nodes reach this server (default: all of the machine's)")
	f.StringSliceVar(&o.EtcdEndpoints, "etcd-endpoints", nil, "URLs of an external etcd; without, one is embedded")
	f.StringVar(&o.EtcdCA, "etcd-cacert", "", "`FILE` with the CA of the external etcd")
	f.StringVar(&o.EtcdCert, "etcd-cert", "", "`FILE` with our certificate for the external etcd")
	f.StringVar(&o.EtcdKey, "etcd-key", "", "`FILE` with its key")
	f.StringVar(&readyFile, "ready-file", "", "`FILE` to write the SHA-256 of the CA to once the server answers")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return c
}
