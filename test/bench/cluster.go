package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

// The box is beside any other on the machine. Its subnet ends where by-hand's addresses begin.
const (
	boxBridge  = "plbench0"
	boxAddress = "100.64.44.1/24"
	boxPort    = "19543"
	handFirst  = "100.64.44.201"
	boxPool    = "default"
)

// milestones of a cluster in the making, in seconds from the request. Ours
// overlap and theirs do not, so that only when each is reached can be compared.
type milestones struct{ launched, api, joined, ready float64 }

// cluster makes clusters by hand and by Pleiad in turns.
func (b *bench) cluster(ctx context.Context) (err error) {
	dir := b.path("box")
	defer func() {
		// Whatever happened, and if it was Ctrl-C: all of it goes.
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
		defer cancel()
		_, derr := b.output(b.command(down, b.pleiad, "devbox", "down", "--dir", dir))
		err = errors.Join(err, derr)
	}()
	if _, err := b.output(b.command(ctx, b.pleiad, "devbox", "up", "--dir", dir, "--bridge", boxBridge,
		"--address", boxAddress, "--port", boxPort, "--image", b.image, "--cluster", "")); err != nil {
		return err
	}
	c, err := boxClient(dir)
	if err != nil {
		return err
	}
	defer c.Close()
	images, err := c.Images(ctx)
	if err != nil {
		return err
	}
	if len(images) != 1 {
		return fmt.Errorf("the box has %d images, want 1", len(images))
	}
	alias := "pleiad-" + images[0].ID // the driver's name for it on the host
	if err := b.firstContainer(ctx, dir, alias); err != nil {
		return err
	}
	project, err := onlyProject(ctx, c)
	if err != nil {
		return err
	}
	var hand, ours []milestones
	for i := range b.pairs {
		h, err := b.makeByHand(ctx, dir, alias)
		if err != nil {
			return err
		}
		o, err := b.makeOurs(ctx, c, project, fmt.Sprintf("bench-%d", i+1))
		if err != nil {
			return err
		}
		fmt.Fprintf(b.out, "   pair %d: by hand %.1f s, ours %.1f s (load %s)\n", i+1, h.ready, o.ready, load())
		hand, ours = append(hand, h), append(ours, o)
	}
	b.compareClusters(hand, ours)
	return nil
}

func (b *bench) compareClusters(hand, ours []milestones) {
	compare := func(what, aim string, of func(milestones) float64) {
		var h, o []float64
		for i := range hand {
			h, o = append(h, of(hand[i])), append(o, of(ours[i]))
		}
		b.table.add(row{what, seconds(median(o)), "by hand " + seconds(median(h)), ratio(median(o), median(h)), aim})
	}
	compare(fmt.Sprintf("cluster of 1+2 from request to READY, median of %d", len(ours)), "0.6", func(m milestones) float64 { return m.ready })
	compare("  its containers started (by hand: and booted) after", "", func(m milestones) float64 { return m.launched })
	compare("  its control plane answering after", "", func(m milestones) float64 { return m.api })
	compare("  its workers joined after", "", func(m milestones) float64 { return m.joined })
	tail := func(m milestones) float64 { return m.ready - m.joined }
	compare("  from there to Ready nodes and DNS on each", "", tail)
}

// boxClient is the devbox's administrator.
func boxClient(dir string) (*client.Client, error) {
	raw, err := os.ReadFile(dir + "/state.json")
	if err != nil {
		return nil, err
	}
	var state struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal(raw, &state); err != nil {
		return nil, fmt.Errorf("state of the devbox: %w", err)
	}
	fingerprint, err := os.ReadFile(dir + "/server.ready")
	if err != nil {
		return nil, err
	}
	return administrator(client.Options{Endpoints: []string{state.URL}, CAFingerprint: strings.TrimSpace(string(fingerprint))}, dir+"/server")
}

// administrator is a client with the token of a server's data directory.
func administrator(o client.Options, dataDir string) (*client.Client, error) {
	token, err := os.ReadFile(dataDir + "/admin.token")
	if err != nil {
		return nil, err
	}
	o.Token = strings.TrimSpace(string(token))
	return client.New(o)
}

func onlyProject(ctx context.Context, c *client.Client) (id string, err error) {
	tenants, err := c.Tenants(ctx)
	if err != nil || len(tenants) != 1 {
		return "", errors.Join(err, fmt.Errorf("there are %d tenants, want 1", len(tenants)))
	}
	projects, err := c.Projects(ctx, tenants[0].ID)
	if err != nil || len(projects) != 1 {
		return "", errors.Join(err, fmt.Errorf("there are %d projects, want 1", len(projects)))
	}
	return projects[0].ID, nil
}

// onBox is a command that speaks to the box's LXD daemon.
func (b *bench) onBox(ctx context.Context, dir string, name string, args ...string) *exec.Cmd {
	cmd := b.command(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LXD_DIR="+dir+"/h0/lxd")
	return cmd
}

// firstContainer compares the first container that is made of an image on a pool,
// for which LXD unpacks the image, with the next one. Clusters come after it,
// so none of them pays for that.
func (b *bench) firstContainer(ctx context.Context, dir, alias string) error {
	var took [2]float64
	for i := range took {
		name := "unpack-" + strconv.Itoa(i)
		began := time.Now()
		if _, err := b.output(b.onBox(ctx, dir, "lxc", "init", alias, name)); err != nil {
			return err
		}
		took[i] = time.Since(began).Seconds()
		if _, err := b.output(b.onBox(ctx, dir, "lxc", "delete", name)); err != nil {
			return err
		}
	}
	b.table.add(row{"first container of an image on a host's pool", seconds(took[0]), "the next one " + seconds(took[1]), ratio(took[0], took[1]), ""})
	return nil
}

func (b *bench) makeByHand(ctx context.Context, dir, alias string) (m milestones, err error) {
	out, err := b.output(b.onBox(ctx, dir, b.byHand, b.image, alias, boxPool, boxBridge, handFirst))
	if err != nil {
		return m, err
	}
	phases, err := parsePhases(out)
	if err != nil {
		return m, err
	}
	for _, p := range []string{"launch", "init", "network", "join-worker-1", "join-worker-2", "ready", "dns", "total"} {
		if _, ok := phases[p]; !ok {
			return m, fmt.Errorf("%s did not tell of phase %s, only of %v", b.byHand, p, slices.Sorted(maps.Keys(phases)))
		}
	}
	m.launched = phases["launch"]
	m.api = m.launched + phases["init"]
	m.joined = m.api + phases["network"] + phases["join-worker-1"] + phases["join-worker-2"]
	m.ready = phases["total"]
	return m, nil
}

// parsePhases reads lines "PHASE SECONDS".
func parsePhases(text string) (map[string]float64, error) {
	phases := map[string]float64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		s, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("line %q is no phase and its seconds: %w", line, err)
		}
		phases[name] = s
	}
	return phases, nil
}

func (b *bench) makeOurs(ctx context.Context, c *client.Client, project, name string) (m milestones, err error) {
	workers := 2
	began := time.Now()
	task, err := c.CreateCluster(ctx, project, model.ClusterCreateSpec{Name: name, Type: string(model.Kubernetes), WorkerCount: &workers})
	if err != nil {
		return m, err
	}
	if task, err = c.WaitTask(ctx, task.ID, nil); err != nil {
		return m, fmt.Errorf("cluster %s: %w", name, err)
	}
	m.ready = time.Since(began).Seconds()
	fmt.Fprintf(b.raw, "cluster %s: %.2f s\n", name, m.ready)
	ends := map[string]float64{}
	since := func(ms int64) float64 { return float64(ms-task.QueuedTime) / 1000 }
	for _, s := range task.Steps {
		ends[s.Operation] = since(s.EndTime)
		fmt.Fprintf(b.raw, "  %-55s %6.2f to %6.2f s  %s\n", s.Operation, since(s.StartedTime), since(s.EndTime), s.Progress)
	}
	for step, at := range map[string]*float64{
		"CREATE_VM":                               &m.launched,
		"CREATE_KUBERNETES_CLUSTER_SETUP_MASTER":  &m.api,
		"CREATE_KUBERNETES_CLUSTER_SETUP_WORKERS": &m.joined,
	} {
		var ok bool
		if *at, ok = ends[step]; !ok {
			return m, fmt.Errorf("the task has no step %s", step)
		}
	}
	if task, err = c.DeleteCluster(ctx, task.Entity.ID); err != nil {
		return m, err
	}
	if _, err = c.WaitTask(ctx, task.ID, nil); err != nil {
		return m, fmt.Errorf("delete cluster %s: %w", name, err)
	}
	return m, nil
}
