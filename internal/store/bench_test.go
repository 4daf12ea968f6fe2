package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pleiad/pleiad/internal/model"
)

// The benchmarks sync every commit to disk, as a server does.

func benchOptions(b *testing.B) Options {
	o := embedded(b)
	o.UnsafeNoFsync = false
	return o
}

// benchVM is an object of usual size and indexes: about 700 bytes, in five lists.
func benchVM(id, project string) *model.VM {
	return &model.VM{
		Meta:  model.Meta{ID: id, Kind: "vm", Name: "worker-" + id, SelfLink: "https://pleiad.example/v1/vms/" + id, CreatedTime: 1700000000000},
		State: model.VMStarted, Flavor: "cluster-worker", ProjectID: project, SourceImageID: "image-1",
		Cost:   []model.QuotaLineItem{{Key: "vm.memory", Value: 4, Unit: model.UnitGB}, {Key: "vm.cpu", Value: 2, Unit: model.UnitCount}},
		HostID: "host-1", Host: "100.64.0.2:8443", ClusterID: "cluster-" + project, Role: "worker", Pool: "default",
		Networks: []model.VMNetwork{{Network: "br0", MACAddress: "00:16:3e:00:00:01", IPAddress: "100.64.10.20", Prefix: 24, Gateway: "100.64.10.1"}},
		Reserved: model.Capacity{MilliCPU: 2000, Memory: 4 << 30, Disk: 10 << 30},
	}
}

// parallel runs fn n times, on w goroutines, with each run's number.
func parallel(b *testing.B, w, n int, fn func(i int) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range w {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				if err := fn(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkCreateSerial(b *testing.B) {
	s := open(b, benchOptions(b))
	i := 0
	for b.Loop() {
		i++
		vm := benchVM(fmt.Sprintf("%08d", i), "p")
		if _, err := s.Update(context.Background(), "", func(tx *Tx) error { return VMs.Create(tx, vm) }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreate32Writers(b *testing.B) {
	for _, group := range []string{"", "g"} {
		b.Run("group="+group, func(b *testing.B) {
			s := open(b, benchOptions(b))
			b.ResetTimer()
			parallel(b, 32, b.N, func(i int) error {
				vm := benchVM(fmt.Sprintf("%08d", i), fmt.Sprint("p", i%10))
				_, err := s.Update(context.Background(), group, func(tx *Tx) error { return VMs.Create(tx, vm) })
				return err
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
		})
	}
}

// BenchmarkLedger64Writers books on one account: grouped, and by optimistic
// transactions that conflict with each other.
func BenchmarkLedger64Writers(b *testing.B) {
	for _, group := range []string{"g", ""} {
		name := "grouped"
		if group == "" {
			name = "optimistic"
		}
		b.Run(name, func(b *testing.B) {
			s := open(b, benchOptions(b))
			if _, err := s.Update(context.Background(), "", func(tx *Tx) error {
				return accounts.Create(tx, &account{ID: "a", Limit: 1 << 40})
			}); err != nil {
				b.Fatal(err)
			}
			var worst atomic.Int64
			b.ResetTimer()
			parallel(b, 64, b.N, func(i int) error {
				start := time.Now()
				_, err := s.Update(context.Background(), group, func(tx *Tx) error {
					return reserve(tx, "a", fmt.Sprintf("%08d", i), 1)
				})
				if took := int64(time.Since(start)); took > worst.Load() {
					worst.Store(took)
				}
				return err
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "bookings/s")
			b.ReportMetric(float64(worst.Load())/1e6, "worst-ms")
			if a, _ := accounts.Get(s, "a"); a.Used != b.N {
				b.Fatalf("%d bookings, the account says %d", b.N, a.Used)
			}
		})
	}
}

// fill stores n VMs, 100 to a project.
func fill(b *testing.B, s *Store, n int) {
	for from := 0; from < n; from += 200 {
		if _, err := s.Update(context.Background(), "", func(tx *Tx) error {
			var errs error
			for i := from; i < min(from+200, n); i++ {
				errs = errors.Join(errs, VMs.Create(tx, benchVM(fmt.Sprintf("%08d", i), fmt.Sprint("p", i/100))))
			}
			return errs
		}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList(b *testing.B) {
	s := open(b, benchOptions(b))
	fill(b, s, 10000)
	for name, q := range map[string]Query{
		"project-100-of-10000": {Index: "projectId", Value: "p50"},
		"page-50-of-10000":     {Index: "projectId", Value: "p50", After: "00005020", Limit: 50},
		"all-10000":            {},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if page, _, err := VMs.List(s, q); err != nil || len(page) == 0 {
					b.Fatal(len(page), err)
				}
			}
		})
	}
}

// BenchmarkOpen is the start of a server: empty, and with 10,000 VMs.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{0, 10000} {
		b.Run(fmt.Sprint("vms=", n), func(b *testing.B) {
			o := benchOptions(b)
			s := open(b, o)
			fill(b, s, n)
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			var opening time.Duration
			for b.Loop() {
				start := time.Now()
				s, err := Open(context.Background(), o)
				if err != nil {
					b.Fatal(err)
				}
				opening += time.Since(start)
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(opening.Milliseconds())/float64(b.N), "open-ms")
		})
	}
}

// BenchmarkWatch is the time from an update's start to its event.
func BenchmarkWatch(b *testing.B) {
	s := open(b, benchOptions(b))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := make(chan string)
	events := VMs.Watch(ctx, s, WatchOptions{})
	go func() {
		for e := range events {
			seen <- e.ID
		}
	}()
	i := 0
	for b.Loop() {
		i++
		vm := benchVM(fmt.Sprintf("%08d", i), "p")
		go s.Update(ctx, "", func(tx *Tx) error { return VMs.Create(tx, vm) })
		if id := <-seen; id != vm.ID {
			b.Fatalf("%s, want %s", id, vm.ID)
		}
	}
}
