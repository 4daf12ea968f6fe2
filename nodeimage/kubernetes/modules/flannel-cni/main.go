// Command flannel is the CNI plugin of flannel's network. It reads the subnet
// that flanneld leased for this node and delegates to the bridge plugin with
// host-local addresses out of it.
//
// What was delegated at ADD is kept in a file by container and interface, so
// that DEL and CHECK speak to the same plugin with the same configuration even
// after the lease has changed.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	defaultSubnetFile = "/run/flannel/subnet.env"
	defaultDataDir    = "/var/lib/cni/flannel"
)

// Error codes of the CNI specification.
const (
	codeEnvironment = 4
	codeIO          = 5
	codeDecode      = 6
	codeConfig      = 7
	codeTryAgain    = 11
	codeNotReady    = 50
)

// cniError is what the specification wants printed on failure.
type cniError struct {
	CNIVersion string `json:"cniVersion,omitempty"`
	Code       int    `json:"code"`
	Msg        string `json:"msg"`
}

func (e *cniError) Error() string { return e.Msg }

func fail(code int, format string, args ...any) error {
	return &cniError{Code: code, Msg: "flannel: " + fmt.Sprintf(format, args...)}
}

// errDelegate says that the delegate failed and has printed its own error.
var errDelegate = errors.New("flannel: the delegated plugin failed")

type object = map[string]any

// config is the part of the network configuration that this plugin reads.
type config struct {
	CNIVersion    string            `json:"cniVersion"`
	Name          string            `json:"name"`
	SubnetFile    string            `json:"subnetFile"`
	DataDir       string            `json:"dataDir"`
	Delegate      object            `json:"delegate"`
	RuntimeConfig object            `json:"runtimeConfig"`
	PrevResult    json.RawMessage   `json:"prevResult"`
	Attachments   []json.RawMessage `json:"cni.dev/valid-attachments"`
}

func main() {
	err := run(os.Getenv, os.Stdin, os.Stdout)
	if err == nil {
		return
	}
	var ce *cniError
	if errors.As(err, &ce) {
		json.NewEncoder(os.Stdout).Encode(ce)
	} else if !errors.Is(err, errDelegate) {
		json.NewEncoder(os.Stdout).Encode(cniError{Code: codeIO, Msg: err.Error()})
	}
	os.Exit(1)
}

func run(getenv func(string) string, stdin io.Reader, stdout io.Writer) error {
	command := getenv("CNI_COMMAND")
	if command == "VERSION" {
		return json.NewEncoder(stdout).Encode(object{
			"cniVersion":        "1.1.0",
			"supportedVersions": []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"},
		})
	}
	conf := config{SubnetFile: defaultSubnetFile, DataDir: defaultDataDir}
	if err := json.NewDecoder(stdin).Decode(&conf); err != nil {
		return fail(codeDecode, "network configuration: %v", err)
	}
	p := plugin{conf: conf, path: getenv("CNI_PATH"), stdout: stdout}
	switch command {
	case "STATUS":
		if _, err := readSubnet(conf.SubnetFile); err != nil {
			return fail(codeNotReady, "flanneld has not leased a subnet yet: %v", err)
		}
		return nil
	case "GC":
		return p.collect()
	case "ADD", "DEL", "CHECK":
	default:
		return fail(codeEnvironment, "CNI_COMMAND is %q", command)
	}
	id, ifname := getenv("CNI_CONTAINERID"), getenv("CNI_IFNAME")
	if id == "" || ifname == "" || strings.ContainsRune(id+ifname, '/') {
		return fail(codeEnvironment, "CNI_CONTAINERID is %q and CNI_IFNAME is %q", id, ifname)
	}
	p.saved = filepath.Join(conf.DataDir, id+"-"+ifname)
	if command == "ADD" {
		return p.add()
	}
	return p.again(command)
}

type plugin struct {
	conf   config
	path   string // where plugins are, as $PATH
	saved  string // file with this attachment's delegated configuration
	stdout io.Writer
}

func (p *plugin) add() error {
	sub, err := readSubnet(p.conf.SubnetFile)
	if err != nil {
		// The runtime tries a pod's sandbox again: flanneld will be there soon.
		return fail(codeTryAgain, "flanneld has not leased a subnet yet: %v", err)
	}
	del, err := delegate(&p.conf, sub)
	if err != nil {
		return err
	}
	data, err := json.Marshal(del)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.conf.DataDir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(p.saved, data, 0o600); err != nil {
		return err
	}
	return p.exec(del)
}

// again repeats to the delegate a command about an attachment that was added.
func (p *plugin) again(command string) error {
	data, err := os.ReadFile(p.saved)
	if errors.Is(err, fs.ErrNotExist) && command == "DEL" {
		return nil // never added, or deleted already: DEL may come any number of times
	}
	if err != nil {
		return err
	}
	var del object
	if err := json.Unmarshal(data, &del); err != nil {
		return fail(codeDecode, "%s: %v", p.saved, err)
	}
	if p.conf.PrevResult != nil {
		del["prevResult"] = p.conf.PrevResult
	}
	if err := p.exec(del); err != nil || command != "DEL" {
		return err
	}
	return os.Remove(p.saved)
}

// collect passes on the runtime's list of living attachments, by which the
// delegate frees addresses that no pod holds any more.
func (p *plugin) collect() error {
	sub, err := readSubnet(p.conf.SubnetFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	del, err := delegate(&p.conf, sub)
	if err != nil {
		return err
	}
	del["cni.dev/valid-attachments"] = p.conf.Attachments
	return p.exec(del)
}

// exec runs the delegate with this process's environment; its output is ours.
func (p *plugin) exec(del object) error {
	kind, _ := del["type"].(string)
	if kind == "" || strings.ContainsRune(kind, '/') {
		return fail(codeConfig, "delegate type %q", kind)
	}
	input, err := json.Marshal(del)
	if err != nil {
		return err
	}
	for _, dir := range filepath.SplitList(p.path) {
		name := filepath.Join(dir, kind)
		if _, err := os.Stat(name); err != nil {
			continue
		}
		cmd := exec.Command(name)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), p.stdout, os.Stderr
		var exit *exec.ExitError
		if err := cmd.Run(); errors.As(err, &exit) {
			return errDelegate
		} else if err != nil {
			return err
		}
		return nil
	}
	return fail(codeConfig, "plugin %q is not in CNI_PATH %q", kind, p.path)
}

// subnet is what flanneld wrote about this node.
type subnet struct {
	network, lease netip.Prefix // lease is this node's part of network
	mtu            int
	masquerade     bool // whether flanneld itself masquerades
}

func readSubnet(file string) (subnet, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return subnet{}, err
	}
	var s subnet
	prefix := func(value string) netip.Prefix {
		p, perr := netip.ParsePrefix(value)
		err = errors.Join(err, perr)
		// flanneld writes the bridge's own address; the others mean the range.
		return p.Masked()
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "FLANNEL_NETWORK":
			s.network = prefix(value)
		case "FLANNEL_SUBNET":
			s.lease = prefix(value)
		case "FLANNEL_MTU":
			var perr error
			s.mtu, perr = strconv.Atoi(value)
			err = errors.Join(err, perr)
		case "FLANNEL_IPMASQ":
			var perr error
			s.masquerade, perr = strconv.ParseBool(value)
			err = errors.Join(err, perr)
		}
	}
	if err != nil {
		return subnet{}, fmt.Errorf("%s: %w", file, err)
	}
	if !s.network.IsValid() || !s.lease.IsValid() || s.mtu == 0 {
		return subnet{}, fmt.Errorf("%s: incomplete", file)
	}
	return s, nil
}

// delegate completes the delegate's configuration with the node's subnet. What
// the configuration says explicitly stays.
func delegate(conf *config, s subnet) (object, error) {
	del := object{"type": "bridge", "mtu": s.mtu, "ipMasq": !s.masquerade}
	for k, v := range conf.Delegate {
		del[k] = v
	}
	if del["type"] == "bridge" {
		if _, ok := del["isGateway"]; !ok {
			del["isGateway"] = true
		}
	}
	if _, ok := del["ipam"]; ok {
		return nil, fail(codeConfig, "delegate.ipam is flannel's to set")
	}
	del["name"], del["cniVersion"] = conf.Name, conf.CNIVersion
	del["ipam"] = object{
		"type":   "host-local",
		"ranges": [][]object{{{"subnet": s.lease}}},
		"routes": []object{{"dst": s.network}},
	}
	if len(conf.RuntimeConfig) > 0 {
		del["runtimeConfig"] = conf.RuntimeConfig
	}
	return del, nil
}
