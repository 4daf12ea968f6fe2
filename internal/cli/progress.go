package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pleiad/pleiad/internal/model"
)

// follow waits until a task has ended and shows its steps meanwhile. A task
// that failed is a *taskError. An interrupt ends the waiting and not the task.
func (s *session) follow(ctx context.Context, task model.Task, label string) (model.Task, error) {
	var err error
	if !task.State.Finished() {
		task, err = s.watch(ctx, task, label)
	}
	if err == nil && task.State == model.TaskError {
		err = newTaskError(task)
	}
	return task, err
}

// watch shows a task until it has ended, and returns it as it was last seen.
func (s *session) watch(ctx context.Context, task model.Task, label string) (model.Task, error) {
	api, err := s.api()
	if err != nil {
		return task, err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	show, done := s.taskDisplay(task, label)
	defer done()
	err = api.FollowTask(ctx, task.ID, func(t model.Task) error {
		task = t
		show(t)
		s.logger().Info("task", "id", t.ID, "operation", t.Operation, "state", t.State, "entity", t.Entity.ID)
		return nil
	})
	if err == nil || task.State.Finished() {
		return task, nil
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	return task, fmt.Errorf("%w; the task goes on, and can be followed with \"pleiad task monitor %s\"", err, task.ID)
}

// taskDisplay returns what shows a task as it changes, and what ends the showing.
func (s *session) taskDisplay(task model.Task, label string) (show func(model.Task), done func()) {
	if s.format != formatTable {
		return func(model.Task) {}, func() {}
	}
	size, ok := terminal(s.env.Stderr)
	if !ok {
		l := &taskLog{out: s.env.Stderr, label: label, states: map[int]model.TaskState{}, messages: map[int]string{}}
		l.show(task)
		return l.show, func() {}
	}
	v := &taskView{label: label, task: task, since: map[int]time.Time{}}
	p := newPainter(s.env.Stderr, size, v.render)
	return v.show, p.close
}

// taskView is a task as it is drawn in place.
type taskView struct {
	label string

	mu   sync.Mutex
	task model.Task
	// since is when each step was first seen to run, by this machine's clock:
	// the server's may differ.
	since map[int]time.Time
}

func (v *taskView) show(t model.Task) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.task = t
}

// render draws a heading, and for each step its state, name, time and what it says of itself.
func (v *taskView) render(now time.Time, frame int) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	width := 0
	for _, step := range v.task.Steps {
		width = max(width, len(step.Operation))
	}
	lines := []string{heading(v.task, v.label)}
	for _, step := range v.task.Steps {
		mark, elapsed := "·", ""
		switch step.State {
		case model.TaskStarted:
			if _, seen := v.since[step.Sequence]; !seen {
				v.since[step.Sequence] = now
			}
			mark = string(spinner[frame%len(spinner)])
			elapsed = durationText(now.Sub(v.since[step.Sequence]))
		case model.TaskCompleted:
			mark, elapsed = "✔", durationText(betweenMillis(step.StartedTime, step.EndTime))
		case model.TaskError:
			mark, elapsed = "✘", durationText(betweenMillis(step.StartedTime, step.EndTime))
		}
		line := fmt.Sprintf(" %s %-*s  %6s  %s", mark, width, step.Operation, elapsed, stepMessage(step))
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}

func heading(t model.Task, label string) string {
	return strings.TrimRight(t.Operation+" "+label, " ")
}

// stepMessage is what a step says of itself while it runs; an error is told at the end, in full.
func stepMessage(step model.Step) string {
	if step.State == model.TaskStarted {
		return oneLine(step.Progress)
	}
	return ""
}

// taskLog writes a line per change, where lines cannot be drawn in place.
type taskLog struct {
	out      io.Writer
	label    string
	begun    bool
	states   map[int]model.TaskState // by step
	messages map[int]string
}

func (l *taskLog) show(t model.Task) {
	if !l.begun {
		fmt.Fprintln(l.out, heading(t, l.label))
		l.begun = true
	}
	for _, step := range t.Steps {
		if step.State == model.TaskQueued {
			continue
		}
		if l.states[step.Sequence] != step.State {
			l.states[step.Sequence] = step.State
			switch step.State {
			case model.TaskStarted:
				fmt.Fprintf(l.out, "  %s started\n", step.Operation)
			case model.TaskCompleted:
				fmt.Fprintf(l.out, "  %s completed in %s\n", step.Operation, durationText(betweenMillis(step.StartedTime, step.EndTime)))
			case model.TaskError:
				fmt.Fprintf(l.out, "  %s failed after %s\n", step.Operation, durationText(betweenMillis(step.StartedTime, step.EndTime)))
			}
		}
		if message := stepMessage(step); message != "" && message != l.messages[step.Sequence] {
			l.messages[step.Sequence] = message
			fmt.Fprintf(l.out, "  %s: %s\n", step.Operation, message)
		}
	}
}
