package devbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pleiad/pleiad/internal/devbox/lxdhost"
)

// setUp does with the command line what an operator and then a tenant do. What
// is there already is left as it is.
func (o *Options) setUp(ctx context.Context, st state, daemons []*lxdhost.Daemon) error {
	if err := o.login(ctx, st); err != nil {
		return err
	}
	if err := o.operator(ctx, daemons); err != nil {
		return err
	}
	if err := o.tenant(ctx); err != nil {
		return err
	}
	if o.Cluster == "" {
		return nil
	}
	return o.cluster(ctx)
}

// login sets the server and logs in there. Setting the same server again keeps
// the token; whether that is good, the server says.
func (o *Options) login(ctx context.Context, st state) error {
	sum, err := os.ReadFile(o.readyFile())
	if err != nil {
		return err
	}
	if err := o.run(ctx, "target", "set", st.URL, "--fingerprint", strings.TrimSpace(string(sum))); err != nil {
		return err
	}
	if o.quiet(ctx, io.Discard, "target", "info") == nil {
		return nil
	}
	return o.run(ctx, "target", "login", "--token-file", o.path("server", "admin.token"))
}

// operator registers hosts, the image, flavors and the subnet, and enables the cluster type.
func (o *Options) operator(ctx context.Context, daemons []*lxdhost.Daemon) error {
	hosts, err := o.list(ctx, "host", "list")
	if err != nil {
		return err
	}
	for i, d := range daemons {
		// The first host is reached by its socket, the others as remote ones are.
		address, args := "unix:"+d.Socket, []string{}
		if i > 0 {
			address = d.HTTPSAddress
		}
		if hosts.has("address", address) {
			continue
		}
		if i > 0 {
			token, err := d.TrustToken(ctx, "pleiad")
			if err != nil {
				return err
			}
			file := o.path("trust-token")
			if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
				return err
			}
			args = append(args, "--password-file", file)
		}
		if err := o.run(ctx, append([]string{"host", "create", "--address", address, "--tag", "CLOUD"}, args...)...); err != nil {
			return err
		}
	}
	image, err := o.image(ctx)
	if err != nil {
		return err
	}
	if err := o.kubectl(ctx, image); err != nil {
		return err
	}
	flavors, err := o.list(ctx, "flavor", "list")
	if err != nil {
		return err
	}
	for _, f := range [][]string{
		{"cluster-master-vm", "vm", "vm.cpu 2 COUNT, vm.memory 2 GB"},
		{"cluster-other-vm", "vm", "vm.cpu 2 COUNT, vm.memory 2 GB"},
		{"cluster-vm-disk", "ephemeral-disk", "ephemeral-disk 1 COUNT"},
	} {
		if !flavors.has("name", f[0]) {
			if err := o.run(ctx, "flavor", "create", "-n", f[0], "-k", f[1], "-c", f[2]); err != nil {
				return err
			}
		}
	}
	subnets, err := o.list(ctx, "subnet", "list")
	if err != nil {
		return err
	}
	if !subnets.has("name", "nodes") {
		gateway := o.Address.Addr().String()
		first, last, _, _ := lxdhost.Config{Address: o.Address}.Ranges()
		if err := o.run(ctx, "subnet", "create", "-n", "nodes", "--portgroups", o.Bridge,
			"--cidr", o.Address.Masked().String(), "--gateway", gateway, "--dns", gateway,
			"--range", fmt.Sprintf("%s-%s", first, last)); err != nil {
			return err
		}
	}
	return o.enable(ctx, image)
}

// image uploads the node image and returns its id. A newer build of the same
// name replaces it once nothing is made of it; until then both are there.
func (o *Options) image(ctx context.Context) (id string, err error) {
	sum, err := fileSum(o.Image)
	if err != nil {
		return "", err
	}
	find := func() (string, error) {
		images, err := o.list(ctx, "image", "list")
		if err != nil {
			return "", err
		}
		for _, img := range images {
			if img["sha256"] == sum {
				return fmt.Sprint(img["id"]), nil
			}
		}
		return "", nil
	}
	if id, err = find(); id != "" || err != nil {
		return id, err
	}
	name := strings.TrimSuffix(filepath.Base(o.Image), filepath.Ext(o.Image)) + "-" + sum[:8]
	if err := o.run(ctx, "image", "create", o.Image, "-n", name, "-i", "EAGER"); err != nil {
		return "", err
	}
	if id, err = find(); id == "" && err == nil {
		err = fmt.Errorf("the image %s was uploaded and is not in the list", name)
	}
	return id, err
}

func (o *Options) enable(ctx context.Context, imageID string) error {
	deployments, err := o.list(ctx, "deployment", "list")
	if err != nil {
		return err
	}
	for _, d := range deployments {
		configurations, _ := d["clusterConfigurations"].([]any)
		for _, c := range configurations {
			if m, ok := c.(map[string]any); ok && m["type"] == "KUBERNETES" && m["imageId"] == imageID {
				return nil
			}
		}
	}
	if err := o.run(ctx, "deployment", "enable-cluster-type", "-k", "KUBERNETES", "-i", imageID); err != nil {
		return err
	}
	return o.deleteOldImages(ctx, imageID)
}

// deleteOldImages deletes images of earlier builds, but for those a cluster is
// made of: the server refuses to delete these, and they are tried again at the next Up.
func (o *Options) deleteOldImages(ctx context.Context, imageID string) error {
	images, err := o.list(ctx, "image", "list")
	if err != nil {
		return err
	}
	for _, img := range images {
		if id := fmt.Sprint(img["id"]); id != imageID {
			if err := o.quiet(ctx, io.Discard, "-n", "image", "delete", id); err != nil {
				o.say("an older image stays: %v", err)
			}
		}
	}
	return nil
}

// tenant makes a tenant, its ticket and its project where they are missing, and
// sets them as the context in any case.
func (o *Options) tenant(ctx context.Context) error {
	const limits = "vm.memory 64 GB, vm.cpu 64 COUNT, vm 100 COUNT, ephemeral-disk.capacity 1000 GB"
	steps := []struct {
		list []string
		name string
		make []string
		set  []string // none if nil
	}{
		{[]string{"tenant", "list"}, "demo", []string{"tenant", "create", "demo"}, []string{"tenant", "set", "demo"}},
		{[]string{"resource-ticket", "list"}, "gold", []string{"resource-ticket", "create", "-n", "gold", "-l", limits}, nil},
		{[]string{"project", "list"}, "web", []string{"project", "create", "-n", "web", "-r", "gold", "-p", "50"}, []string{"project", "set", "web"}},
	}
	for _, s := range steps {
		known, err := o.list(ctx, s.list...)
		if err != nil {
			return err
		}
		if !known.has("name", s.name) {
			if err := o.run(ctx, s.make...); err != nil {
				return err
			}
		}
		if s.set != nil {
			if err := o.run(ctx, s.set...); err != nil {
				return err
			}
		}
	}
	return nil
}

// kubectl takes kubectl out of the node image, so that the user's has the
// version of the cluster and nothing is downloaded.
func (o *Options) kubectl(ctx context.Context, imageID string) error {
	have := o.path("bin", imageID)
	if _, err := os.Stat(have); err == nil {
		return nil
	}
	if err := os.RemoveAll(o.path("bin")); err != nil {
		return err
	}
	squashfs := o.path("server", "images", imageID, "lxd", "rootfs.squashfs")
	out, err := exec.CommandContext(ctx, "unsquashfs", "-n", "-d", o.path("bin"), squashfs, "usr/bin/kubectl").CombinedOutput()
	if err != nil {
		return fmt.Errorf("take kubectl out of the image: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := os.Rename(o.path("bin", "usr", "bin", "kubectl"), o.path("bin", "kubectl")); err != nil {
		return err
	}
	return os.WriteFile(have, nil, 0o600)
}

// run runs a command of ours and shows it, as somebody at the keyboard would see it.
func (o *Options) run(ctx context.Context, args ...string) error {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = a
		if strings.ContainsAny(a, " ,") {
			shown[i] = "'" + a + "'"
		}
	}
	o.say("\n$ pleiad %s", strings.Join(shown, " "))
	cmd := o.command(ctx, append([]string{"-n", "-o", "table"}, args...)) // asks nothing, and shows its progress
	cmd.Stdout, cmd.Stderr = o.Out, o.Out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("pleiad %s: %w", strings.Join(args[:2], " "), err)
	}
	return nil
}

func (o *Options) quiet(ctx context.Context, out io.Writer, args ...string) error {
	var stderr bytes.Buffer
	cmd := o.command(ctx, args)
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("pleiad %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

func (o *Options) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, o.Exe, args...)
	// The user's own servers are not ours.
	cmd.Env = append(os.Environ(), "PLEIAD_CONFIG="+configFile(o.Dir), "PLEIAD_TARGET=", "PLEIAD_FINGERPRINT=", "PLEIAD_TOKEN=")
	return cmd
}

// objects are what a list command printed.
type objects []map[string]any

func (o objects) has(field, value string) bool { return o.find(field, value) != nil }

// find returns the first object whose field has the value, nil if none does.
func (o objects) find(field, value string) map[string]any {
	for _, m := range o {
		if m[field] == value {
			return m
		}
	}
	return nil
}

func (o *Options) list(ctx context.Context, args ...string) (objects, error) {
	var out bytes.Buffer
	if err := o.quiet(ctx, &out, append(args, "-o", "json")...); err != nil {
		return nil, err
	}
	var found objects
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		return nil, fmt.Errorf("pleiad %s: %w", strings.Join(args, " "), err)
	}
	return found, nil
}

// DefaultAddress is the devbox's bridge and network unless told otherwise.
var DefaultAddress = netip.MustParsePrefix("100.64.10.1/24")
