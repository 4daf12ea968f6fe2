package cli

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pleiad/pleiad/nodeimage"
)

// imageBuild builds a node image on this machine; no server is needed.
func imageBuild(s *session) *cobra.Command {
	var options nodeimage.Options
	c := &cobra.Command{
		Use: "build [KIND]", Short: "Build a node image on this machine", Args: args(0, 1),
		Long: `Build a node image on this machine: the root file system that a cluster's nodes
start from, with everything inside. It needs root, a Debian mirror and a Go
module proxy: those of the machine's own settings (apt's sources, "go env").
What has been built before is taken from a cache.`,
		ValidArgs: []cobra.Completion{"kubernetes"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				options.Kind = args[0]
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			show, done := s.buildDisplay()
			options.Progress = show
			result, err := nodeimage.Build(ctx, options)
			done()
			if err != nil {
				return err
			}
			return printObject(s, []column[builtImage]{
				{"File", func(b builtImage) string { return b.Path }},
				{"Size", func(b builtImage) string { return bytesText(b.Size) }},
				{"Time", func(b builtImage) string { return b.took() }},
			}, builtImage{result.Path, result.Size, result.Elapsed.Seconds(), result.Unchanged})
		},
	}
	f := c.Flags()
	f.StringVar(&options.Version, "version", "", "`VERSION` to build; the recipe's default when left out")
	f.StringVarP(&options.Output, "file", "f", "", "`FILE` to write; named after kind and version when left out")
	f.StringVar(&options.Mirror, "mirror", "", "`URL` of the Debian mirror; apt's own when left out")
	f.StringVar(&options.CacheDir, "cache-dir", "", "`DIRECTORY` to keep results in")
	f.StringVar(&options.AgentPath, "agent", "", "pleiad `BINARY` to put into the image; this one when left out")
	f.BoolVar(&options.Refresh, "refresh", false, "make the Debian base anew, with today's packages")
	return c
}

// builtImage is what "image build" answers.
type builtImage struct {
	Path      string  `json:"path"`
	Size      int64   `json:"size"` // bytes
	Seconds   float64 `json:"seconds"`
	Unchanged bool    `json:"unchanged"`
}

func (b builtImage) took() string {
	text := durationText(time.Duration(b.Seconds * float64(time.Second)))
	if b.Unchanged {
		text += ", it was there already"
	}
	return text
}

// buildDisplay returns what shows a build's events, and what ends the showing.
func (s *session) buildDisplay() (show func(nodeimage.Event), done func()) {
	if s.format != formatTable {
		return nil, func() {}
	}
	size, ok := terminal(s.env.Stderr)
	if !ok {
		return func(e nodeimage.Event) {
			if e.State != nodeimage.Progress {
				fmt.Fprintln(s.env.Stderr, strings.TrimRight("  "+e.Step+" "+strings.ToLower(string(e.State))+buildText(e), " "))
			}
		}, func() {}
	}
	v := &buildView{started: map[string]time.Time{}}
	p := newPainter(s.env.Stderr, size, v.render)
	return v.show, p.close
}

// buildText says what an event tells of its step.
func buildText(e nodeimage.Event) string {
	var text string
	switch e.State {
	case nodeimage.Done:
		text = " in " + durationText(e.Elapsed)
	case nodeimage.Cached:
		text = ", made in " + durationText(e.Elapsed) + " before"
	case nodeimage.Failed:
		text = " after " + durationText(e.Elapsed)
	}
	if e.Size > 0 {
		text += ", " + bytesText(e.Size)
	}
	if e.Detail != "" {
		text += ": " + oneLine(e.Detail)
	}
	return text
}

// buildView is a build as it is drawn in place.
type buildView struct {
	mu      sync.Mutex
	last    []nodeimage.Event // of each step, in order of their starts
	started map[string]time.Time
}

func (v *buildView) show(e nodeimage.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range v.last {
		if v.last[i].Step == e.Step {
			v.last[i] = e
			return
		}
	}
	v.last = append(v.last, e)
	v.started[e.Step] = time.Now().Add(-e.Elapsed)
}

func (v *buildView) render(now time.Time, frame int) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	width := 0
	for _, e := range v.last {
		width = max(width, len(e.Step))
	}
	lines := make([]string, 0, len(v.last))
	for _, e := range v.last {
		mark, elapsed, detail := "✔", durationText(e.Elapsed), ""
		switch e.State {
		case nodeimage.Started, nodeimage.Progress:
			mark, elapsed = string(spinner[frame%len(spinner)]), durationText(now.Sub(v.started[e.Step]))
			detail = oneLine(e.Detail)
		case nodeimage.Cached:
			elapsed, detail = "cached", bytesText(e.Size)
		case nodeimage.Done:
			if e.Size > 0 {
				detail = bytesText(e.Size)
			}
		case nodeimage.Failed:
			mark = "✘"
		}
		lines = append(lines, strings.TrimRight(fmt.Sprintf(" %s %-*s  %6s  %s", mark, width, e.Step, elapsed, detail), " "))
	}
	return lines
}
