package nodeimage

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const deb822 = `# the archive
Types: deb deb-src
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
# a comment within
URIs: http://archive.example/debian-security/
Suites:
 bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main
`

const oneLine = `# deb http://commented.example/debian bookworm main
deb-src http://src.example/debian bookworm main
deb http://archive.example/debian bookworm main contrib # trailing
deb [ arch=amd64,arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg trusted=yes ] http://archive.example/debian-security bookworm-security main
deb [arch=arm64] http://ports.example/debian bookworm main
deb [signed-by=/usr/share/keyrings/other.gpg] http://other.example bookworm main
deb http://other.example bookworm stable
deb http://broken.example
deb [unclosed http://broken.example bookworm main
`

func TestChooseSources(t *testing.T) {
	private := "deb [signed-by=/etc/apt/keyrings/company.gpg] https://mirror.example/debian bookworm main\n"
	tests := []struct {
		name    string
		sources []aptSource
		suite   string
		want    []string
	}{
		{"deb822", parseDeb822(deb822), "bookworm", []string{
			"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://archive.example/debian bookworm main",
			"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://archive.example/debian bookworm-updates main",
			"deb http://archive.example/debian-security/ bookworm-security main",
		}},
		{"one-line", parseOneLine(oneLine), "bookworm", []string{
			"deb http://archive.example/debian bookworm main",
			"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg trusted=yes] http://archive.example/debian-security bookworm-security main",
		}},
		{"a company's own key, nothing else", parseOneLine(private), "bookworm", []string{
			"deb [signed-by=/etc/apt/keyrings/company.gpg] https://mirror.example/debian bookworm main",
		}},
		{"another release", parseDeb822(deb822), "trixie", nil},
		{"updates without the suite", parseOneLine("deb http://a.example/debian bookworm-updates main\n"), "bookworm", nil},
		{"no URI", parseDeb822("Types: deb\nSuites: bookworm\nComponents: main\n"), "bookworm", nil},
		{"none", nil, "bookworm", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := chooseSources(tt.sources, tt.suite, "amd64")
			if (err != nil) != (tt.want == nil) || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v\nwant %q", got, err, tt.want)
			}
		})
	}
}

func TestMachineSources(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "etc/apt/sources.list.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"../sources.list":  "deb http://one.example/debian bookworm main\n",
		"two.list":         "deb http://two.example/debian bookworm main\n",
		"three.sources":    "Types: deb\nURIs: http://three.example/debian\nSuites: bookworm\nComponents: main\n",
		"four.list.backup": "deb http://four.example/debian bookworm main\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all, err := machineSources(root)
	if err != nil {
		t.Fatal(err)
	}
	var uris []string
	for _, s := range all {
		uris = append(uris, s.uris...)
	}
	want := []string{"http://one.example/debian", "http://two.example/debian", "http://three.example/debian"}
	if !slices.Equal(uris, want) {
		t.Errorf("got %q, want %q", uris, want)
	}
	if all, err := machineSources(t.TempDir()); err != nil || len(all) != 0 {
		t.Errorf("a machine without apt: %v, %v", all, err)
	}
}

func TestMirrorSources(t *testing.T) {
	got, err := mirrorSources("http://a.example/debian  http://a.example/security", "bookworm")
	want := []string{
		"deb http://a.example/debian bookworm main",
		"deb http://a.example/debian bookworm-updates main",
		"deb http://a.example/security bookworm-security main",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{" ", "a b c"} {
		if got, err := mirrorSources(bad, "bookworm"); err == nil {
			t.Errorf("mirror %q gave %q", bad, got)
		}
	}
}

func FuzzAptSources(f *testing.F) {
	f.Add(deb822)
	f.Add(oneLine)
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(parseDeb822(text), parseOneLine(text)...) {
			lines, err := chooseSources([]aptSource{s}, "bookworm", "amd64")
			if err == nil && len(lines) == 0 {
				t.Error("neither sources nor an error")
			}
		}
	})
}
