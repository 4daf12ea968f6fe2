package control

import (
	"context"
	"fmt"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// WatchTask calls changed with the task as it is and whenever it has changed,
// until it has ended.
func (c *Controller) WatchTask(ctx context.Context, id string, changed func(model.Task) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := store.Tasks.Watch(ctx, c.Store, store.WatchOptions{ID: id, Present: true})
	if _, err := get(c.Store, store.Tasks, id, model.CodeTaskNotFound); err != nil {
		return err
	}
	for e := range events {
		if e.New == nil {
			return model.Errorf(model.CodeTaskNotFound, "task %s is gone", id).With("id", id)
		}
		if err := changed(*e.New); err != nil {
			return err
		}
		if e.New.State.Finished() {
			return nil
		}
	}
	return ctx.Err()
}

// Status tells how the system's parts are: the controller, and the hosts it can reach.
func (c *Controller) Status(context.Context) (model.SystemStatus, error) {
	hosts, _, err := store.Hosts.List(c.Store, store.Query{})
	if err != nil {
		return model.SystemStatus{}, err
	}
	out := 0
	for _, h := range hosts {
		for _, cond := range h.Conditions {
			if cond.Type == "Reachable" && cond.Status != "True" {
				out++
			}
		}
	}
	s := model.SystemStatus{Status: "READY", Components: []model.ComponentStatus{{
		Component: "photon-controller", Status: "READY",
		Stats: map[string]string{"hosts": fmt.Sprint(len(hosts)), "hostsUnreachable": fmt.Sprint(out)},
	}}}
	if out > 0 {
		s.Status = "PARTIAL_ERROR"
		s.Components[0].Message = fmt.Sprintf("%d of %d hosts cannot be reached", out, len(hosts))
	}
	return s, nil
}
