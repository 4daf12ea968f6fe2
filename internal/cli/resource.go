package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

// scope is what objects of a noun belong to.
type scope int

const (
	inSystem scope = iota
	inTenant
	inProject
)

// resource says what is to be known of a noun to list, show, delete, find and
// complete its objects.
type resource[T any] struct {
	noun    string
	aliases []string
	short   string
	scope   scope
	head    func(T) ref
	// columns are of a list, details of one object; columns when nil.
	columns, details []column[T]
	// state is counted under a list, unless nil.
	state func(T) string

	// list returns the objects that belong to a tenant or project, or all.
	list   func(ctx context.Context, api *client.Client, parent string) ([]T, error)
	get    func(ctx context.Context, api *client.Client, id string) (*T, error)
	remove func(ctx context.Context, api *client.Client, id string) (*model.Task, error)
}

// byID adapts a method of the client that takes an id: the object's, or that of
// what the objects of a list belong to.
func byID[T any](method func(*client.Client, context.Context, string) (T, error)) func(context.Context, *client.Client, string) (T, error) {
	return func(ctx context.Context, api *client.Client, id string) (T, error) { return method(api, ctx, id) }
}

// all adapts a method of the client that lists what belongs to the system.
func all[T any](method func(*client.Client, context.Context) ([]T, error)) func(context.Context, *client.Client, string) ([]T, error) {
	return func(ctx context.Context, api *client.Client, _ string) ([]T, error) { return method(api, ctx) }
}

// command returns the noun's command, with list and show, delete if the noun
// has one, and more.
func (r resource[T]) command(s *session, more ...*cobra.Command) *cobra.Command {
	c := groupCommand(r.noun, r.short, r.listCommand(s), r.showCommand(s))
	c.Aliases = r.aliases
	if r.remove != nil {
		c.AddCommand(r.deleteCommand(s))
	}
	// A noun's own command takes the place of the common one.
	for _, own := range more {
		for _, common := range c.Commands() {
			if common.Name() == own.Name() {
				c.RemoveCommand(common)
			}
		}
		c.AddCommand(own)
	}
	return c
}

// scopeFlags adds --tenant and --project to a command that works in one.
func (s *session) scopeFlags(c *cobra.Command, in scope) {
	if in >= inTenant {
		c.Flags().StringVarP(&s.flags.tenant, "tenant", "t", "", "tenant's `NAME`; the one that is set when left out")
	}
	if in >= inProject {
		c.Flags().StringVarP(&s.flags.project, "project", "p", "", "project's `NAME`; the one that is set when left out")
	}
}

// parent returns the id of what a noun's objects belong to; empty for those of the system.
func (r resource[T]) parent(ctx context.Context, s *session) (string, error) {
	var parent ref
	var err error
	switch r.scope {
	case inTenant:
		parent, err = s.tenant(ctx)
	case inProject:
		parent, err = s.project(ctx)
	}
	return parent.ID, err
}

func (r resource[T]) listCommand(s *session) *cobra.Command {
	var name string
	var summary bool
	c := &cobra.Command{
		Use: "list", Short: "List " + r.noun + "s", Args: args(0, 0),
		RunE: s.run(func(ctx context.Context, api *client.Client, _ []string) error {
			parent, err := r.parent(ctx, s)
			if err != nil {
				return err
			}
			items, err := r.list(ctx, api, parent)
			if err != nil {
				return err
			}
			items = filter(items, name, func(v T) string { return r.head(v).Name })
			if summary {
				return printSummary(s, items, r.state)
			}
			return printList(s, r.columns, items, r.state)
		}),
	}
	s.scopeFlags(c, r.scope)
	c.Flags().StringVarP(&name, "name", "n", "", "only those of this `NAME`")
	if r.state != nil {
		c.Flags().BoolVarP(&summary, "summary", "s", false, "only how many there are, and in which state")
	}
	return c
}

// filter keeps the items whose field is wanted; all if wanted is empty.
func filter[T any](items []T, wanted string, field func(T) string) []T {
	if wanted == "" {
		return items
	}
	var kept []T
	for _, item := range items {
		if field(item) == wanted {
			kept = append(kept, item)
		}
	}
	return kept
}

func (r resource[T]) showCommand(s *session) *cobra.Command {
	c := &cobra.Command{
		Use: "show ID|NAME", Short: "Show one " + r.noun, Args: args(1, 1),
		ValidArgsFunction: r.complete(s),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			v, err := r.find(ctx, s, args[0])
			if err != nil {
				return err
			}
			return r.print(s, *v)
		}),
	}
	s.scopeFlags(c, r.scope)
	return c
}

func (r resource[T]) print(s *session, v T) error {
	if r.details == nil {
		return printObject(s, r.columns, v)
	}
	return printObject(s, r.details, v)
}

func (r resource[T]) deleteCommand(s *session) *cobra.Command {
	c := &cobra.Command{
		Use: "delete ID|NAME", Short: "Delete one " + r.noun, Args: args(1, 1),
		ValidArgsFunction: r.complete(s),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			found, err := r.resolve(ctx, s, args[0])
			if err != nil {
				return err
			}
			if err := s.confirm("Deleting %s %s", r.noun, describe(found)); err != nil {
				return err
			}
			task, err := r.remove(ctx, api, found.ID)
			if err != nil {
				return err
			}
			if err := s.finish(ctx, task, found.Name); err != nil {
				return err
			}
			return s.forget(found.ID)
		}),
	}
	s.scopeFlags(c, r.scope)
	return c
}

func describe(r ref) string {
	if r.Name == "" || r.Name == r.ID {
		return r.ID
	}
	return fmt.Sprintf("%s (%s)", r.Name, r.ID)
}

// resolve returns the object that an id or a name means. An id is not looked
// up: the operation it is for will say if there is no such object.
func (r resource[T]) resolve(ctx context.Context, s *session, wanted string) (ref, error) {
	if uuid.Validate(wanted) == nil {
		return ref{ID: wanted}, nil
	}
	api, err := s.api()
	if err != nil {
		return ref{}, err
	}
	parent, err := r.parent(ctx, s)
	if err != nil {
		return ref{}, err
	}
	all, err := r.list(ctx, api, parent)
	if err != nil {
		return ref{}, err
	}
	return pick(r.noun, wanted, all, r.head)
}

// find returns the object that an id or a name means.
func (r resource[T]) find(ctx context.Context, s *session, wanted string) (*T, error) {
	found, err := r.resolve(ctx, s, wanted)
	if err != nil {
		return nil, err
	}
	api, err := s.api()
	if err != nil {
		return nil, err
	}
	return r.get(ctx, api, found.ID)
}

// completionWait is how long the shell waits for names.
const completionWait = 2 * time.Second

// complete completes the first argument with names, and ids where there is no name.
func (r resource[T]) complete(s *session) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completionWait)
		defer cancel()
		api, err := s.api()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		parent, err := r.parent(ctx, s)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, err := r.list(ctx, api, parent)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var words []cobra.Completion
		for _, item := range all {
			head := r.head(item)
			if head.Name != "" {
				words = append(words, cobra.CompletionWithDesc(head.Name, head.ID))
			}
			words = append(words, cobra.CompletionWithDesc(head.ID, head.Name))
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// flagValues completes the value of a flag that takes a name or an id of a noun.
func flagValues[T any](r resource[T], s *session) cobra.CompletionFunc {
	complete := r.complete(s)
	return func(c *cobra.Command, _ []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return complete(c, nil, word) // the command's own arguments are another matter
	}
}

// finish waits for a task and prints that it is done: a sentence for people,
// the bare id of its entity, or the task.
func (s *session) finish(ctx context.Context, task *model.Task, label string) error {
	done, err := s.follow(ctx, *task, label)
	if err != nil {
		return err
	}
	return s.printTask(done)
}

// printTask prints a task for programs, or that it is done.
func (s *session) printTask(task model.Task) error {
	if s.format.structured() {
		return s.printDocument(task)
	}
	return s.printDone(task)
}

// created waits for the task that makes an object and prints that it is done; a
// document is the object.
func (r resource[T]) created(ctx context.Context, s *session, task *model.Task, label string) error {
	done, err := s.follow(ctx, *task, label)
	if err != nil {
		return err
	}
	if !s.format.structured() {
		return s.printDone(done)
	}
	api, err := s.api()
	if err != nil {
		return err
	}
	v, err := r.get(ctx, api, done.Entity.ID)
	if err != nil {
		return err
	}
	return s.printDocument(v)
}

func (s *session) printDone(task model.Task) error {
	if s.format == formatBare {
		_, err := fmt.Fprintln(s.env.Stdout, task.Entity.ID)
		return err
	}
	took := ""
	if task.EndTime > 0 && task.QueuedTime > 0 {
		took = " in " + durationText(betweenMillis(task.QueuedTime, task.EndTime))
	}
	_, err := fmt.Fprintf(s.env.Stdout, "%s completed for '%s' entity %s%s\n", task.Operation, task.Entity.Kind, task.Entity.ID, took)
	return err
}

// forget takes a deleted tenant or project out of the context file.
func (s *session) forget(id string) error {
	c, err := s.config()
	if err != nil {
		return err
	}
	isTenant := c.Tenant != nil && c.Tenant.ID == id
	isProject := c.Project != nil && c.Project.ID == id
	if !isTenant && !isProject {
		return nil
	}
	return s.remember(func(c *config) {
		if isTenant {
			c.Tenant = nil
		}
		c.Project = nil
	})
}
