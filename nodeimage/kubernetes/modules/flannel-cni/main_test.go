package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const lease = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"

// bench is a plugin directory whose "bridge" records its input, and the rest
// of what the plugin works on.
type bench struct {
	dir, subnets, calls string
}

func newBench(t *testing.T) bench {
	b := bench{dir: t.TempDir()}
	b.subnets, b.calls = filepath.Join(b.dir, "subnet.env"), filepath.Join(b.dir, "calls")
	script := "#!/bin/sh\n{ cat; echo; } >> " + b.calls + "\necho '{\"cniVersion\":\"1.0.0\"}'\n"
	if err := os.WriteFile(filepath.Join(b.dir, "bridge"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.subnets, []byte(lease), 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b bench) run(command, extra string) (string, error) {
	env := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/nowhere:" + b.dir}
	in := `{"cniVersion":"1.0.0","name":"cbr0","type":"flannel","subnetFile":"` + b.subnets + `","dataDir":"` + b.dir + `/data"` + extra + `}`
	var out bytes.Buffer
	err := run(func(k string) string { return env[k] }, strings.NewReader(in), &out)
	return out.String(), err
}

func (b bench) lastCall(t *testing.T) map[string]any {
	t.Helper()
	data, err := os.ReadFile(b.calls)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAddAndDelete(t *testing.T) {
	b := newBench(t)
	out, err := b.run("ADD", `,"delegate":{"hairpinMode":true},"runtimeConfig":{"x":1}`)
	if err != nil || !strings.Contains(out, "cniVersion") {
		t.Fatalf("ADD: %q, %v", out, err)
	}
	got := b.lastCall(t)
	want := map[string]any{"type": "bridge", "name": "cbr0", "cniVersion": "1.0.0", "mtu": 1450.0, "ipMasq": false, "isGateway": true, "hairpinMode": true}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("delegated %s = %v, want %v", k, got[k], v)
		}
	}
	ipam, _ := json.Marshal(got["ipam"])
	if string(ipam) != `{"ranges":[[{"subnet":"10.244.3.0/24"}]],"routes":[{"dst":"10.244.0.0/16"}],"type":"host-local"}` {
		t.Errorf("ipam = %s", ipam)
	}

	// The lease goes away; DEL still knows what was added.
	if err := os.Remove(b.subnets); err != nil {
		t.Fatal(err)
	}
	if _, err := b.run("DEL", `,"prevResult":{"ips":[]}`); err != nil {
		t.Fatal(err)
	}
	if got := b.lastCall(t); got["hairpinMode"] != true || got["prevResult"] == nil {
		t.Errorf("DEL delegated %v", got)
	}
	if err := os.Remove(b.calls); err != nil {
		t.Fatal(err)
	}
	if _, err := b.run("DEL", ""); err != nil {
		t.Errorf("second DEL: %v", err)
	}
	if _, err := os.Stat(b.calls); err == nil {
		t.Error("the second DEL reached the delegate")
	}
}

func TestErrors(t *testing.T) {
	b := newBench(t)
	code := func(err error) int {
		var ce *cniError
		if errors.As(err, &ce) {
			return ce.Code
		}
		return -1
	}
	check := func(name string, err error, want int) {
		t.Helper()
		if code(err) != want {
			t.Errorf("%s: error %v with code %d, want %d", name, err, code(err), want)
		}
	}
	_, err := b.run("DANCE", "")
	check("unknown command", err, codeEnvironment)
	_, err = b.run("ADD", `,"delegate":{"type":"../sh"}`)
	check("path as type", err, codeConfig)
	_, err = b.run("ADD", `,"delegate":{"type":"absent"}`)
	check("absent plugin", err, codeConfig)
	_, err = b.run("ADD", `,"delegate":{"ipam":{}}`)
	check("ipam given", err, codeConfig)
	_, err = b.run("ADD", `,`)
	check("malformed", err, codeDecode)
	if err := os.WriteFile(filepath.Join(b.dir, "bridge"), []byte("#!/bin/sh\necho '{\"code\":1}'\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := b.run("ADD", ""); !errors.Is(err, errDelegate) || !strings.Contains(out, `"code":1`) {
		t.Errorf("delegate's failure: %q, %v", out, err)
	}
	if _, err := b.run("STATUS", ""); err != nil {
		t.Errorf("STATUS with a lease: %v", err)
	}
	if err := os.WriteFile(b.subnets, []byte("FLANNEL_NETWORK=10.244.0.0/16\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = b.run("ADD", "")
	check("incomplete lease", err, codeTryAgain)
	if err := os.WriteFile(b.subnets, []byte(strings.Replace(lease, "10.244.3.1/24", "10.244.3.1", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = b.run("ADD", "")
	check("malformed lease", err, codeTryAgain)
	if err := os.Remove(b.subnets); err != nil {
		t.Fatal(err)
	}
	_, err = b.run("STATUS", "")
	check("STATUS without a lease", err, codeNotReady)
}
