package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// leaseTTL is how long a leader that died without a word is waited for.
const leaseTTL = 5 * time.Second

// leader reconciles, while this replica leads. Its writes are fenced: once
// another replica leads they fail. External actions are idempotent, which
// covers the moment in which a deposed leader does not know it yet.
type leader struct {
	*Controller
	fenced *store.Fenced
	queue  *queue
}

// updateIn is Controller.updateIn, fenced.
func (c *leader) updateIn(ctx context.Context, group string, fn func(tx *store.Tx) error) error {
	_, err := c.fenced.Update(ctx, group, fn)
	return err
}

func (c *leader) update(ctx context.Context, fn func(tx *store.Tx) error) error {
	return c.updateIn(ctx, "", fn)
}

// Run keeps the fleet up to date and, whenever this replica leads, reconciles;
// it returns when ctx has ended and work in hand has reached a point from which
// it can be taken up again.
func (c *Controller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.followFleet(ctx) })
	wg.Go(func() { c.followPlans(ctx) })
	defer c.hosts.close()
	for ctx.Err() == nil {
		lead, err := c.Store.Campaign(ctx, "control", c.Replica, leaseTTL)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return fmt.Errorf("campaign for leadership: %w", err)
		}
		c.log.Info("leading")
		c.lead(ctx, lead)
		resign, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTTL)
		if err := lead.Resign(resign); err != nil {
			c.log.Warn("leadership was not given up cleanly", "error", err)
		}
		cancel()
	}
	return nil
}

// lead reconciles until ctx ends or leadership is lost.
func (c *Controller) lead(ctx context.Context, l *store.Leadership) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		select {
		case <-l.Done():
			c.log.Warn("leadership lost")
			cancel()
		case <-ctx.Done():
		}
	})
	w := &leader{Controller: c, fenced: c.Store.Fenced(l)}
	w.queue = newQueue(w.reconcile, nouns...)
	w.follow(ctx, &wg)
	w.queue.serve(ctx, c.Workers)
	cancel()
}

// Nouns of keys.
const (
	nounHost    = "host"
	nounImage   = "image"
	nounVM      = "vm"
	nounCluster = "cluster"
	nounTasks   = "tasks" // all of them, under one key
)

var nouns = []string{nounHost, nounImage, nounVM, nounCluster, nounTasks}

// follow turns changes in the store into keys to reconcile. At its start it
// yields everything there is: that is how work goes on after a restart.
func (c *leader) follow(ctx context.Context, wg *sync.WaitGroup) {
	c.queue.add(key{noun: nounTasks})
	present := store.WatchOptions{Present: true}
	hosts := store.Hosts.Watch(ctx, c.Store, present)
	wg.Go(func() {
		for e := range hosts {
			if e.New == nil || e.Old == nil || e.Old.State != e.New.State {
				c.queue.add(key{nounHost, e.ID})
			}
			if answers(e.New) != answers(e.Old) {
				c.wakeImages()
				c.restartVMs(e.ID)
			}
		}
	})
	images := store.Images.Watch(ctx, c.Store, present)
	wg.Go(func() {
		for e := range images {
			if e.Old == nil || (e.New != nil && e.Old.State != e.New.State) {
				c.queue.restart(key{nounImage, e.ID}) // one that is to go need not be copied first
			}
		}
	})
	vms := store.VMs.Watch(ctx, c.Store, present)
	wg.Go(func() {
		for e := range vms {
			// What a failed attempt notes in the VM's conditions must not cut its backoff short.
			if e.New != nil && (e.Old == nil || e.Old.State != e.New.State) {
				c.queue.add(key{nounVM, e.ID})
			}
			if e.New != nil && e.Old != nil && e.New.Deleting && !e.Old.Deleting {
				c.queue.restart(key{nounVM, e.ID}) // it need not be made first
			}
			if e.New == nil && e.Old != nil {
				c.queue.add(key{nounHost, e.Old.HostID}) // it has more space now
			}
			for _, v := range []*model.VM{e.Old, e.New} {
				if v != nil && v.ClusterID != "" {
					c.queue.add(key{nounCluster, v.ClusterID})
				}
			}
		}
	})
	clusters := store.Clusters.Watch(ctx, c.Store, present)
	wg.Go(func() {
		for e := range clusters {
			c.queue.add(key{nounCluster, e.ID})
		}
	})
	said := reports.Watch(ctx, c.Store, store.WatchOptions{})
	wg.Go(func() {
		for e := range said {
			if e.New != nil {
				c.nodes.hear(e.ID, c.now()) // it may have spoken to another replica
			}
			if v, err := store.VMs.Get(c.Store, e.ID); err == nil && v.ClusterID != "" {
				c.queue.add(key{nounCluster, v.ClusterID})
			}
		}
	})
}

func (c *leader) wakeImages() {
	images, _, err := store.Images.List(c.Store, store.Query{})
	if err != nil {
		c.log.Error("images could not be listed", "error", err)
	}
	for _, img := range images {
		c.queue.add(key{nounImage, img.ID})
	}
}

// restartVMs has what waits for a host to come back tried at once, and what
// waits for the answers of a host that gives none any more given up for now.
func (c *leader) restartVMs(hostID string) {
	vms, _, err := store.VMs.List(c.Store, store.Query{Index: "hostId", Value: hostID})
	if err != nil {
		c.log.Error("VMs could not be listed", "error", err)
	}
	for _, v := range vms {
		if v.Deleting || v.State == model.VMCreating {
			c.queue.restart(key{nounVM, v.ID})
		}
	}
}

// reconcile runs the reconciler of a key.
func (c *leader) reconcile(ctx context.Context, k key) (again time.Duration, err error) {
	switch k.noun {
	case nounHost:
		if again, err = c.reconcileHost(ctx, k.id); err == nil {
			err = c.sweep(ctx, k.id)
		}
	case nounImage:
		err = c.reconcileImage(ctx, k.id)
	case nounVM:
		err = c.reconcileVM(ctx, k.id)
	case nounCluster:
		again, err = c.reconcileCluster(ctx, k.id)
	case nounTasks:
		again, err = pruneInterval, c.pruneTasks(ctx)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrFenced) {
		c.log.Warn("reconcile failed; it will be tried again", "noun", k.noun, "id", k.id, "error", err)
	}
	return again, err
}
