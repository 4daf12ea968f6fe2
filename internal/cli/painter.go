package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// repaint is how often a painter draws.
const repaint = 100 * time.Millisecond

var spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

// painter keeps lines in place on a terminal, drawn anew until it is closed.
// Its goroutine is its own; close waits for it.
type painter struct {
	out    io.Writer
	size   func() (width, height int)
	render func(now time.Time, frame int) []string // called by one goroutine at a time

	drawn int // lines on the terminal
	frame int
	stop  chan struct{}
	done  sync.WaitGroup
}

// newPainter draws render's lines on out, cut to what size says, until close is called.
func newPainter(out io.Writer, size func() (int, int), render func(now time.Time, frame int) []string) *painter {
	p := &painter{out: out, size: size, render: render, stop: make(chan struct{})}
	p.done.Go(func() {
		tick := time.NewTicker(repaint)
		defer tick.Stop()
		for {
			p.draw()
			select {
			case <-tick.C:
			case <-p.stop:
				return
			}
		}
	})
	return p
}

// close stops the painter and draws a last time, so that the end is seen.
func (p *painter) close() {
	close(p.stop)
	p.done.Wait()
	p.draw()
}

// draw replaces what was drawn before. It is one write, so that the terminal
// doesn't flicker.
func (p *painter) draw() {
	lines := p.render(time.Now(), p.frame)
	p.frame++
	width, height := p.size()
	if height > 1 && len(lines) > height-1 {
		lines = lines[len(lines)-(height-1):] // the cursor cannot go up past the screen's edge
	}
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	for _, line := range lines {
		b.WriteString("\r\x1b[K" + cut(line, width) + "\n")
	}
	b.WriteString("\x1b[J") // what is left of a longer drawing
	p.drawn = len(lines)
	_, _ = io.WriteString(p.out, b.String())
}

// cut shortens a line to width characters, so that it doesn't wrap; 0 is any width.
func cut(line string, width int) string {
	runes := []rune(line)
	if width <= 0 || len(runes) <= width {
		return line
	}
	return string(runes[:width-1]) + "…"
}

// terminal returns the size of the terminal w is; ok is false if it isn't one.
func terminal(w io.Writer) (size func() (width, height int), ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return func() (int, int) {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0, 0
		}
		return width, height
	}, true
}
