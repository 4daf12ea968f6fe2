package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	// clusterSize is how many VMs are in one cluster of the simulated ones: a master and its workers.
	clusterSize = 10
	// vmsPerHost is how full the simulated hosts get.
	vmsPerHost = 20
	// makers is how many clusters are asked for and followed at once.
	makers = 32
	// readers is how many clients read at once, each on a connection of its own.
	readers  = 8
	startUps = 3
)

// scale measures a server that has nothing to do, and one with many VMs.
func (b *bench) scale(ctx context.Context) error {
	if err := b.emptyServer(ctx); err != nil {
		return fmt.Errorf("empty server: %w", err)
	}
	dir := b.path("sim")
	hosts := strconv.Itoa(b.vms / vmsPerHost)
	start := func() (*server, error) {
		return b.serve(ctx, b.simserver, "-data-dir", dir, "-hosts", hosts)
	}
	s, err := start()
	if err != nil {
		return err
	}
	empty := s.startUp
	err = b.grow(ctx, s, dir)
	if err = errors.Join(err, s.stop()); err != nil {
		return err
	}
	// A server that starts with all of it has neither the garbage of making it nor,
	// since the simulated hosts forget, their VMs in its memory.
	var took []float64
	var full memory
	for range startUps {
		if s, err = start(); err != nil {
			return err
		}
		took = append(took, s.startUp.Seconds())
		full, err = s.memory()
		if err = errors.Join(err, s.stop()); err != nil {
			return err
		}
	}
	b.table.add(row{fmt.Sprintf("server started with %d VMs: memory", b.vms), full.String(), "", "", ""})
	b.table.add(row{fmt.Sprintf("start-up to healthy with %d VMs, median of %d", b.vms, startUps), brief(median(took)),
		"first start, empty " + brief(empty.Seconds()), ratio(median(took), empty.Seconds()), ""})
	return nil
}

// emptyServer measures the program as it is shipped, on its first start.
func (b *bench) emptyServer(ctx context.Context) error {
	info, err := os.Stat(b.pleiad)
	if err != nil {
		return err
	}
	b.table.add(row{"size of the program", megabytes(info.Size()), "", "", ""})
	var took []float64
	var m memory
	for i := range startUps {
		s, err := b.serve(ctx, b.pleiad, "server", "--data-dir", b.path("empty"+strconv.Itoa(i)), "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1")
		if err != nil {
			return err
		}
		took = append(took, s.startUp.Seconds())
		m, err = s.memory()
		if err = errors.Join(err, s.stop()); err != nil {
			return err
		}
	}
	b.table.add(row{fmt.Sprintf("first start-up to healthy, median of %d", startUps), brief(median(took)), "", "", ""})
	b.table.add(row{"server idle, just started: memory", m.String(), "", "", ""})
	return nil
}

// grow fills a server with VMs on simulated hosts, and measures it on the way:
// when there is a full page of clusters, and at the end.
func (b *bench) grow(ctx context.Context, s *server, dir string) error {
	idle, err := s.memory()
	if err != nil {
		return err
	}
	c, err := administrator(s.client, dir)
	if err != nil {
		return err
	}
	defer c.Close()
	project, err := b.tenancy(ctx, c)
	if err != nil {
		return err
	}
	few, all := pageSize*clusterSize, b.vms
	if err := b.makeClusters(ctx, c, project, 0, few/clusterSize); err != nil {
		return err
	}
	atFew, err := b.read(ctx, s, dir, project)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.makeClusters(ctx, c, project, few/clusterSize, all/clusterSize); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	filled, err := s.memory()
	if err != nil {
		return err
	}
	atAll, err := b.read(ctx, s, dir, project)
	if err != nil {
		return err
	}
	b.table.add(row{fmt.Sprintf("VMs made on sim, from the request to started, %d clusters at once", makers), rate(float64(all-few) / took), "", "", ""})
	b.table.add(row{fmt.Sprintf("server and %d hosts after making %d VMs: memory", all/vmsPerHost, all), filled.String(),
		"the same before " + megabytes(idle.all), ratio(float64(filled.all), float64(idle.all)), ""})
	for i, r := range atAll {
		few99, all99 := percentile(atFew[i].took, 99), percentile(r.took, 99)
		b.table.add(row{fmt.Sprintf("  p99 of %s, %d at once (p50 %s, %s)", r.what, r.clients, brief(percentile(r.took, 50).Seconds()), rate(r.rate)),
			brief(all99.Seconds()), fmt.Sprintf("with %d VMs %s", few, brief(few99.Seconds())), ratio(all99.Seconds(), few99.Seconds()), ""})
	}
	return nil
}
