package control

import (
	"slices"

	"github.com/pleiad/pleiad/internal/model"
)

// newTask makes a task with its steps, all queued.
func (c *Controller) newTask(operation string, entity model.Entity, steps ...string) *model.Task {
	now := c.now()
	t := &model.Task{
		ID: newID(), Kind: "task", Operation: operation, Entity: entity,
		State: model.TaskQueued, QueuedTime: now, Steps: make([]model.Step, len(steps)),
	}
	for i, s := range steps {
		t.Steps[i] = model.Step{Sequence: i, Operation: s, State: model.TaskQueued, QueuedTime: now}
	}
	return t
}

// completedTask makes the task of an operation that was done in the
// transaction that records it.
func (c *Controller) completedTask(operation string, entity model.Entity) *model.Task {
	t := c.newTask(operation, entity, operation)
	setStep(t, operation, model.TaskCompleted, "", nil, c.now())
	finish(t, c.now())
	return t
}

// setStep moves a step on and reports whether anything changed. A finished step
// stays as it is, but for one in error, which may be taken up again.
func setStep(t *model.Task, operation string, state model.TaskState, progress string, cause *model.Error, now int64) bool {
	i := slices.IndexFunc(t.Steps, func(s model.Step) bool { return s.Operation == operation })
	if i < 0 {
		return false
	}
	s := &t.Steps[i]
	if s.State == model.TaskCompleted || (s.State == state && s.Progress == progress && state != model.TaskError) {
		return false
	}
	if state != model.TaskQueued && s.StartedTime == 0 {
		s.StartedTime = now
	}
	s.State, s.Progress, s.EndTime, s.Errors = state, progress, 0, nil
	if state.Finished() {
		s.EndTime = now
	}
	if cause != nil {
		s.Errors = []model.Error{*cause}
	}
	if t.State == model.TaskQueued && state != model.TaskQueued {
		t.State, t.StartedTime = model.TaskStarted, now
	}
	return true
}

// finish ends a task: completed when every step is, in error otherwise.
func finish(t *model.Task, now int64) {
	if t.State.Finished() {
		return
	}
	if t.StartedTime == 0 {
		t.StartedTime = now
	}
	t.State, t.EndTime = model.TaskCompleted, now
	for _, s := range t.Steps {
		if s.State != model.TaskCompleted {
			t.State = model.TaskError
		}
	}
}

// fail ends a task with a cause, shown at the step that was being worked on.
func fail(t *model.Task, operation string, cause *model.Error, now int64) {
	setStep(t, operation, model.TaskError, "", cause, now)
	t.State, t.EndTime = model.TaskError, now
	if t.StartedTime == 0 {
		t.StartedTime = now
	}
}
