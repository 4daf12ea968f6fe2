package cli

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// meter counts the bytes of an upload as they are read, and shows them.
type meter struct {
	io.Reader
	label string
	total int64 // bytes
	begin time.Time
	read  atomic.Int64
}

// newMeter shows how far the reading of r is until done is called. Where
// nothing can be drawn in place, it writes one line at the end.
func (s *session) newMeter(r io.Reader, label string, total int64) (m *meter, done func()) {
	m = &meter{Reader: r, label: label, total: total, begin: time.Now()}
	if s.format != formatTable {
		return m, func() {}
	}
	size, ok := terminal(s.env.Stderr)
	if !ok {
		return m, func() { fmt.Fprintln(s.env.Stderr, m.text(time.Now())) }
	}
	p := newPainter(s.env.Stderr, size, func(now time.Time, _ int) []string { return []string{m.text(now)} })
	return m, p.close
}

// Read implements io.Reader.
func (m *meter) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	m.read.Add(int64(n))
	return n, err
}

// text says how much was read, how fast and for how long.
func (m *meter) text(now time.Time) string {
	read, elapsed := m.read.Load(), now.Sub(m.begin)
	percent := int64(100)
	if m.total > 0 {
		percent = read * 100 / m.total
	}
	rate := int64(float64(read) / max(elapsed.Seconds(), 1e-3))
	return fmt.Sprintf("%s: %s of %s (%d%%), %s/s, %s", m.label,
		bytesText(read), bytesText(m.total), percent, bytesText(rate), durationText(elapsed))
}
