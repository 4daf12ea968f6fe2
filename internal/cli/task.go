package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

var tasks = resource[model.Task]{
	noun: "task", short: "Tasks: what users asked for, and how far it is",
	head: func(t model.Task) ref { return ref{ID: t.ID} },
	columns: []column[model.Task]{
		{"ID", func(t model.Task) string { return t.ID }},
		{"Start Time", func(t model.Task) string { return timeText(t.StartedTime) }},
		{"Duration", func(t model.Task) string { return spanText(t.StartedTime, t.EndTime) }},
		{"Operation", func(t model.Task) string { return t.Operation }},
		{"State", func(t model.Task) string { return string(t.State) }},
	},
	list: func(ctx context.Context, api *client.Client, _ string) ([]model.Task, error) { return api.Tasks(ctx) },
	get:  byID((*client.Client).Task),
}

var stepColumns = []column[model.Step]{
	{"Step", func(t model.Step) string { return t.Operation }},
	{"State", func(t model.Step) string { return string(t.State) }},
	{"Duration", func(t model.Step) string { return spanText(t.StartedTime, t.EndTime) }},
	{"Progress", func(t model.Step) string { return t.Progress }},
}

// spanText writes the time from start to end; nothing until both are known.
func spanText(start, end int64) string {
	if start == 0 || end == 0 {
		return ""
	}
	return durationText(betweenMillis(start, end))
}

func taskCommand(s *session) *cobra.Command {
	return tasks.command(s, taskList(s), taskShow(s), taskMonitor(s))
}

func taskList(s *session) *cobra.Command {
	var id, kind, state string
	c := &cobra.Command{
		Use: "list", Short: "List tasks", Args: args(0, 0),
		RunE: s.run(func(ctx context.Context, api *client.Client, _ []string) error {
			all, err := api.Tasks(ctx, client.Filter{Field: "entityId", Value: id},
				client.Filter{Field: "entityKind", Value: kind}, client.Filter{Field: "state", Value: state})
			if err != nil {
				return err
			}
			return printList(s, tasks.columns, all, func(t model.Task) string { return string(t.State) })
		}),
	}
	c.Flags().StringVarP(&id, "entityId", "e", "", "only those of the object with this `ID`")
	c.Flags().StringVarP(&kind, "entityKind", "k", "", "only those of objects of this `KIND`")
	c.Flags().StringVarP(&state, "state", "s", "", "only those in this `STATE`: QUEUED, STARTED, COMPLETED or ERROR")
	must(c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{
		string(model.TaskQueued), string(model.TaskStarted), string(model.TaskCompleted), string(model.TaskError),
	}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// taskShow shows a task with its steps, and why it failed.
func taskShow(s *session) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one task with its steps", Args: args(1, 1),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			t, err := api.Task(ctx, args[0])
			if err != nil {
				return err
			}
			if s.format != formatTable {
				return printObject(s, tasks.columns, *t)
			}
			entity := column[model.Task]{"Entity", func(t model.Task) string { return t.Entity.Kind + " " + t.Entity.ID }}
			if err := printObject(s, append([]column[model.Task]{entity}, tasks.columns...), *t); err != nil {
				return err
			}
			s.say("")
			if err := printTable(s.env.Stdout, stepColumns, t.Steps); err != nil {
				return err
			}
			if t.State == model.TaskError {
				for _, cause := range newTaskError(*t).causes {
					writeServerError(s.env.Stdout, &cause, "")
				}
			}
			return nil
		}),
	}
}

func taskMonitor(s *session) *cobra.Command {
	return &cobra.Command{
		Use: "monitor ID", Short: "Follow a task to its end", Args: args(1, 1),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			t, err := api.Task(ctx, args[0])
			if err != nil {
				return err
			}
			return s.finish(ctx, t, t.Entity.Kind+" "+t.Entity.ID)
		}),
	}
}
