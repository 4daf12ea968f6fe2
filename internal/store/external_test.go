package store

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// member is one etcd server of an external cluster, in a process of its own:
// this test binary, started again.
type member struct {
	Name, Dir, Client, Peer, Cluster string
	Quota                            int64
	MaxTxnOps                        int // 0: as etcd has it by default

	process *os.Process
}

const memberEnv = "PLEIAD_TEST_ETCD_MEMBER"

func TestMain(m *testing.M) {
	if text := os.Getenv(memberEnv); text != "" {
		if err := serve(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve runs a member until its standard input ends, as it does when the test ends.
func serve(text string) error {
	var m member
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return err
	}
	client, err := url.Parse(m.Client)
	if err != nil {
		return err
	}
	peer, err := url.Parse(m.Peer)
	if err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster, cfg.QuotaBackendBytes = m.Name, m.Dir, m.Cluster, m.Quota
	cfg.UnsafeNoFsync = true
	if m.MaxTxnOps > 0 {
		cfg.MaxTxnOps = uint(m.MaxTxnOps)
	}
	cfg.TickMs, cfg.ElectionMs = 100, 1000 // as etcd has them by default
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	<-e.Server.ReadyNotify()
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// external is an etcd cluster that listens on loopback. Each test has a prefix of its own.
type external struct {
	members []*member
	tests   atomic.Int64
}

// startExternal starts n members with a quota in bytes, 0 for etcd's own.
func startExternal(t testing.TB, n int, quota int64) *external {
	t.Helper()
	return startMembers(t, n, member{Quota: quota})
}

// startMembers starts n members that are set like one of them.
func startMembers(t testing.TB, n int, like member) *external {
	t.Helper()
	x := &external{}
	var cluster []string
	for i := range n {
		m := &member{Name: fmt.Sprintf("m%d", i), Dir: t.TempDir(), Client: loopback(t), Peer: loopback(t),
			Quota: like.Quota, MaxTxnOps: like.MaxTxnOps}
		cluster = append(cluster, m.Name+"="+m.Peer)
		x.members = append(x.members, m)
	}
	var ready []*bufio.Reader
	for _, m := range x.members {
		m.Cluster = strings.Join(cluster, ",")
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), memberEnv+"="+string(text))
		cmd.Stderr = os.Stderr
		_, err1 := cmd.StdinPipe() // ends with us
		out, err2 := cmd.StdoutPipe()
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait() // reports the kill
		})
		m.process = cmd.Process
		ready = append(ready, bufio.NewReader(out))
	}
	for _, r := range ready {
		if line, err := r.ReadString('\n'); line != "ready\n" {
			t.Fatalf("an etcd member says %q, %v", line, err)
		}
	}
	return x
}

func loopback(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func (x *external) options(t testing.TB) Options {
	o := Options{Prefix: fmt.Sprintf("/test%d/", x.tests.Add(1)), Logger: testLogger(t),
		Sealer: keyFile(t, filepath.Join(t.TempDir(), "key"))}
	for _, m := range x.members {
		o.Endpoints = append(o.Endpoints, m.Client)
	}
	return o
}

// TestAcceptedOps: an external etcd is used to what it was set to.
func TestAcceptedOps(t *testing.T) {
	for set, want := range map[int]int{0: externalTxnOps, embeddedTxnOps: embeddedTxnOps} {
		s := open(t, startMembers(t, 1, member{MaxTxnOps: set}).options(t))
		if s.maxOps != want {
			t.Errorf("of an etcd set to %d operations %d are used, want %d", set, s.maxOps, want)
		}
		_, err := s.Update(testContext(t), "", func(tx *Tx) error {
			for i := range 200 {
				if err := accounts.Create(tx, &account{ID: fmt.Sprint(i), Name: fmt.Sprint(i)}); err != nil {
					return err
				}
			}
			return nil
		})
		if fits := want > 200; fits != (err == nil) || !fits && !errors.Is(err, ErrTooLarge) {
			t.Errorf("200 objects in an etcd set to %d operations: %v", set, err)
		}
	}
}

// killLeader kills the member that leads the cluster.
func (x *external) killLeader(t testing.TB, s *Store) {
	t.Helper()
	for _, m := range x.members {
		status, err := s.client.Status(context.Background(), m.Client)
		if err != nil {
			t.Fatal(err)
		}
		if status.Leader == status.Header.MemberId {
			if err := m.process.Kill(); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no member leads")
}
