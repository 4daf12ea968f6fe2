package node

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pleiad/pleiad/internal/plan"
)

const (
	logTimeout = 10 * time.Second // for one journal
	logLines   = 60               // of each journal
	logFiles   = 4                // of each pattern, the last by name
)

// logs is what explains a step's failure: what its program printed, the
// journals of its units, the ends of its files. Together they keep to
// plan.MaxLogTail, each with an equal share.
func (x *executor) logs(ctx context.Context, s plan.Step, printed string) string {
	type section struct{ name, text string }
	var sections []section
	add := func(name, text string) {
		if text = strings.TrimSpace(text); text != "" {
			sections = append(sections, section{name, text})
		}
	}
	add("output", printed)
	for _, unit := range s.LogUnits {
		out, err := x.run(ctx, logTimeout, Cmd{Argv: []string{
			"journalctl", "--no-pager", "--quiet", "--boot", "--unit", unit, "--lines", strconv.Itoa(logLines)}})
		if err != nil {
			out.Tail = "no journal: " + err.Error()
		}
		add("journal of "+unit, out.Tail)
	}
	for _, pattern := range s.LogFiles {
		paths, err := filepath.Glob(x.path(pattern))
		if err != nil {
			add(pattern, err.Error())
			continue
		}
		for _, p := range paths[max(0, len(paths)-logFiles):] {
			text, err := fileTail(p, plan.MaxLogTail)
			if err != nil {
				text = err.Error()
			}
			add(strings.TrimPrefix(p, x.root), text)
		}
	}
	if len(sections) == 0 {
		return ""
	}
	share := plan.MaxLogTail / len(sections)
	var b strings.Builder
	for _, sec := range sections {
		title := "==> " + sec.name + " <==\n"
		if room := share - len(title) - 1; room > 0 {
			b.WriteString(title + lastBytes(sec.text, room) + "\n")
		}
	}
	return b.String()
}

// fileTail reads the last bytes of a regular file.
func fileTail(path string, limit int64) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not block
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return "", err
	}
	r := io.NewSectionReader(f, max(0, info.Size()-limit), limit)
	text, err := io.ReadAll(r)
	return clean(text, len(text)), err
}
