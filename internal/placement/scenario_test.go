package placement

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

var update = flag.Bool("update", false, "write what is decided into the scripts, to be reviewed")

// Each script in testdata has hosts, peers and nodes, a line "=>", and the decision:
//
//	policy cpu=1 image=0
//	host NAME [zone=Z] [cpu=N] [memory=N] [used=CPU,MEMORY] [disk=STORE:SIZE[:USED],…] [net=a,b]
//	          [images=a,b] [formats=a,b] [arch=A] [tags=a,b] [state=S] [silent=yes] [vms=N/MAX/LIMIT]
//	peer LABEL HOST
//	node NAME cpu=N memory=N [disk=N] [net=a,b] [image=I] [formats=a,b] [arch=A] [zones=a,b] [not-zones=a,b]
//	          [hosts=a,b] [not-hosts=a,b] [tags=a,b] [store=S] [spread=LABEL] [apart=LABEL]
//
// Memory and disks are in GB.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, found := strings.Cut(string(text), "=>\n")
			if !found {
				t.Fatal("the script has no =>")
			}
			got := decide(t, input)
			if *update {
				if err := os.WriteFile(file, []byte(input+"=>\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("decided:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func decide(t *testing.T, input string) string {
	t.Helper()
	policy := DefaultPolicy
	var hosts []Host
	var request Request
	for scan := bufio.NewScanner(strings.NewReader(input)); scan.Scan(); {
		line, _, _ := strings.Cut(scan.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "policy":
			for k, v := range pairs(t, words[1:]) {
				switch k {
				case "cpu":
					policy.CPUOvercommit = decimal(t, v)
				case "image":
					policy.ImagePrice = decimal(t, v)
				}
			}
		case "host":
			hosts = append(hosts, parseHost(t, words[1], pairs(t, words[2:])))
		case "peer":
			request.Peers = append(request.Peers, Peer{SpreadBy: words[1], HostID: words[2]})
		case "node":
			request.Nodes = append(request.Nodes, parseNode(t, words[1], pairs(t, words[2:])))
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	f := NewFleet(policy)
	for _, h := range hosts {
		f.Set(h)
	}
	places, err := f.Choose(request, nil)
	var refusal *model.Error
	if errors.As(err, &refusal) {
		return fmt.Sprintf("%s: %s\n%s\n", refusal.Code, refusal.Message, refusal.Action)
	} else if err != nil {
		t.Fatalf("%v is not a *model.Error", err)
	}
	var out strings.Builder
	for _, p := range places {
		fmt.Fprintf(&out, "%s on %s, datastore %q", p.Node, p.HostID, p.Datastore)
		if p.CopyImage {
			out.WriteString(", copy the image")
		}
		out.WriteString("\n")
	}
	return out.String()
}

func parseHost(t *testing.T, id string, options map[string]string) Host {
	h := Host{ID: id, State: model.HostReady}
	for k, v := range options {
		list := strings.Split(v, ",")
		switch k {
		case "zone":
			h.Zone = v
		case "cpu":
			h.Capacity.MilliCPU = int64(decimal(t, v) * 1000)
		case "memory":
			h.Capacity.Memory = gigabytes(t, v)
		case "used":
			h.Used = model.Capacity{MilliCPU: int64(decimal(t, list[0]) * 1000), Memory: gigabytes(t, list[1])}
		case "disk":
			for _, s := range list {
				part := strings.Split(s+":0", ":")
				h.Datastores = append(h.Datastores, Datastore{Name: part[0], Capacity: gigabytes(t, part[1]), Used: gigabytes(t, part[2])})
			}
		case "net":
			h.Networks = list
		case "images":
			h.Images = list
		case "formats":
			h.Formats = list
		case "arch":
			h.Architecture = v
		case "tags":
			h.Tags = list
		case "state":
			h.State = model.HostState(v)
		case "silent":
			h.Silent = v == "yes"
		case "vms":
			part := strings.Split(v, "/")
			h.VMs, h.MaxVMs, h.Limit = int(decimal(t, part[0])), int(decimal(t, part[1])), part[2]
		default:
			t.Fatalf("unknown option %s of a host", k)
		}
	}
	return h
}

func parseNode(t *testing.T, name string, options map[string]string) Node {
	n := Node{Name: name}
	for k, v := range options {
		list := strings.Split(v, ",")
		switch k {
		case "cpu":
			n.Resources.MilliCPU = int64(decimal(t, v) * 1000)
		case "memory":
			n.Resources.Memory = gigabytes(t, v)
		case "disk":
			n.Resources.Disk = gigabytes(t, v)
		case "net":
			n.Networks = list
		case "image":
			n.Image.ID = v
		case "formats":
			n.Image.Formats = list
		case "arch":
			n.Image.Architecture = v
		case "zones":
			n.Zones = list
		case "not-zones":
			n.NotZones = list
		case "hosts":
			n.Hosts = list
		case "not-hosts":
			n.NotHosts = list
		case "tags":
			n.Tags = list
		case "store":
			n.Datastore = v
		case "spread", "apart":
			n.SpreadBy, n.Apart = v, k == "apart"
		default:
			t.Fatalf("unknown option %s of a node", k)
		}
	}
	return n
}

func pairs(t *testing.T, words []string) map[string]string {
	t.Helper()
	m := map[string]string{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			t.Fatalf("%q is not key=value", w)
		}
		m[k] = v
	}
	return m
}

func decimal(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func gigabytes(t *testing.T, s string) int64 { return int64(decimal(t, s) * (1 << 30)) }
