package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

const (
	stepProvision = "PROVISION_HOST"
	// factsInterval is how often a host is asked for its facts.
	factsInterval = time.Minute
	// returnInterval is how often one that did not answer is.
	returnInterval = 5 * time.Second
	// hostTimeout bounds the first contact with a host: a wrong address must be told soon.
	hostTimeout = 15 * time.Second
	// cleanTimeout bounds how long the deletion of a host is held up by removing our images from it.
	cleanTimeout = 5 * time.Second
	// conditionReachable says whether a host answered when it was last asked.
	conditionReachable = "Reachable"
)

// CreateHost registers a host. Its task connects to it and ends in error, with
// nothing left of the host, when that fails.
func (c *Controller) CreateHost(ctx context.Context, spec model.HostCreateSpec) (*model.Task, error) {
	if spec.Driver == "" {
		spec.Driver = "lxd"
	}
	if c.Connectors[spec.Driver] == nil {
		return nil, model.Errorf(model.CodeHostDriver, "this server has no driver %q", clip(spec.Driver)).
			With("driver", clip(spec.Driver)).Do("use one of: %s", strings.Join(c.Connectors.Names(), ", "))
	}
	if err := checkAddress(spec.Address); err != nil {
		return nil, err
	}
	for i, t := range spec.UsageTags {
		if !slices.Contains([]string{model.UsageCloud, model.UsageMgmt, model.UsageImage}, t) {
			return nil, model.Errorf(model.CodeInvalidEntity, "usageTags[%d] must be CLOUD, MGMT or IMAGE (was %q)", i, clip(t))
		}
	}
	h := &model.Host{
		Meta: c.meta("host", ""), Address: spec.Address, Driver: spec.Driver, Username: spec.Username,
		AvailabilityZone: spec.AvailabilityZone, UsageTags: spec.UsageTags, Metadata: spec.Metadata,
		Fingerprint: strings.ToLower(strings.ReplaceAll(spec.Fingerprint, ":", "")), State: model.HostCreating,
	}
	secret := &model.Secret{ID: h.ID, Values: map[string][]byte{"password": []byte(spec.Password)}}
	task := c.newTask("CREATE_HOST", model.Entity{ID: h.ID, Kind: "host"}, stepProvision)
	err := c.update(ctx, func(tx *store.Tx) error {
		if h.AvailabilityZone != "" {
			if _, err := get(tx, store.Zones, h.AvailabilityZone, model.CodeAvailabilityZoneNotFound); err != nil {
				return err
			}
		}
		return errors.Join(store.Hosts.Put(tx, h), store.Secrets.Put(tx, secret), store.Tasks.Put(tx, task))
	})
	if errors.Is(err, model.ErrorOf(model.CodeNameTaken)) {
		err = model.Errorf(model.CodeDuplicateHost, "there is a host with the address %s already", spec.Address).
			With("address", spec.Address)
	}
	return task, err
}

// checkAddress wants a host name or IP address with optional port, or unix:PATH.
func checkAddress(address string) error {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if !strings.HasPrefix(path, "/") {
			return model.Errorf(model.CodeInvalidEntity, "address unix:PATH must have an absolute path (was %q)", clip(address))
		}
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = address, ""
	}
	for _, r := range port {
		if r < '0' || r > '9' {
			return model.Errorf(model.CodeInvalidEntity, "address has a port that is not a number (was %q)", clip(address))
		}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if host == "" || len(host) > 253 || strings.ContainsFunc(host, func(r rune) bool {
		return r != '.' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return model.Errorf(model.CodeInvalidEntity, "address must be a host name or an IP address, with an optional port, or unix:PATH (was %q)", clip(address))
	}
	return nil
}

// DeleteHost forgets a host that has no VMs, and removes our images from it if
// it lets us.
func (c *Controller) DeleteHost(ctx context.Context, id string) (*model.Task, error) {
	task := c.completedTask("DELETE_HOST", model.Entity{ID: id, Kind: "host"})
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	images, d := c.copiesOn(clean, id) // now, as the host's secret goes with it
	if d != nil {
		defer func() { _ = d.Close() }() // nothing hangs on the answer to a goodbye
	}
	err := c.updateIn(ctx, ledger, func(tx *store.Tx) error {
		if _, err := get(tx, store.Hosts, id, model.CodeHostNotFound); err != nil {
			return err
		}
		if n, err := store.VMs.Count(tx, store.Query{Index: "hostId", Value: id}); err != nil {
			return err
		} else if n > 0 {
			return model.Errorf(model.CodeHostHasVMs, "the host has %d VMs", n).
				With("id", id).With("vmCount", fmt.Sprint(n)).Do("delete its VMs and clusters first")
		}
		// Its registration, if that is under way, ends here.
		err := c.stepOf(tx, id, "CREATE_HOST", func(t *model.Task) {
			fail(t, stepProvision, model.Errorf(model.CodeConcurrentTask, "the host was deleted").With("task", task.ID), c.now())
		})
		return errors.Join(err, c.forgetHost(tx, id), store.Tasks.Put(tx, task))
	})
	if err != nil {
		return task, err
	}
	c.hosts.drop(id)
	for _, img := range images {
		if err := d.DeleteImage(clean, img); err != nil {
			c.log.Warn("a copy of an image stays on a deleted host", "host", id, "image", img, "error", err)
		}
	}
	return task, nil
}

// copiesOn returns the images of which a host that may be deleted has copies, and
// a session of its own with it; none if there is nothing to do on it, or it does
// not answer.
func (c *Controller) copiesOn(ctx context.Context, id string) ([]string, hypervisor.Driver) {
	h, err := store.Hosts.Get(c.Store, id)
	if err != nil || !answers(h) {
		return nil, nil
	}
	if n, err := store.VMs.Count(c.Store, store.Query{Index: "hostId", Value: id}); err != nil || n > 0 {
		return nil, nil
	}
	images, _, err := store.Images.List(c.Store, store.Query{})
	if err != nil {
		return nil, nil
	}
	var ids []string
	for _, img := range images {
		if hasCopy(img, id) {
			ids = append(ids, img.ID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	d, _, err := c.dial(ctx, h)
	if err != nil {
		c.log.Warn("copies of images stay on a host that is being deleted", "host", id, "images", len(ids), "error", err)
		return nil, nil
	}
	return ids, d
}

// forgetHost removes a host and all that is recorded of it.
func (c *Controller) forgetHost(tx *store.Tx, id string) error {
	images, _, err := store.Images.List(c.Store, store.Query{})
	if err != nil {
		return err
	}
	for _, img := range images {
		if _, ok := img.Hosts[id]; !ok {
			continue
		}
		img, err := store.Images.Get(tx, img.ID)
		if errors.Is(err, store.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		delete(img.Hosts, id)
		if err := store.Images.Put(tx, img); err != nil {
			return err
		}
	}
	datastores, _, err := store.Datastores.List(tx, store.Query{Index: "hostId", Value: id})
	if err != nil {
		return err
	}
	for _, d := range datastores {
		if err := store.Datastores.Delete(tx, d.ID); err != nil {
			return err
		}
	}
	orphans, _, err := store.Orphans.List(tx, store.Query{Index: "hostId", Value: id})
	if err != nil {
		return err
	}
	for _, o := range orphans { // they are the operator's now
		if err := c.forgetOrphan(tx, o.ID); err != nil {
			return err
		}
	}
	return errors.Join(
		store.Hosts.Delete(tx, id),
		ignoreNotFound(store.Secrets.Delete(tx, id)),
		ignoreNotFound(hostUsages.Delete(tx, id)),
	)
}

// reconcileHost provisions a new host and refreshes the facts of a known one.
func (c *leader) reconcileHost(ctx context.Context, id string) (time.Duration, error) {
	h, err := store.Hosts.Get(c.Store, id)
	if errors.Is(err, store.ErrNotFound) {
		c.hosts.drop(id)
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	if h.State == model.HostCreating {
		return factsInterval, c.provisionHost(ctx, h)
	}
	return c.refreshHost(ctx, h)
}

func (c *leader) provisionHost(ctx context.Context, h *model.Host) error {
	ctx, cancel := context.WithTimeout(ctx, hostTimeout)
	defer cancel()
	if err := c.startStep(ctx, h.ID, "CREATE_HOST", stepProvision, "connecting to "+h.Address); err != nil {
		return err
	}
	fingerprint, facts, err := c.hosts.connect(ctx, c.Controller, h)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return err // the server is stopping; the next one goes on
		}
		cause := noAnswer(h, err)
		c.log.Warn("host could not be registered", "host", h.ID, "address", h.Address, "error", err)
		ctx := context.WithoutCancel(ctx)
		return c.update(ctx, func(tx *store.Tx) error {
			if err := c.forgetHost(tx, h.ID); err != nil {
				return ignoreNotFound(err)
			}
			return c.stepOf(tx, h.ID, "CREATE_HOST", func(t *model.Task) { fail(t, stepProvision, cause, c.now()) })
		})
	}
	return c.update(ctx, func(tx *store.Tx) error {
		h, err := store.Hosts.Get(tx, h.ID)
		if err != nil {
			return ignoreNotFound(err)
		}
		h.State, h.Fingerprint = model.HostReady, fingerprint
		h.Conditions = model.SetCondition(h.Conditions, model.Condition{Type: conditionReachable, Status: "True", Time: c.now()})
		if err := c.setFacts(tx, h, facts); err != nil {
			return err
		}
		// The token or password has done its work; the host knows our certificate now.
		secret := &model.Secret{ID: h.ID}
		if h.Driver != "lxd" {
			if secret, err = store.Secrets.Get(tx, h.ID); err != nil {
				return err
			}
		}
		if err := errors.Join(store.Secrets.Put(tx, secret), hostUsages.Put(tx, &model.HostUsage{HostID: h.ID})); err != nil {
			return err
		}
		return c.stepOf(tx, h.ID, "CREATE_HOST", func(t *model.Task) {
			setStep(t, stepProvision, model.TaskCompleted, facts.Hypervisor, nil, c.now())
			finish(t, c.now())
		})
	})
}

// noAnswer is the error of a host that was asked something, with hostTimeout, in words.
func noAnswer(h *model.Host, err error) *model.Error {
	if errors.Is(err, context.DeadlineExceeded) {
		return model.Errorf(model.CodeHostUnreachable, "%s did not answer within %s", h.Address, hostTimeout).
			Do("check the address, and that the hypervisor's API listens there")
	}
	return model.AsError(err)
}

// refreshHost asks a host for its facts and records what changed. A host that
// does not answer keeps its facts and gets a condition. It returns when to ask again.
func (c *leader) refreshHost(ctx context.Context, h *model.Host) (again time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, hostTimeout)
	defer cancel()
	d, err := c.driver(ctx, h)
	var facts model.HostFacts
	if err == nil {
		facts, err = d.Facts(ctx)
	}
	again = factsInterval
	reachable := model.Condition{Type: conditionReachable, Status: "True", Time: c.now()}
	if err != nil {
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
			return 0, err
		}
		e := noAnswer(h, err)
		reachable.Status, reachable.Reason, reachable.Message = "False", string(e.Code), e.Message
		c.hosts.drop(h.ID)
		again = returnInterval
	}
	return again, c.update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		h, gerr := store.Hosts.Get(tx, h.ID)
		if gerr != nil {
			return ignoreNotFound(gerr)
		}
		h.Conditions = model.SetCondition(h.Conditions, reachable)
		if err != nil {
			return store.Hosts.Put(tx, h)
		}
		return c.setFacts(tx, h, facts)
	})
}

// setFacts records a host's facts and its datastores.
func (c *Controller) setFacts(tx *store.Tx, h *model.Host, facts model.HostFacts) error {
	// Free space changes all the time. Rounded down to a gigabyte it never promises
	// too much, and does not make a new revision each minute.
	for i := range facts.Datastores {
		facts.Datastores[i].Free = facts.Datastores[i].Free >> 30 << 30
	}
	h.Facts, h.EsxVersion = facts, facts.Hypervisor
	known, _, err := store.Datastores.List(tx, store.Query{Index: "hostId", Value: h.ID})
	if err != nil {
		return err
	}
	for _, d := range facts.Datastores {
		i := slices.IndexFunc(known, func(k *model.Datastore) bool { return k.Name == d.Name })
		ds := &model.Datastore{HostID: h.ID, Type: d.Type, Capacity: d.Capacity}
		if i >= 0 {
			ds.Meta = known[i].Meta
		} else {
			ds.Meta = c.meta("datastore", d.Name)
		}
		if err := store.Datastores.Put(tx, ds); err != nil {
			return err
		}
	}
	return store.Hosts.Put(tx, h)
}

// startStep marks a step of an object's task as begun.
func (c *leader) startStep(ctx context.Context, entityID, operation, step, progress string) error {
	return c.update(ctx, func(tx *store.Tx) error {
		return c.stepOf(tx, entityID, operation, func(t *model.Task) {
			setStep(t, step, model.TaskStarted, progress, nil, c.now())
		})
	})
}
