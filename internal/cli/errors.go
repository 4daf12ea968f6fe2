package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

// report writes what went wrong and returns the exit code. An error of the
// server is shown as its message, its data, and the next action.
func report(w io.Writer, cmd *cobra.Command, err error) int {
	var unknown unknownCommandError
	var failed *taskError
	var server *model.Error
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, errCancelled):
		fmt.Fprintln(w, "Cancelled")
		return ExitOK
	case errors.As(err, &unknown):
		fmt.Fprintf(w, "Error: %v\n", err)
		return ExitUnknownCommand
	case isUsage(err):
		fmt.Fprintf(w, "Error: %v\nSee \"%s --help\".\n", err, cmd.CommandPath())
		return ExitUsage
	case errors.As(err, &failed):
		if len(failed.causes) == 0 {
			fmt.Fprintf(w, "Error: %v\n", failed)
		}
		for i := range failed.causes {
			writeServerError(w, &failed.causes[i], "")
		}
		fmt.Fprintf(w, "Task: %s (%s)\n", failed.task.ID, failed.where())
	case errors.As(err, &server):
		writeServerError(w, forUsers(server), contextOf(err, server))
	case errors.Is(err, client.ErrFingerprint):
		fmt.Fprintf(w, "Error: %v\nNext: if the server's CA was replaced on purpose, confirm the new one with \"pleiad target set\"\n", err)
	default:
		fmt.Fprintf(w, "Error: %v\n", err)
	}
	return ExitError
}

// isUsage reports whether a command line was wrong. Flags before the command
// are parsed by cobra while it looks for the command, where its hook for flag
// errors isn't called, so pflag's own errors count too.
func isUsage(err error) bool {
	var (
		usage    usageError
		missing  *pflag.NotExistError
		value    *pflag.ValueRequiredError
		invalid  *pflag.InvalidValueError
		syntax   *pflag.InvalidSyntaxError
		required = errors.As(err, &missing) || errors.As(err, &value) || errors.As(err, &invalid) || errors.As(err, &syntax)
	)
	return required || errors.As(err, &usage)
}

// contextOf returns what a chain of errors says before the server's error.
func contextOf(err error, server *model.Error) string {
	return strings.TrimSuffix(err.Error(), server.Error())
}

// forUsers gives errors about tokens the action of a user of this command line:
// the server's is for those who write requests.
func forUsers(e *model.Error) *model.Error {
	switch e.Code {
	case model.CodeMissingAuthToken, model.CodeInvalidAuthToken, model.CodeExpiredAuthToken, model.CodeMalformedAuthToken:
		changed := *e
		return changed.Do("log in with \"pleiad target login\"")
	}
	return e
}

// writeServerError writes message, data and next action. Data of several lines,
// such as the tail of a node's log, is indented below its name.
func writeServerError(w io.Writer, e *model.Error, context string) {
	fmt.Fprintf(w, "Error: %s%s (%s)\n", context, oneLine(e.Message), e.Code)
	for _, key := range slices.Sorted(maps.Keys(e.Data)) {
		value := strings.TrimRight(printable(e.Data[key]), "\n")
		if !strings.Contains(value, "\n") {
			if value != "" {
				fmt.Fprintf(w, "  %s: %s\n", key, value)
			}
			continue
		}
		fmt.Fprintf(w, "  %s:\n", key)
		for line := range strings.SplitSeq(value, "\n") {
			fmt.Fprintf(w, "    | %s\n", line)
		}
	}
	if e.Action != "" {
		fmt.Fprintf(w, "Next: %s\n", oneLine(e.Action))
	}
}

// taskError is a task that ended in state ERROR.
type taskError struct {
	task   model.Task
	step   string // that failed; empty if none did
	causes []model.Error
}

// newTaskError returns the error of a task that failed.
func newTaskError(task model.Task) *taskError {
	e := &taskError{task: task}
	for _, step := range task.Steps {
		if step.State == model.TaskError {
			if e.step == "" {
				e.step = step.Operation
			}
			e.causes = append(e.causes, step.Errors...)
		}
	}
	return e
}

func (e *taskError) Error() string { return fmt.Sprintf("task %s failed: %s", e.task.ID, e.where()) }

// where says which operation failed, and in which step.
func (e *taskError) where() string {
	if e.step == "" {
		return e.task.Operation
	}
	return e.task.Operation + ", step " + e.step
}

// Unwrap gives the causes, so that callers can compare by code.
func (e *taskError) Unwrap() []error {
	errs := make([]error, len(e.causes))
	for i := range e.causes {
		errs[i] = &e.causes[i]
	}
	return errs
}
