package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pleiad/pleiad/internal/kind"
	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
)

// DeploymentID is the id of the one deployment.
const DeploymentID = "default"

// Steps of a cluster's tasks besides those of its kind.
const (
	opCreateCluster = "CREATE_CLUSTER"
	opResizeCluster = "RESIZE_CLUSTER"
	opDeleteCluster = "DELETE_CLUSTER"
	stepReserve     = "RESERVE_RESOURCE"
	stepCreateVMs   = "CREATE_VM"
	stepDeleteVMs   = "DELETE_CLUSTER_DELETE_VMS"
	stepForget      = "DELETE_CLUSTER_DOCUMENT"
)

// EnableClusterType lets tenants create clusters of a type, made of an image.
func (c *Controller) EnableClusterType(ctx context.Context, spec model.ClusterConfigurationSpec) (*model.Task, error) {
	k, err := c.kindNamed(spec.Type)
	if err != nil {
		return nil, err
	}
	task := c.completedTask("CONFIGURE_CLUSTER", model.Entity{ID: DeploymentID, Kind: "deployment"})
	return task, c.update(ctx, func(tx *store.Tx) error {
		img, err := get(tx, store.Images, spec.ImageID, model.CodeImageNotFound)
		if err != nil {
			return err
		}
		if err := checkNodeImage(img, k.Type()); err != nil {
			return err
		}
		dep, err := get(tx, store.Deployments, DeploymentID, model.CodeDeploymentNotFound)
		if err != nil {
			return err
		}
		for i, conf := range dep.ClusterConfigurations {
			if conf.Type == k.Type() && conf.ImageID == img.ID {
				return model.Errorf(model.CodeClusterTypeAlreadyEnabled, "cluster type %s is enabled with this image already", k.Type()).
					With("type", string(k.Type()))
			} else if conf.Type == k.Type() {
				dep.ClusterConfigurations[i].ImageID = img.ID // new clusters are made of the new image
				return errors.Join(store.Deployments.Put(tx, dep), store.Tasks.Put(tx, task))
			}
		}
		dep.ClusterConfigurations = append(dep.ClusterConfigurations, model.ClusterConfiguration{
			Meta: c.meta("clusterConfig", ""), Type: k.Type(), ImageID: img.ID,
		})
		return errors.Join(store.Deployments.Put(tx, dep), store.Tasks.Put(tx, task))
	})
}

// DisableClusterType refuses new clusters of a type; those there are stay.
func (c *Controller) DisableClusterType(ctx context.Context, spec model.ClusterConfigurationSpec) (*model.Task, error) {
	k, err := c.kindNamed(spec.Type)
	if err != nil {
		return nil, err
	}
	task := c.completedTask("DELETE_CLUSTER_CONFIGURATION", model.Entity{ID: DeploymentID, Kind: "deployment"})
	return task, c.update(ctx, func(tx *store.Tx) error {
		dep, err := get(tx, store.Deployments, DeploymentID, model.CodeDeploymentNotFound)
		if err != nil {
			return err
		}
		kept := []model.ClusterConfiguration{}
		for _, conf := range dep.ClusterConfigurations {
			if conf.Type != k.Type() {
				kept = append(kept, conf)
			}
		}
		if len(kept) == len(dep.ClusterConfigurations) {
			return notConfigured(k.Type())
		}
		dep.ClusterConfigurations = kept
		return errors.Join(store.Deployments.Put(tx, dep), store.Tasks.Put(tx, task))
	})
}

func notConfigured(t model.ClusterType) error {
	return model.Errorf(model.CodeClusterTypeNotConfigured, "cluster type %s is not enabled", t).
		With("type", string(t)).Do("an operator enables it with 'deployment enable-cluster-type'")
}

func (c *Controller) kindNamed(name string) (kind.Kind, error) {
	k := c.Kinds[model.ClusterType(strings.ToUpper(name))]
	if k == nil {
		var known []string
		for t := range c.Kinds {
			known = append(known, string(t))
		}
		return nil, model.Errorf(model.CodeInvalidEntity, "type must be one of %s (was %q)", strings.Join(known, ", "), clip(name))
	}
	return k, nil
}

func checkNodeImage(img *model.Image, t model.ClusterType) error {
	switch {
	case img.State == model.StatePendingDelete:
		return model.Errorf(model.CodeInvalidImageState, "image %s is being deleted", img.Name).With("id", img.ID)
	case img.Node == nil || !strings.EqualFold(img.Node.ClusterType, string(t)):
		return model.Errorf(model.CodeInvalidImageState, "image %s is not a node image for clusters of type %s", img.Name, t).
			With("id", img.ID).Do("build one with 'pleiad image build'")
	}
	return nil
}

// CreateCluster checks the whole cluster against quota, capacity, addresses and
// limits, and reserves all of it, in one transaction, before any VM is made.
func (c *Controller) CreateCluster(ctx context.Context, projectID string, spec model.ClusterCreateSpec) (*model.Task, error) {
	if err := model.ValidateName("name", spec.Name); err != nil {
		return nil, err
	}
	k, err := c.kindNamed(spec.Type)
	if err != nil {
		return nil, err
	}
	d := &draft{c: c, kind: k, projectID: projectID}
	if err := d.design(spec); err != nil {
		return nil, err
	}
	cl := d.cluster
	task := c.newTask(opCreateCluster, model.Entity{ID: cl.ID, Kind: "cluster"},
		append([]string{stepReserve, stepCreateVMs}, k.Steps(cl)...)...)
	task.ProjectID, task.TenantID = projectID, d.tenantID
	setStep(task, stepReserve, model.TaskCompleted, d.cost.String(), nil, c.now())
	cl.TaskID = task.ID
	err = c.place(ctx, d.request(), func(places placed) error {
		return c.updateIn(ctx, ledger, func(tx *store.Tx) error {
			return errors.Join(d.reserve(tx, places, k.Addresses(cl)...), store.Clusters.Put(tx, cl), store.Tasks.Put(tx, task))
		})
	})
	if err != nil {
		return nil, d.explain(err)
	}
	return task, nil
}

// addressProperty is the extended property in which an address a kind asked for is kept.
func addressProperty(name string) string { return name + "_ip" }

// DeleteCluster has a cluster removed, whatever state it is in.
func (c *Controller) DeleteCluster(ctx context.Context, id string) (*model.Task, error) {
	task := c.newTask(opDeleteCluster, model.Entity{ID: id, Kind: "cluster"}, stepDeleteVMs, stepForget)
	return task, c.update(ctx, func(tx *store.Tx) error {
		tx.Frees()
		cl, err := get(tx, store.Clusters, id, model.CodeClusterNotFound)
		if err != nil {
			return err
		}
		if cl.State == model.ClusterPendingDelete {
			return model.Errorf(model.CodeStateError, "cluster %s is being deleted already", cl.Name).
				With("id", id).With("kind", "cluster").With("operation", opDeleteCluster).With("state", string(cl.State)).
				Do("follow task %s", cl.TaskID)
		}
		p, err := get(tx, store.Projects, cl.ProjectID, model.CodeProjectNotFound)
		if err != nil {
			return err
		}
		task.ProjectID, task.TenantID = p.ID, p.TenantID
		// What was being done to the cluster ends here.
		for _, op := range []string{opCreateCluster, opResizeCluster} {
			err = c.stepOf(tx, id, op, func(t *model.Task) {
				fail(t, currentStep(t), model.Errorf(model.CodeConcurrentTask, "the cluster is being deleted").With("task", task.ID), c.now())
			})
			if err != nil {
				return err
			}
		}
		cl.State, cl.TaskID = model.ClusterPendingDelete, task.ID
		return errors.Join(store.Clusters.Put(tx, cl), store.Tasks.Put(tx, task))
	})
}

// currentStep is the first step that is not done.
func currentStep(t *model.Task) string {
	for _, s := range t.Steps {
		if s.State != model.TaskCompleted {
			return s.Operation
		}
	}
	return ""
}

// Access returns a file with which a user reaches the cluster.
func (c *Controller) Access(_ context.Context, clusterID, file string) ([]byte, error) {
	cl, err := get(c.Store, store.Clusters, clusterID, model.CodeClusterNotFound)
	if err != nil {
		return nil, err
	}
	view, err := c.view(cl)
	if err != nil {
		return nil, err
	}
	files, err := c.Kinds[cl.Type].Access(view)
	if err != nil {
		return nil, err
	}
	b, ok := files[file]
	if !ok {
		return nil, model.Errorf(model.CodeNotFound, "a cluster of type %s has no %s", cl.Type, fmt.Sprintf("%q", clip(file)))
	}
	return b, nil
}
