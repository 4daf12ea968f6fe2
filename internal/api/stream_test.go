package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

func endedTask(_ context.Context, changed func(model.Task) error) error {
	return changed(model.Task{ID: "task", State: model.TaskCompleted})
}

// events follows the fixture's task and returns its lines.
func events(t *testing.T, f *fixture) (*bufio.Scanner, *http.Response) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), "GET", f.URL+"/v1/tasks/task/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer user")
	response, err := f.Client().Do(q)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if ct := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || ct != "text/event-stream" {
		t.Fatalf("status %d, type %s", response.StatusCode, ct)
	}
	return bufio.NewScanner(response.Body), response
}

// next returns the task of the next event.
func next(t *testing.T, lines *bufio.Scanner) model.Task {
	t.Helper()
	var task model.Task
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &task); err != nil {
				t.Fatal(err)
			}
			return task
		}
	}
	t.Fatalf("the stream ended: %v", lines.Err())
	return task
}

// Each change arrives when it happens, not when the stream ends.
func TestEvents(t *testing.T) {
	f := newFixture(t)
	change := make(chan model.TaskState)
	f.ops.watch = func(_ context.Context, changed func(model.Task) error) error {
		for state := range change {
			if err := changed(model.Task{ID: "task", State: state}); err != nil {
				return err
			}
		}
		return nil
	}
	lines, _ := events(t, f)
	for _, state := range []model.TaskState{model.TaskQueued, model.TaskStarted, model.TaskCompleted} {
		change <- state
		if task := next(t, lines); task.State != state || task.SelfLink != "/v1/tasks/task" || task.Steps == nil {
			t.Errorf("event %+v, want %s", task, state)
		}
	}
	close(change)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data:") {
			t.Errorf("another event: %s", lines.Text())
		}
	}
	if lines.Err() != nil {
		t.Errorf("the stream was not ended well: %v", lines.Err())
	}
}

// A stream ends, and with it the watch, when the server stops and when the client goes.
func TestEventsEnd(t *testing.T) {
	for name, end := range map[string]func(*fixture, *http.Response){
		"server": func(f *fixture, _ *http.Response) { close(f.stop) },
		"client": func(_ *fixture, r *http.Response) { r.Body.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			watched := make(chan error, 1)
			f.ops.watch = func(ctx context.Context, changed func(model.Task) error) error {
				err := changed(model.Task{ID: "task", State: model.TaskStarted})
				<-ctx.Done()
				watched <- ctx.Err()
				return err
			}
			lines, response := events(t, f)
			next(t, lines)
			end(f, response)
			if err := <-watched; err == nil {
				t.Error("the watch was not ended")
			}
			if name == "server" {
				for lines.Scan() {
					continue
				}
				if lines.Err() != nil {
					t.Errorf("the stream was not ended well: %v", lines.Err())
				}
			}
		})
	}
}
