package nodeimage

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// aptSource is one entry of apt's sources: every URI has every suite, and every
// suite every component.
type aptSource struct {
	uris, suites, components, architectures []string
	signedBy                                string // a keyring's file, or ""
	trusted                                 bool
}

// machineSources reads the sources of the machine whose root is root, in
// either of apt's formats.
func machineSources(root string) ([]aptSource, error) {
	dir := filepath.Join(root, "etc/apt")
	names := []string{filepath.Join(dir, "sources.list")}
	for _, pattern := range []string{"sources.list.d/*.list", "sources.list.d/*.sources"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	var all []aptSource
	for _, name := range names {
		data, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(name, ".sources") {
			all = append(all, parseDeb822(string(data))...)
		} else {
			all = append(all, parseOneLine(string(data))...)
		}
	}
	return all, nil
}

// parseOneLine parses "deb [option=value …] URI suite component…" lines. Lines
// that it cannot read are apt's to complain about, and are left out.
func parseOneLine(text string) []aptSource {
	var all []aptSource
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[0] != "deb" {
			continue
		}
		fields = fields[1:]
		var s aptSource
		if strings.HasPrefix(fields[0], "[") {
			options, rest, ok := strings.Cut(strings.Join(fields, " ")[1:], "]")
			if !ok {
				continue
			}
			for _, option := range strings.Fields(options) {
				name, value, _ := strings.Cut(option, "=")
				s.set(strings.ToLower(name), value)
			}
			fields = strings.Fields(rest)
		}
		if len(fields) < 3 {
			continue
		}
		s.uris, s.suites, s.components = fields[:1], fields[1:2], fields[2:]
		all = append(all, s)
	}
	return all
}

// parseDeb822 parses stanzas of "Field: value" with continuation lines.
func parseDeb822(text string) []aptSource {
	var all []aptSource
	fields := map[string]string{}
	flush := func() {
		defer clear(fields)
		if !slices.Contains(strings.Fields(fields["types"]), "deb") || !truth(fields["enabled"], true) {
			return
		}
		s := aptSource{
			uris:       strings.Fields(fields["uris"]),
			suites:     strings.Fields(fields["suites"]),
			components: strings.Fields(fields["components"]),
		}
		for _, name := range []string{"architectures", "signed-by", "trusted"} {
			s.set(name, fields[name])
		}
		all = append(all, s)
	}
	last := ""
	scanner := bufio.NewScanner(strings.NewReader(text))
	for scanner.Scan() {
		line := scanner.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
			last = ""
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				fields[last] += "\n" + line
			}
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				continue
			}
			last = strings.ToLower(strings.TrimSpace(name))
			fields[last] = value
		}
	}
	flush()
	return all
}

func (s *aptSource) set(option, value string) {
	switch option {
	case "arch", "architectures":
		s.architectures = strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
	case "signed-by":
		// A key can also be given in place, or by fingerprint; only a file is of
		// use to another apt, and without it Debian's own keyring applies.
		if value = strings.TrimSpace(value); strings.HasPrefix(value, "/") && !strings.ContainsAny(value, " ,\n") {
			s.signedBy = value
		}
	case "trusted":
		s.trusted = truth(value, false)
	}
}

func truth(value string, missing bool) bool {
	switch strings.ToLower(strings.TrimSpace(value)) {
	case "":
		return missing
	case "yes", "true", "on", "1":
		return true
	}
	return false
}

// chooseSources picks from a machine's sources those that serve Debian's suite
// (with its updates and security fixes) for an architecture, as lines for a
// sources.list.
func chooseSources(all []aptSource, suite, arch string) ([]string, error) {
	// Others than Debian publish under suites of its names. They sign with keys
	// of their own; so does a company's mirror, sometimes, which is therefore
	// taken only where nothing else serves the suite.
	debian := func(s aptSource) bool {
		return s.signedBy == "" || strings.HasPrefix(path.Base(s.signedBy), "debian-archive")
	}
	for _, accept := range []func(aptSource) bool{debian, func(aptSource) bool { return true }} {
		var chosen []string
		served := false
		for _, s := range all {
			if !accept(s) || !slices.Contains(s.components, "main") || len(s.architectures) > 0 && !slices.Contains(s.architectures, arch) {
				continue
			}
			for _, found := range s.suites {
				if found == suite || found == suite+"-updates" || found == suite+"-security" {
					for _, uri := range s.uris {
						served = served || found == suite
						chosen = append(chosen, s.line(uri, found))
					}
				}
			}
		}
		if served {
			return chosen, nil
		}
	}
	return nil, fmt.Errorf("apt's sources on this machine do not serve Debian %s, component main: give a mirror's URL", suite)
}

func (s aptSource) line(uri, suite string) string {
	var options []string
	if s.signedBy != "" {
		options = append(options, "signed-by="+s.signedBy)
	}
	if s.trusted {
		options = append(options, "trusted=yes")
	}
	if len(options) > 0 {
		return fmt.Sprintf("deb [%s] %s %s main", join(options), uri, suite)
	}
	return fmt.Sprintf("deb %s %s main", uri, suite)
}

// mirrorSources returns the sources for mirrors that a person named: the
// archive's URL and, after white space, that of the security archive.
func mirrorSources(mirror, suite string) ([]string, error) {
	urls := strings.Fields(mirror)
	if len(urls) == 0 || len(urls) > 2 {
		return nil, fmt.Errorf("mirror %q: give the URL of a Debian archive and, if there is one, that of its security archive", mirror)
	}
	sources := []string{"deb " + urls[0] + " " + suite + " main", "deb " + urls[0] + " " + suite + "-updates main"}
	if len(urls) == 2 {
		sources = append(sources, "deb "+urls[1]+" "+suite+"-security main")
	}
	return sources, nil
}

func join(words []string) string { return strings.Join(words, " ") }
