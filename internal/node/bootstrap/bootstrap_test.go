package bootstrap

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/pleiad/pleiad/internal/model"
)

func valid() Bootstrap {
	return Bootstrap{
		NodeID: "vm-0c1a", Hostname: "demo-master-0", Token: "header.payload.s3cret",
		ControllerURLs: []string{"https://100.64.10.1:9443", "https://pleiad.example"},
		CAFingerprint:  strings.Repeat("0A", 32),
		Network: []model.VMNetwork{
			{MACAddress: "00:16:3e:12:34:56", IPAddress: "100.64.10.5", Prefix: 24, Gateway: "100.64.10.1", DNS: []string{"9.9.9.9"}},
			{MACAddress: "00:16:3e:12:34:57"},
		},
	}
}

func TestUserDataComesBack(t *testing.T) {
	b := valid()
	data, err := UserData(b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseUserData(data)
	if err != nil || !reflect.DeepEqual(got, b) {
		t.Errorf("%+v, %v", got, err)
	}
}

// cloud-init reads YAML: what it makes of the document must be the file.
func TestUserDataIsCloudConfig(t *testing.T) {
	data, err := UserData(valid())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(data, []byte("#cloud-config\n")) {
		t.Errorf("header: %.40q", data)
	}
	var doc struct {
		PreserveHostname bool `json:"preserve_hostname"`
		WriteFiles       []struct{ Path, Owner, Permissions, Encoding, Content string }
	}
	var raw struct {
		WriteFiles json.RawMessage `json:"write_files"`
	}
	if err := errors.Join(yaml.Unmarshal(data, &doc), yaml.Unmarshal(data, &raw), json.Unmarshal(raw.WriteFiles, &doc.WriteFiles)); err != nil {
		t.Fatal(err)
	}
	f := doc.WriteFiles[0]
	if !doc.PreserveHostname || f.Path != "/etc/pleiad/node.json" || f.Owner != "root:root" || f.Permissions != "0600" || f.Encoding != "b64" {
		t.Errorf("%+v", f)
	}
	content, err := base64.StdEncoding.DecodeString(f.Content)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(content); err != nil || !reflect.DeepEqual(got, valid()) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOtherUserDataIsNotOurs(t *testing.T) {
	for _, data := range []string{
		"", "#cloud-config\n", "#cloud-config\nruncmd:\n- ls\n", "#!/bin/sh\n", "#cloud-config\n{}",
		"#cloud-config\n" + `{"write_files":[{"path":"/etc/motd","content":"hi"}]}`,
	} {
		if _, err := ParseUserData([]byte(data)); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%q: %v", data, err)
		}
	}
	for data, want := range map[string]string{
		`{"write_files":[{"path":"/etc/pleiad/node.json","content":"{}"}]}`:                    "encoding",
		`{"write_files":[{"path":"/etc/pleiad/node.json","encoding":"b64","content":"!"}]}`:    "base64",
		`{"write_files":[{"path":"/etc/pleiad/node.json","encoding":"b64","content":"e30="}]}`: "nodeId",
		strings.Repeat(" ", MaxSize): "over",
	} {
		if _, err := ParseUserData([]byte("#cloud-config\n" + data)); err == nil || errors.Is(err, ErrNotOurs) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v", data, err)
		}
	}
}

func TestValidateNamesTheField(t *testing.T) {
	const ca = `-----BEGIN CERTIFICATE-----
AAAA
-----END CERTIFICATE-----
`
	for want, change := range map[string]func(*Bootstrap){
		"nodeId":                     func(b *Bootstrap) { b.NodeID = "a/b" },
		`hostname "-x"`:              func(b *Bootstrap) { b.Hostname = "-x" },
		"hostname \"a\\nb\"":         func(b *Bootstrap) { b.Hostname = "a\nb" },
		"0 entries":                  func(b *Bootstrap) { b.ControllerURLs = nil },
		"17 entries":                 func(b *Bootstrap) { b.ControllerURLs = make([]string, 17) },
		`"http://c" is not`:          func(b *Bootstrap) { b.ControllerURLs[1] = "http://c" },
		`"https://u:p@c" is not`:     func(b *Bootstrap) { b.ControllerURLs[1] = "https://u:p@c" },
		`"https://c/x" is not`:       func(b *Bootstrap) { b.ControllerURLs[1] = "https://c/x" },
		`"https://:1" is not`:        func(b *Bootstrap) { b.ControllerURLs[1] = "https://:1" },
		"caFingerprint or ca":        func(b *Bootstrap) { b.CAFingerprint = "" },
		`caFingerprint "00" is not`:  func(b *Bootstrap) { b.CAFingerprint = "00" },
		"not one PEM":                func(b *Bootstrap) { b.CA = "x" },
		"ca: x509":                   func(b *Bootstrap) { b.CA = ca },
		"not one PEM certificate":    func(b *Bootstrap) { b.CA = ca + ca },
		"token is missing":           func(b *Bootstrap) { b.Token = "" },
		"network has 17":             func(b *Bootstrap) { b.Network = make([]model.VMNetwork, 17) },
		`macAddress "" is not`:       func(b *Bootstrap) { b.Network[1].MACAddress = "" },
		`macAddress "00-16-3e`:       func(b *Bootstrap) { b.Network[1].MACAddress = "00-16-3e-00-00-01" },
		"macAddress \"00:16\\n":      func(b *Bootstrap) { b.Network[1].MACAddress = "00:16\n[Network]" },
		`ipAddress "100.64.10.300"`:  func(b *Bootstrap) { b.Network[0].IPAddress = "100.64.10.300" },
		`ipAddress "127.0.0.1"`:      func(b *Bootstrap) { b.Network[0].IPAddress = "127.0.0.1" },
		`ipAddress "fd00::1%eth0"`:   func(b *Bootstrap) { b.Network[0].IPAddress = "fd00::1%eth0" },
		"prefix 0":                   func(b *Bootstrap) { b.Network[0].Prefix = 0 },
		"prefix 33":                  func(b *Bootstrap) { b.Network[0].Prefix = 33 },
		`gateway "100.64.11.1"`:      func(b *Bootstrap) { b.Network[0].Gateway = "100.64.11.1" },
		`gateway "100.64.10.5"`:      func(b *Bootstrap) { b.Network[0].Gateway = "100.64.10.5" },
		"network[0]: dns \"1.1.1.1;": func(b *Bootstrap) { b.Network[0].DNS = []string{"1.1.1.1;"} },
		"network[1]: prefix and":     func(b *Bootstrap) { b.Network[1].Gateway = "100.64.10.1" },
	} {
		b := valid()
		change(&b)
		err := b.Validate()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %v", want, err)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error tells the token: %v", err)
		}
		if _, err := UserData(b); err == nil {
			t.Errorf("%s: rendered all the same", want)
		}
	}
	one := valid()
	one.Network = []model.VMNetwork{{}}
	if err := one.Validate(); err != nil {
		t.Errorf("one interface without a MAC address: %v", err)
	}
}

func TestATokenIsNotLogged(t *testing.T) {
	var out strings.Builder
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "bootstrap", valid())
	if s := out.String(); strings.Contains(s, "s3cret") || !strings.Contains(s, "vm-0c1a") {
		t.Error(s)
	}
}

func FuzzParseUserData(f *testing.F) {
	data, err := UserData(valid())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("#cloud-config\n{\"write_files\":[{\"path\":\"/etc/pleiad/node.json\",\"encoding\":\"b64\",\"content\":\"e30=\"}]}"))
	f.Add([]byte("#cloud-config\nusers: []\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := ParseUserData(data); err == nil {
			roundTrip(t, b)
		}
	})
}

func FuzzParse(f *testing.F) {
	data, err := json.Marshal(valid())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"nodeId":"a","hostname":"b","controllerUrls":["https://c"],"token":"d","ca":"e"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Parse(data)
		if err != nil {
			return
		}
		roundTrip(t, b)
		// What is written into configuration files must stay on its line.
		text := b.Hostname
		for _, n := range b.Network {
			text += n.MACAddress + n.IPAddress + n.Gateway + strings.Join(n.DNS, "")
		}
		if strings.ContainsAny(text, "\n\r[]= ") {
			t.Errorf("%q would not stay on its line", text)
		}
	})
}

// roundTrip checks that what was accepted can be rendered and is the same again.
func roundTrip(t *testing.T, b Bootstrap) {
	t.Helper()
	data, err := UserData(b)
	if err != nil {
		if strings.Contains(err.Error(), "at most") { // base64 made it too long
			return
		}
		t.Fatalf("cannot be rendered: %v", err)
	}
	again, err := ParseUserData(data)
	if err != nil {
		t.Fatal(err)
	}
	x, y := must(t, b), must(t, again)
	if x != y {
		t.Fatalf("%s\n%s", x, y)
	}
}

func must(t *testing.T, b Bootstrap) string {
	t.Helper()
	raw, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
