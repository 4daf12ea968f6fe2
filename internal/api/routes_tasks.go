package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/pleiad/pleiad/internal/model"
)

func (s *server) taskRoutes() {
	const tag = "tasks"
	list(s, op("listTasks", "GET /v1/tasks", Authenticated, tag, "List tasks"), s.tasks, "entityId", "entityKind", "state")
	get(s, op("getTask", "GET /v1/tasks/{id}", Authenticated, tag, "Show a task"), s.tasks)
	s.eventsRoute(op("followTask", "GET /v1/tasks/{id}/events", Authenticated, tag, "Follow a task"))
}

// stream is an answer that is written as it comes.
type stream struct{ Body func(huma.Context) }

// keepAlive is how often a silent event stream says that it is still there.
const keepAlive = 15 * time.Second

func (s *server) eventsRoute(o huma.Operation) {
	o.Description = "Server-sent events: each is named task and carries the task as it was then, the first " +
		"as it is now. The stream ends after the task's end, or when the server stops; then follow again."
	taskSchema := s.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[model.Task](), true, "Task")
	o.Responses = map[string]*huma.Response{"200": {
		Description: "The task, each time that it has changed.",
		Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: taskSchema}},
	}}
	o = withRoute(o, func(rt *route) { rt.stream = true })
	huma.Register(s.huma, o, func(ctx context.Context, in *byID) (*stream, error) {
		if _, err := s.tasks.find(ctx, in.ID); err != nil {
			return nil, httpError{s.userError(ctx, err)}
		}
		return &stream{func(c huma.Context) {
			_, w := humago.Unwrap(c)
			s.follow(ctx, w, in.ID)
		}}, nil
	})
}

// follow writes a task's changes until its end, the client's or the server's.
func (s *server) follow(ctx context.Context, w http.ResponseWriter, id string) {
	var watch sync.WaitGroup
	defer watch.Wait()
	ctx, release := s.untilStopping(ctx)
	defer release()
	changes := make(chan model.Task)
	watch.Go(func() {
		defer close(changes)
		err := s.Operations.WatchTask(ctx, id, func(t model.Task) error {
			select {
			case changes <- t:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil && ctx.Err() == nil {
			s.log.Error("following a task failed", "request", requestID(ctx), "task", id, "error", err)
		}
	})

	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	events := eventWriter{w, http.NewResponseController(w)}
	beat := time.NewTicker(keepAlive)
	defer beat.Stop()
	err := events.send(": following")
	for err == nil {
		select {
		case t, more := <-changes:
			if !more {
				return
			}
			err = events.task(&t)
		case <-beat.C:
			err = events.send(": still there")
		case <-ctx.Done():
			return
		}
	}
}

// eventWriter writes server-sent events. An error means that the client is
// gone or takes nothing.
type eventWriter struct {
	w    http.ResponseWriter
	conn *http.ResponseController
}

func (e eventWriter) task(t *model.Task) error {
	b, err := json.Marshal(tasks.present(t))
	if err != nil {
		return err
	}
	return e.send("event: task\ndata: " + string(b))
}

func (e eventWriter) send(event string) error {
	if err := e.conn.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := io.WriteString(e.w, event+"\n\n"); err != nil {
		return err
	}
	return e.conn.Flush()
}
