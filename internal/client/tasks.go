package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/pleiad/pleiad/internal/model"
)

// Tasks lists tasks; filters are entityId, entityKind and state.
func (c *Client) Tasks(ctx context.Context, filters ...Filter) ([]model.Task, error) {
	return all[model.Task](ctx, c, at("tasks"), filters...)
}

// Task returns a task.
func (c *Client) Task(ctx context.Context, id string) (*model.Task, error) {
	return get[model.Task](ctx, c, at("tasks", id))
}

// TasksOf lists the tasks of an object, e.g. TasksOf(ctx, "clusters", id);
// noun is the object's in paths.
func (c *Client) TasksOf(ctx context.Context, noun, id string, filters ...Filter) ([]model.Task, error) {
	return all[model.Task](ctx, c, at(noun, id, "tasks"), filters...)
}

// WaitTask follows a task to its end and returns it. If it ended in error, the
// first cause is returned as a *model.Error as well.
func (c *Client) WaitTask(ctx context.Context, id string, changed func(model.Task)) (*model.Task, error) {
	var last model.Task
	err := c.FollowTask(ctx, id, func(t model.Task) error {
		last = t
		if changed != nil {
			changed(t)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if last.State != model.TaskError {
		return &last, nil
	}
	for _, step := range last.Steps {
		if step.State == model.TaskError && len(step.Errors) > 0 {
			return &last, &step.Errors[0]
		}
	}
	return &last, model.Errorf(model.CodeInternalError, "task %s (%s) failed and does not say why", last.ID, last.Operation)
}

const (
	pollInterval = time.Second
	// patience is how long a server may be gone while a task is followed: one
	// that restarts, or replicas that take over from each other, are waited for.
	patience = 2 * time.Minute
	// silence is how long a stream may say nothing; the server says something
	// every 15 seconds.
	silence  = 45 * time.Second
	maxEvent = 4 << 20 // bytes of a task
)

// FollowTask calls changed with the task as it is, and again whenever it has
// changed, until its end; then it returns nil. A server that cannot be reached
// for a while is waited for. An error of changed, or the server's refusal, ends it.
func (c *Client) FollowTask(ctx context.Context, id string, changed func(model.Task) error) error {
	f := follower{changed: changed}
	heard := time.Now()
	streams := true // until a stream brings nothing, e.g. by a proxy that holds it back
	for {
		var err error
		if streams {
			seen := f.seen
			err = c.stream(ctx, id, f.see)
			streams = f.seen > seen || err != nil
		}
		if !f.over && !refused(err) && ctx.Err() == nil {
			// The stream ended before the task, or there was none: a look says what is.
			var t *model.Task
			if t, err = c.Task(ctx, id); err == nil {
				heard = time.Now()
				f.see(t)
			}
		}
		switch {
		case f.over:
			return f.err
		case ctx.Err() != nil:
			return ctx.Err()
		case refused(err), err != nil && time.Since(heard) > patience:
			return err
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// refused reports whether the server understood and said no: asking again would not help.
func refused(err error) bool {
	var answer *ResponseError
	return errors.As(err, &answer) && answer.Status < http.StatusInternalServerError
}

// follower passes on what is new of a task.
type follower struct {
	changed func(model.Task) error
	last    model.Task
	seen    int
	over    bool  // the task has ended, or changed has failed
	err     error // changed's
}

// see takes the task as it is now and reports whether to go on.
func (f *follower) see(t *model.Task) bool {
	if f.seen++; f.seen == 1 || !reflect.DeepEqual(f.last, *t) {
		f.last = *t
		f.err = f.changed(*t)
	}
	f.over = f.err != nil || t.State.Finished()
	return !f.over
}

// stream reads a task's events until see has enough or the stream ends, for
// which the error, if any, says why.
func (c *Client) stream(ctx context.Context, id string, see func(*model.Task) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	response, err := c.open(ctx, request{
		method: http.MethodGet, path: at("tasks", id, "events"), header: http.Header{"Accept": {"text/event-stream"}},
	})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		watchdog.Reset(silence)
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok { // the name of an event, the end of one, or a comment
			continue
		}
		t := new(model.Task)
		if err := json.Unmarshal(data, t); err != nil {
			return fmt.Errorf("an event of task %s cannot be read: %w", id, err)
		}
		if !see(t) {
			return nil
		}
	}
	return lines.Err()
}
