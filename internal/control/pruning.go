package control

import (
	"context"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

const (
	// taskRetention is how long a finished task can be looked up.
	taskRetention = 7 * 24 * time.Hour
	// pruneInterval is how often tasks are looked through.
	pruneInterval = time.Hour
	// pruneBatch is how many tasks one transaction deletes: each takes a handful of
	// operations, and an external etcd may allow no more than 128.
	pruneBatch = 16
)

// pruneTasks deletes the tasks that were finished long ago, so that the store
// does not grow with everything that was ever done.
func (c *leader) pruneTasks(ctx context.Context) error {
	tasks, _, err := store.Tasks.List(c.Store, store.Query{})
	if err != nil {
		return err
	}
	before := c.now() - taskRetention.Milliseconds()
	var old []*model.Task
	for _, t := range tasks {
		if t.State.Finished() && t.EndTime < before {
			old = append(old, t)
		}
	}
	for len(old) > 0 {
		batch := old[:min(len(old), pruneBatch)]
		old = old[len(batch):]
		err := c.update(ctx, func(tx *store.Tx) error {
			for _, t := range batch {
				if err := ignoreNotFound(store.Tasks.Delete(tx, t.ID)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
