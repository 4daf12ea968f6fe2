package cli

import (
	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

var orphans = resource[model.Orphan]{
	noun: "orphan", aliases: []string{"orphans"}, short: "Orphans: VMs of ours that are left on hosts",
	head: func(o model.Orphan) ref { return ref{o.ID, o.Name} },
	columns: []column[model.Orphan]{
		{"ID", func(o model.Orphan) string { return o.ID }},
		{"Name", func(o model.Orphan) string { return o.Name }},
		{"Host", func(o model.Orphan) string { return o.Host }},
		{"Cause", func(o model.Orphan) string { return o.Cause }},
		{"Since", func(o model.Orphan) string { return timeText(o.Since) }},
		{"Removed after", func(o model.Orphan) string { return timeText(o.RemoveAfter) }},
		{"Last error", func(o model.Orphan) string {
			if o.Error == nil {
				return ""
			}
			return o.Error.Message
		}},
	},
	list: all((*client.Client).Orphans),
	get:  byID((*client.Client).Orphan),
}

func orphanCommand(s *session) *cobra.Command { return orphans.command(s) }
