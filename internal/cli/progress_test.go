package cli

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/nodeimage"
)

// TestTaskView draws a task at each of its states.
func TestTaskView(t *testing.T) {
	events := createTask("fail")
	v := &taskView{label: "fail", task: events[0], since: map[int]time.Time{}}
	now := time.Unix(1000, 0)
	check := func(frame int, want ...string) {
		t.Helper()
		if got := v.render(now, frame); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	check(0, "CREATE_CLUSTER fail",
		" ✔ RESERVE_RESOURCE                           0.0s",
		" · CREATE_KUBERNETES_CLUSTER_SETUP_WORKERS")
	v.show(events[1])
	check(1, "CREATE_CLUSTER fail",
		" ✔ RESERVE_RESOURCE                           0.0s",
		" ⠙ CREATE_KUBERNETES_CLUSTER_SETUP_WORKERS    0.0s  1 of 2 nodes joined")
	now = now.Add(3100 * time.Millisecond)
	check(2, "CREATE_CLUSTER fail",
		" ✔ RESERVE_RESOURCE                           0.0s",
		" ⠹ CREATE_KUBERNETES_CLUSTER_SETUP_WORKERS    3.1s  1 of 2 nodes joined")
	v.show(events[2])
	check(3, "CREATE_CLUSTER fail",
		" ✔ RESERVE_RESOURCE                           0.0s",
		" ✘ CREATE_KUBERNETES_CLUSTER_SETUP_WORKERS   11.2s")
}

func TestBuildView(t *testing.T) {
	v := &buildView{started: map[string]time.Time{}}
	v.show(nodeimage.Event{Step: "base", State: nodeimage.Started})
	v.show(nodeimage.Event{Step: "base", State: nodeimage.Cached, Elapsed: time.Minute, Size: 1 << 20})
	v.show(nodeimage.Event{Step: "node", State: nodeimage.Started})
	v.show(nodeimage.Event{Step: "node", State: nodeimage.Done, Elapsed: 2500 * time.Millisecond, Size: 3 << 30})
	got := strings.Join(v.render(time.Now(), 0), "\n")
	if want := " ✔ base  cached  1.0 MiB\n ✔ node    2.5s  3.0 GiB"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// screen is a terminal that understands what a painter writes.
type screen struct {
	mu    sync.Mutex
	lines []string
	row   int
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := string(b)
	for text != "" {
		var up int
		switch {
		case strings.HasPrefix(text, "\r\x1b[K"):
			s.put("")
			text = text[len("\r\x1b[K"):]
		case strings.HasPrefix(text, "\x1b[J"):
			s.lines = s.lines[:min(s.row, len(s.lines))]
			text = text[len("\x1b[J"):]
		case strings.HasPrefix(text, "\x1b["):
			if _, err := fmt.Sscanf(text, "\x1b[%dA", &up); err != nil {
				return 0, err
			}
			s.row -= up
			text = text[strings.Index(text, "A")+1:]
		case text[0] == '\n':
			s.row++
			text = text[1:]
		default:
			end := strings.IndexAny(text, "\n\r\x1b")
			if end < 0 {
				end = len(text)
			}
			s.put(text[:end])
			text = text[end:]
		}
	}
	return len(b), nil
}

func (s *screen) put(text string) {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, "")
	}
	s.lines[s.row] = text
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

// TestPainter checks that what is drawn replaces what was, cut to the screen.
func TestPainter(t *testing.T) {
	var mu sync.Mutex
	lines := []string{"one", "two", "three"}
	out := &screen{}
	drawn := make(chan struct{}, 1000)
	p := newPainter(out, func() (int, int) { return 6, 4 }, func(time.Time, int) []string {
		mu.Lock()
		defer mu.Unlock()
		drawn <- struct{}{}
		return lines
	})
	<-drawn
	<-drawn
	mu.Lock()
	lines = []string{"0", "1", "a long line", "longer"}
	mu.Unlock()
	for len(drawn) > 0 {
		<-drawn
	}
	<-drawn
	<-drawn
	mu.Lock()
	lines = lines[1:3]
	mu.Unlock()
	p.close()
	if got, want := out.text(), "1\na lon…"; got != want {
		t.Errorf("the screen shows %q, want %q", got, want)
	}
}

// TestInterruptedFollowing checks that the user is told that the task goes on.
func TestInterruptedFollowing(t *testing.T) {
	server := newTestServer(t)
	c := loggedIn(t, server)
	s := newSession(Env{Stdin: strings.NewReader(""), Stdout: &strings.Builder{}, Stderr: &strings.Builder{}, Getenv: func(name string) string { return c.env[name] }})
	defer s.close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	task := createTask("ready")[0]
	_, err := s.follow(ctx, task, "ready")
	if err == nil || !strings.Contains(err.Error(), "pleiad task monitor "+task.ID) {
		t.Errorf("got %v", err)
	}
}

func TestTexts(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{bytesText(0), "0 B"},
		{bytesText(1023), "1023 B"},
		{bytesText(1536), "1.5 KiB"},
		{bytesText(3 << 40), "3.0 TiB"},
		{durationText(-time.Second), "0.0s"},
		{durationText(1500 * time.Millisecond), "1.5s"},
		{durationText(59990 * time.Millisecond), "1m00s"},
		{durationText(59*time.Minute + 59900*time.Millisecond), "1h00m"},
		{durationText(192 * time.Second), "3m12s"},
		{durationText(62 * time.Minute), "1h02m"},
		{oneLine("a\n\x1b[2Jb\tc"), "a [2Jb c"},
		{cut("äöü", 2), "ä…"},
		{usageText([]model.QuotaLineItem{{Key: "vm", Value: 2, Unit: "COUNT"}}, nil), "vm: 0 COUNT of 2 COUNT"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
