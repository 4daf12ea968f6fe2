package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

var images = resource[model.Image]{
	noun: "image", short: "Images: what VMs and nodes start from",
	head: func(i model.Image) ref { return ref{i.ID, i.Name} },
	columns: []column[model.Image]{
		{"ID", func(i model.Image) string { return i.ID }},
		{"Name", func(i model.Image) string { return i.Name }},
		{"State", func(i model.Image) string { return string(i.State) }},
		{"Size(Byte)", func(i model.Image) string { return strconv.FormatInt(i.Size, 10) }},
		{"Replication_type", func(i model.Image) string { return i.ReplicationType }},
		{"ReplicationProgress", func(i model.Image) string { return i.ReplicationProgress }},
		{"SeedingProgress", func(i model.Image) string { return i.SeedingProgress }},
	},
	details: []column[model.Image]{
		{"ID", func(i model.Image) string { return i.ID }},
		{"Name", func(i model.Image) string { return i.Name }},
		{"State", func(i model.Image) string { return string(i.State) }},
		{"Size(Byte)", func(i model.Image) string { return strconv.FormatInt(i.Size, 10) }},
		{"Replication_type", func(i model.Image) string { return i.ReplicationType }},
		{"ReplicationProgress", func(i model.Image) string { return i.ReplicationProgress }},
		{"SeedingProgress", func(i model.Image) string { return i.SeedingProgress }},
		{"SHA-256", func(i model.Image) string { return i.SHA256 }},
		{"Node image", func(i model.Image) string {
			if i.Node == nil {
				return ""
			}
			return fmt.Sprintf("%s %s, %s", i.Node.ClusterType, i.Node.Version, i.Node.Architecture)
		}},
	},
	list:   all((*client.Client).Images),
	get:    byID((*client.Client).Image),
	remove: byID((*client.Client).DeleteImage),
}

func imageCommand(s *session) *cobra.Command {
	return images.command(s, imageCreate(s), imageBuild(s))
}

func imageCreate(s *session) *cobra.Command {
	var name, replication string
	c := &cobra.Command{
		Use: "create FILE", Short: "Upload an image", Args: args(1, 1),
		RunE: s.run(func(ctx context.Context, api *client.Client, args []string) error {
			err := s.ask(
				question{flag: "name", prompt: "Image name", value: &name, fallback: filepath.Base(args[0])},
				question{flag: "image-replication", prompt: "Image replication type (EAGER or ON_DEMAND)", value: &replication, fallback: "EAGER"})
			if err != nil {
				return err
			}
			task, err := s.upload(ctx, api, args[0], name, replication)
			if err != nil {
				return err
			}
			return images.created(ctx, s, task, name)
		}),
	}
	c.Flags().StringVarP(&name, "name", "n", "", "image's `NAME`; that of the file when left out")
	c.Flags().StringVarP(&replication, "image-replication", "i", "", "`TYPE` of replication: EAGER (to all hosts at once) or ON_DEMAND")
	must(c.RegisterFlagCompletionFunc("image-replication", cobra.FixedCompletions([]string{"EAGER", "ON_DEMAND"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// upload streams a file to the server and shows how far it is.
func (s *session) upload(ctx context.Context, api *client.Client, path, name, replication string) (*model.Task, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	m, done := s.newMeter(f, "Uploading "+filepath.Base(path), info.Size())
	defer done()
	return api.CreateImage(ctx, name, replication, m)
}
