package main

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/node"
)

func agentCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "agent",
		Short:  "Run the agent inside a node",
		Hidden: true, // node images start it; nobody types it
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return node.Run(ctx, node.Options{
				Version: cmd.Root().Version,
				Log:     slog.New(slog.NewTextHandler(os.Stdout, nil)),
			})
		},
	}
}
