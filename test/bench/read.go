package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pleiad/pleiad/internal/client"
	"github.com/pleiad/pleiad/internal/model"
)

// pageSize of the lists that are read, the largest there is.
const pageSize = 100

// reading is what some clients saw who asked for the same sort of thing as fast as they could.
type reading struct {
	what    string
	clients int
	took    []time.Duration // of each request, to the decoded answer
	rate    float64         // requests in a second, of all clients
}

// read reads VMs and lists over HTTPS. The clients share the machine with the server.
func (b *bench) read(ctx context.Context, s *server, dir, project string) ([]reading, error) {
	clients := make([]*client.Client, readers)
	for i := range clients {
		c, err := administrator(s.client, dir)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		if err := c.Available(ctx); err != nil { // the connection is there before it counts
			return nil, err
		}
		clients[i] = c
	}
	vms, err := clients[0].VMs(ctx, project)
	if err != nil {
		return nil, err
	}
	for _, v := range vms {
		if v.State != model.VMStarted {
			return nil, fmt.Errorf("VM %s is %s", v.Name, v.State)
		}
	}
	var all []reading
	for _, r := range []struct {
		what  string
		times int // by each client; a lone one asks four times as often
		ask   func(c *client.Client) error
	}{
		{"reading one VM", 1000, func(c *client.Client) error {
			_, err := c.VM(ctx, vms[rand.IntN(len(vms))].ID)
			return err
		}},
		{"a page of 100 VMs", 100, func(c *client.Client) error {
			return page[model.VM](ctx, c, "/v1/projects/"+project+"/vms")
		}},
		{"a page of 100 clusters", 100, func(c *client.Client) error {
			return page[model.Cluster](ctx, c, "/v1/projects/"+project+"/clusters")
		}},
	} {
		for _, n := range []int{1, readers} {
			times := r.times
			if n == 1 {
				times *= 4
			}
			got, err := ask(clients[:n], times, r.ask)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.what, err)
			}
			got.what, got.clients = r.what, n
			all = append(all, got)
			fmt.Fprintf(b.raw, "%d VMs: %s, %d at once: p50 %s, p99 %s, worst %s, %s\n", len(vms), r.what, n,
				percentile(got.took, 50), percentile(got.took, 99), percentile(got.took, 100), rate(got.rate))
		}
	}
	return all, nil
}

// ask has each client ask so many times, one after the other.
func ask(clients []*client.Client, times int, question func(*client.Client) error) (reading, error) {
	took := make([]time.Duration, len(clients)*times)
	errs := make([]error, len(clients))
	var wg sync.WaitGroup
	began := time.Now()
	for i, c := range clients {
		wg.Go(func() {
			for j := range times {
				start := time.Now()
				if errs[i] = question(c); errs[i] != nil {
					return
				}
				took[i*times+j] = time.Since(start)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(began).Seconds()
	for _, err := range errs {
		if err != nil {
			return reading{}, err // the others' are alike
		}
	}
	return reading{took: took, rate: float64(len(took)) / elapsed}, nil
}

// page reads the first page of a list, which must be full.
func page[T any](ctx context.Context, c *client.Client, path string) error {
	n := 0
	for _, err := range client.Each[T](ctx, c, path, client.Filter{Field: "pageSize", Value: fmt.Sprint(pageSize)}) {
		if err != nil {
			return err
		}
		if n++; n == pageSize {
			return nil
		}
	}
	return fmt.Errorf("the list has %d objects, fewer than a page", n)
}
