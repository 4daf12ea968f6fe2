package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
	"github.com/pleiad/pleiad/nodeimage/archive"
)

// Steps of the task that makes an image.
const (
	stepUpload    = "UPLOAD_IMAGE"
	stepReplicate = "REPLICATE_IMAGE"
)

const (
	// copiesAtOnce is how many hosts an image is copied to at the same time: more
	// would only share this server's network.
	copiesAtOnce = 4
	// copyTimeout bounds the copy to one host.
	copyTimeout = 10 * time.Minute
)

// CreateImage stores an image read from body, then has it replicated. Nothing
// is recorded before the upload is whole and checked.
func (c *Controller) CreateImage(ctx context.Context, name, replication string, body io.Reader) (*model.Task, error) {
	if err := model.ValidateImageName(name); err != nil {
		return nil, err
	}
	if replication != "EAGER" && replication != "ON_DEMAND" {
		return nil, model.Errorf(model.CodeInvalidEntity, "ImageReplication must be EAGER or ON_DEMAND (was %q)", clip(replication))
	}
	img := &model.Image{
		Meta: c.meta("image", name), State: model.StateCreating, ReplicationType: replication,
		Settings: []model.ImageSetting{}, Hosts: map[string]model.ImageCopy{},
	}
	task := c.newTask("CREATE_IMAGE", model.Entity{ID: img.ID, Kind: "image"}, stepUpload, stepReplicate)
	setStep(task, stepUpload, model.TaskStarted, "", nil, c.now())
	f, err := c.Images.Save(ctx, img.ID, body)
	if err != nil {
		return nil, err
	}
	m := f.Manifest
	img.Size, img.SHA256 = f.Size, f.SHA256
	img.Node = &model.NodeImage{
		ClusterType: m.Kind, Version: m.Version, Architecture: kernelArchitecture(m.Architecture),
		Components: m.Components, ContainerImages: m.Images,
	}
	for _, p := range m.Payloads {
		img.Formats = append(img.Formats, string(p.Format))
	}
	setStep(task, stepUpload, model.TaskCompleted, fmt.Sprintf("%d MB", f.Size>>20), nil, c.now())
	err = c.update(ctx, func(tx *store.Tx) error {
		return errors.Join(store.Images.Put(tx, img), store.Tasks.Put(tx, task))
	})
	if err != nil && !errors.Is(err, store.ErrUnknownOutcome) {
		return nil, errors.Join(err, c.Images.Delete(img.ID))
	}
	return task, err
}

// kernelArchitecture turns Go's and Debian's name of an architecture into the
// kernel's, by which hypervisors call it.
func kernelArchitecture(name string) string {
	switch name {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return name
}

// DeleteImage marks an image for deletion; it goes once no cluster uses it and
// the hosts have removed their copies.
func (c *Controller) DeleteImage(ctx context.Context, id string) (*model.Task, error) {
	task := c.newTask("DELETE_IMAGE", model.Entity{ID: id, Kind: "image"}, "DELETE_IMAGE")
	return task, c.update(ctx, func(tx *store.Tx) error {
		img, err := get(tx, store.Images, id, model.CodeImageNotFound)
		if err != nil {
			return err
		}
		if img.State == model.StatePendingDelete {
			return model.Errorf(model.CodeInvalidImageState, "image %s is being deleted already", img.Name).With("id", id)
		}
		dep, err := store.Deployments.Get(tx, DeploymentID)
		if err != nil {
			return err
		}
		for _, conf := range dep.ClusterConfigurations {
			if conf.ImageID == id {
				return model.Errorf(model.CodeInvalidImageState, "cluster type %s is enabled with image %s", conf.Type, img.Name).
					With("id", id).Do("disable the cluster type first")
			}
		}
		n, err := store.Clusters.Count(tx, store.Query{Index: "image", Value: id})
		if err != nil {
			return err
		}
		if n > 0 {
			return notEmpty("image", id, fmt.Sprintf("%d clusters made of it", n))
		}
		img.State = model.StatePendingDelete
		// Its replication, if that is under way, ends here.
		err = c.stepOf(tx, id, "CREATE_IMAGE", func(t *model.Task) {
			fail(t, stepReplicate, model.Errorf(model.CodeConcurrentTask, "the image is being deleted").With("task", task.ID), c.now())
		})
		return errors.Join(err, store.Images.Put(tx, img), store.Tasks.Put(tx, task))
	})
}

// reconcileImage replicates an image to the hosts, or removes it.
func (c *leader) reconcileImage(ctx context.Context, id string) error {
	img, err := store.Images.Get(c.Store, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if img.State == model.StatePendingDelete {
		return c.removeImage(ctx, img)
	}
	hosts, _, err := store.Hosts.List(c.Store, store.Query{})
	if err != nil {
		return err
	}
	var lacking []*model.Host
	have, want := 0, 0
	for _, h := range hosts {
		switch {
		case h.State != model.HostReady:
			continue
		case hasCopy(img, h.ID):
			have++
		case img.ReplicationType != "EAGER":
			continue
		case answers(h): // another's return wakes the image
			lacking = append(lacking, h)
		}
		want++
	}
	have, failed := c.copyToAll(ctx, id, lacking, have, want)
	if ctx.Err() != nil {
		return ctx.Err() // the server is stopping; the next one goes on
	}
	return errors.Join(failed, c.imageProgress(ctx, id, have, want, failed))
}

// copyToAll copies an image to hosts, a few at once, and shows how far it is. It
// tries each once; it returns how many have the image then, and why one has not.
func (c *leader) copyToAll(ctx context.Context, id string, lacking []*model.Host, have, want int) (int, error) {
	if len(lacking) == 0 {
		return have, nil
	}
	var mu sync.Mutex // held while telling, too: progress goes one way
	tell := func(n int) error {
		mu.Lock()
		defer mu.Unlock()
		have += n
		return c.startStep(ctx, id, "CREATE_IMAGE", stepReplicate, onHosts(have, want))
	}
	if err := tell(0); err != nil {
		return have, err
	}
	var copies errgroup.Group
	copies.SetLimit(copiesAtOnce)
	for _, h := range lacking {
		copies.Go(func() error {
			err := c.copyImage(ctx, id, h)
			if errors.Is(err, model.ErrorOf(model.CodeHostUnreachable)) {
				c.queue.add(key{nounHost, h.ID}) // it is to be known to all who want something of it
			}
			if err != nil {
				return err
			}
			return tell(1)
		})
	}
	err := copies.Wait()
	return have, err
}

func onHosts(have, want int) string { return fmt.Sprintf("on %d of %d hosts", have, want) }

// imageProgress records how far the replication is. An image is READY once it is
// stored: hosts that lack it get it when a VM needs it there. So its task ends
// once each host that answers was tried; the others follow without it.
func (c *leader) imageProgress(ctx context.Context, id string, have, want int, failed error) error {
	return c.update(ctx, func(tx *store.Tx) error {
		img, err := store.Images.Get(tx, id)
		if err != nil || img.State == model.StatePendingDelete {
			return ignoreNotFound(err)
		}
		percent := "100%"
		if want > 0 {
			percent = fmt.Sprintf("%d%%", 100*have/want)
		}
		img.SeedingProgress, img.ReplicationProgress = percent, percent
		img.State = model.StateReady
		if err := store.Images.Put(tx, img); err != nil {
			return err
		}
		return c.stepOf(tx, id, "CREATE_IMAGE", func(t *model.Task) {
			progress := onHosts(have, want)
			if failed != nil {
				progress += ": " + model.AsError(failed).Message
			}
			setStep(t, stepReplicate, model.TaskCompleted, progress, nil, c.now())
			finish(t, c.now())
		})
	})
}

// copyImage makes sure that a host has an image, and records that it has.
func (c *leader) copyImage(ctx context.Context, imageID string, h *model.Host) error {
	img, err := store.Images.Get(c.Store, imageID)
	if err != nil {
		return err
	}
	if hasCopy(img, h.ID) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	d, err := c.reach(ctx, h)
	if err != nil {
		return err
	}
	err = d.EnsureImage(ctx, hypervisor.Image{ID: img.ID, Name: img.Name, SHA256: img.SHA256}, func() (hypervisor.Payload, error) {
		return c.payload(img)
	})
	if err != nil {
		return err
	}
	return c.update(ctx, func(tx *store.Tx) error {
		if _, err := store.Hosts.Get(tx, h.ID); err != nil {
			return ignoreNotFound(err) // it was deleted meanwhile, and its copies with it
		}
		img, err := store.Images.Get(tx, imageID)
		if err != nil {
			return err
		}
		if img.Hosts == nil {
			img.Hosts = map[string]model.ImageCopy{}
		}
		img.Hosts[h.ID] = model.ImageCopy{State: model.StateReady}
		return store.Images.Put(tx, img)
	})
}

// payload opens all parts of an image; a driver takes those it knows.
func (c *Controller) payload(img *model.Image) (hypervisor.Payload, error) {
	p := hypervisor.Payload{Parts: map[string]hypervisor.Part{}}
	var closers []io.Closer
	p.Close = func() error {
		var errs []error
		for _, f := range closers {
			errs = append(errs, f.Close())
		}
		return errors.Join(errs...)
	}
	for _, format := range img.Formats {
		f, err := c.Images.OpenPayload(img.ID, archive.Format(format))
		if err != nil {
			return p, errors.Join(err, p.Close())
		}
		closers = append(closers, f)
		st, err := f.Stat()
		if err != nil {
			return p, errors.Join(err, p.Close())
		}
		p.Parts[format] = hypervisor.Part{Reader: f, Size: st.Size()}
	}
	return p, nil
}

func (c *leader) removeImage(ctx context.Context, img *model.Image) error {
	for hostID := range img.Hosts {
		h, err := store.Hosts.Get(c.Store, hostID)
		if errors.Is(err, store.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		d, err := c.reach(ctx, h)
		if err != nil {
			return err
		}
		if err := d.DeleteImage(ctx, img.ID); err != nil {
			return err
		}
	}
	if err := c.Images.Delete(img.ID); err != nil {
		return err
	}
	return c.update(ctx, func(tx *store.Tx) error {
		if err := store.Images.Delete(tx, img.ID); err != nil {
			return ignoreNotFound(err)
		}
		return c.stepOf(tx, img.ID, "DELETE_IMAGE", func(t *model.Task) {
			setStep(t, "DELETE_IMAGE", model.TaskCompleted, "", nil, c.now())
			finish(t, c.now())
		})
	})
}

func ignoreNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// stepOf changes the unfinished task of an operation on an object, if there is one.
func (c *Controller) stepOf(tx *store.Tx, entityID, operation string, change func(*model.Task)) error {
	tasks, _, err := store.Tasks.List(tx, store.Query{Index: "open", Value: entityID})
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if t.Operation == operation {
			change(t)
			return store.Tasks.Put(tx, t)
		}
	}
	return nil
}
