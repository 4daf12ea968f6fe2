package cli

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/pki"
)

var update = flag.Bool("update", false, "write testdata anew from what the commands answer")

// TestScripts runs the sessions in testdata. A line "$ " is a command line, the
// lines "< " after it are what the user answers, and then come standard output,
// standard error with "! " before each line, and the exit code if it is not 0.
// Lines with "#" before the first command say what the session is about; one of
// "# context: none" runs it on a console that has no target.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.session")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no sessions: %v", err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".session"), func(t *testing.T) {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			server := newTestServer(t)
			c := loggedIn(t, server)
			if strings.Contains(string(content), "# context: none\n") {
				c = newConsole(t)
			}
			writeFile(t, filepath.Join(c.home, "image.tar"), strings.Repeat("x", 4096))
			writeFile(t, filepath.Join(c.home, "token"), testToken+"\n")
			places := strings.NewReplacer("$HEX", server.fingerprint, "$URL", server.url, "$CA", pki.FormatFingerprint(server.fingerprint), "$HOME", c.home)
			got := play(c, string(content), places)
			got = strings.NewReplacer(server.fingerprint, "$HEX", server.url, "$URL", pki.FormatFingerprint(server.fingerprint), "$CA", c.home, "$HOME").Replace(got)
			got = rates.ReplaceAllString(got, "(100%), RATE, TIME")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(content) {
				t.Errorf("run with -update and see what differs:\n%s", firstDifference(got, string(content)))
			}
		})
	}
}

// rates are what an upload says that no two runs agree on.
var rates = regexp.MustCompile(`\(100%\), [0-9.]+ [KMGT]?i?B/s, [0-9.]+s`)

// play runs a session's commands and returns the session as it went.
func play(c *console, script string, places *strings.Replacer) string {
	var got strings.Builder
	lines := strings.Split(strings.TrimSuffix(script, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		if strings.HasPrefix(lines[i], "#") || lines[i] == "" && (i == 0 || strings.HasPrefix(lines[i-1], "#")) {
			fmt.Fprintln(&got, lines[i])
			continue
		}
		command, isCommand := strings.CutPrefix(lines[i], "$ pleiad ")
		if !isCommand {
			continue // what was answered when the session was written
		}
		fmt.Fprintln(&got, lines[i])
		var stdin strings.Builder
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "< ") {
			i++
			fmt.Fprintln(&got, lines[i])
			fmt.Fprintln(&stdin, lines[i][2:])
		}
		stdout, stderr, code := c.run(stdin.String(), words(places.Replace(command))...)
		got.WriteString(stdout)
		for line := range strings.Lines(stderr) {
			got.WriteString("! " + strings.TrimSuffix(line, "\n") + "\n")
		}
		if code != 0 {
			fmt.Fprintf(&got, "[exit %d]\n", code)
		}
		got.WriteString("\n")
	}
	return strings.TrimSuffix(got.String(), "\n")
}

// words splits a command line at spaces, except inside single quotes.
func words(line string) []string {
	var all []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n got: %q\nwant: %q", i+1, a, b)
		}
	}
	return "only the end differs"
}
