package control

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/quota"
	"github.com/pleiad/pleiad/internal/store"
)

// dump is every object of every collection but tasks, as JSON by collection and
// id, without what was measured of hosts and when.
func (w *world) dump() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	add(w, all, "tenants", store.Tenants, func(v *model.Tenant) string { return v.ID })
	add(w, all, "tickets", store.ResourceTickets, func(v *model.ResourceTicket) string { return v.ID })
	add(w, all, "projects", store.Projects, func(v *model.Project) string { return v.ID })
	add(w, all, "flavors", store.Flavors, func(v *model.Flavor) string { return v.ID })
	add(w, all, "images", store.Images, func(v *model.Image) string { return v.ID })
	add(w, all, "zones", store.Zones, func(v *model.Zone) string { return v.ID })
	add(w, all, "hosts", store.Hosts, func(v *model.Host) string { return v.ID })
	add(w, all, "datastores", store.Datastores, func(v *model.Datastore) string { return v.ID })
	add(w, all, "subnets", store.Subnets, func(v *model.Subnet) string { return v.ID })
	add(w, all, "vms", store.VMs, func(v *model.VM) string { return v.ID })
	add(w, all, "orphans", store.Orphans, func(v *model.Orphan) string { return v.ID })
	add(w, all, "clusters", store.Clusters, func(v *model.Cluster) string { return v.ID })
	add(w, all, "deployments", store.Deployments, func(v *model.Deployment) string { return v.ID })
	add(w, all, "secrets", store.Secrets, func(v *model.Secret) string { return v.ID })
	add(w, all, "leases", leases, (*model.Lease).Key)
	add(w, all, "host-usages", hostUsages, func(v *model.HostUsage) string { return v.HostID })
	addRecords(w, all)
	return all
}

func add[T any](w *world, all map[string]string, name string, c *store.Collection[T], id func(*T) string) {
	w.t.Helper()
	items, _, err := c.List(w.store, store.Query{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, v := range items {
		if h, ok := any(v).(*model.Host); ok {
			v = any(unmeasured(h)).(*T)
		}
		b, err := json.Marshal(v)
		if err != nil {
			w.t.Fatal(err)
		}
		all[name+"/"+id(v)] = string(b)
	}
}

func unmeasured(h *model.Host) *model.Host {
	out := *h
	out.Conditions = slices.Clone(h.Conditions)
	for i := range out.Conditions {
		out.Conditions[i].Time = 0
	}
	out.Facts.Datastores = slices.Clone(h.Facts.Datastores)
	for i := range out.Facts.Datastores {
		out.Facts.Datastores[i].Free = 0
	}
	return &out
}

// same checks that two dumps are equal.
func same(t testing.TB, before, after map[string]string) {
	t.Helper()
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the store is not as it was (-before +after):\n%s", diff)
	}
}

// audit checks, at one revision, that every ledger is exactly what exists, and
// that nothing is kept of what does not.
func (w *world) audit() {
	w.t.Helper()
	var wrong []string
	w.update(func(tx *store.Tx) error {
		wrong = nil
		clusters := listed(w, tx, store.Clusters)
		vms := listed(w, tx, store.VMs)
		var want, has []string

		// Quota: what the clusters took is what the project has used.
		used := map[string]quota.Set{}
		for _, p := range listed(w, tx, store.Projects) {
			used[p.ID] = parse(w, p.ResourceTicket.Limits).Zero()
		}
		for _, c := range clusters {
			sum, err := used[c.ProjectID].Add(parse(w, c.Reserved))
			if err != nil {
				return err
			}
			used[c.ProjectID] = sum
		}
		for _, p := range listed(w, tx, store.Projects) {
			if got := parse(w, p.ResourceTicket.Usage); !equal(got, used[p.ID]) {
				wrong = append(wrong, "project uses "+got.String()+", its clusters "+used[p.ID].String())
			}
		}

		// Tickets: what the projects may use is what they took.
		taken := map[string]quota.Set{}
		for _, t := range listed(w, tx, store.ResourceTickets) {
			taken[t.ID] = parse(w, t.Limits).Zero()
		}
		for _, p := range listed(w, tx, store.Projects) {
			sum, err := taken[p.ResourceTicket.TenantTicketID].Add(parse(w, p.ResourceTicket.Limits))
			if err != nil {
				return err
			}
			taken[p.ResourceTicket.TenantTicketID] = sum
		}
		for _, t := range listed(w, tx, store.ResourceTickets) {
			if got := parse(w, t.Usage); !equal(got, taken[t.ID]) {
				wrong = append(wrong, "ticket "+t.Name+" has given "+got.String()+", its projects have "+taken[t.ID].String())
			}
		}

		// What orphans have stays theirs until they are gone.
		holders := slices.Clone(vms)
		for _, o := range listed(w, tx, store.Orphans) {
			if o.VM != nil {
				holders = append(holders, o.VM)
			}
		}

		// Hosts: what the VMs took is what the ledger has.
		ledgers := map[string]*model.HostUsage{}
		for _, u := range listed(w, tx, hostUsages) {
			ledgers[u.HostID] = u
		}
		for _, h := range listed(w, tx, store.Hosts) {
			sum := &model.HostUsage{HostID: h.ID}
			for _, v := range holders {
				if v.HostID == h.ID {
					sum.Used, sum.Nodes = sum.Used.Add(v.Reserved), sum.Nodes+1
					if sum.Datastores == nil {
						sum.Datastores = map[string]int64{}
					}
					sum.Datastores[v.Datastore] += v.Reserved.Disk
				}
			}
			u := ledgers[h.ID]
			if u != nil && len(u.Datastores) == 0 {
				u.Datastores = nil
			}
			if h.State == model.HostReady && !cmp.Equal(sum, u) {
				wrong = append(wrong, "ledger of host "+h.Address+": "+cmp.Diff(sum, u))
			}
			if u != nil && u.Used.Memory > h.Facts.Capacity.Memory {
				wrong = append(wrong, "host "+h.Address+" is oversubscribed")
			}
		}

		// Addresses: each VM's is leased, to it alone.
		for _, v := range holders {
			for _, n := range v.Networks {
				want = append(want, n.SubnetID+","+n.IPAddress+" "+v.ID)
			}
		}
		for _, l := range listed(w, tx, leases) {
			has = append(has, l.Key()+" "+l.OwnerID)
		}
		if diff := cmp.Diff(sorted(want), sorted(has)); diff != "" {
			wrong = append(wrong, "leases (-VMs +leases): "+diff)
		}
		wrong = append(wrong, strays(w, tx, vms, clusters)...)
		return nil
	})
	for _, s := range wrong {
		w.t.Error(s)
	}
}

// settled checks that the hosts run what the store says, and nothing twice.
func (w *world) settled() {
	w.t.Helper()
	w.audit()
	want, has := []string{}, []string{}
	vms, _, err := store.VMs.List(w.store, store.Query{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, v := range vms {
		want = append(want, v.Host+" "+v.ID)
	}
	hosts, _, err := store.Hosts.List(w.store, store.Query{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range hosts {
		for _, spec := range w.fleet.Host(h.Address).Specs() {
			has = append(has, h.Address+" "+spec.ID)
		}
	}
	if diff := cmp.Diff(sorted(want), sorted(has)); diff != "" {
		w.t.Errorf("VMs on hosts (-store +hosts): %s", diff)
	}
}

func sorted(s []string) []string { slices.Sort(s); return s }

func listed[T any](w *world, tx *store.Tx, c *store.Collection[T]) []*T {
	items, _, err := c.List(tx, store.Query{})
	if err != nil {
		w.t.Fatal(err)
	}
	return items
}

func parse(w *world, lines []model.QuotaLineItem) quota.Set {
	s, err := quota.Parse("lines", lines)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// equal compares amounts, whatever their units.
func equal(a, b quota.Set) bool {
	_, less := a.Sub(b)
	_, more := b.Sub(a)
	return less == nil && more == nil
}

func addRecords(w *world, all map[string]string) {
	for name, keys := range records(w, w.store) {
		for _, k := range keys {
			all[name+"/"+k] = ""
		}
	}
}

// records are the ids in the collections that no route serves, by collection.
func records(w *world, r store.Reader) map[string][]string {
	out := map[string][]string{}
	p, _, err1 := plans.List(r, store.Query{})
	for _, v := range p {
		out["plans"] = append(out["plans"], v.NodeID)
	}
	rep, _, err2 := reports.List(r, store.Query{})
	for _, v := range rep {
		out["reports"] = append(out["reports"], v.NodeID)
	}
	e, _, err3 := enrollments.List(r, store.Query{})
	for _, v := range e {
		out["enrollments"] = append(out["enrollments"], v.NodeID)
	}
	s, _, err4 := clusterSecrets.List(r, store.Query{})
	for _, v := range s {
		out["cluster-secrets"] = append(out["cluster-secrets"], v.ClusterID)
	}
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return out
}

// strays are records of VMs and clusters that are gone.
func strays(w *world, tx *store.Tx, vms []*model.VM, clusters []*model.Cluster) (wrong []string) {
	known := map[string]bool{}
	for _, v := range vms {
		known[v.ID] = true
	}
	for _, c := range clusters {
		known[c.ID] = true
	}
	all := records(w, tx)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, id := range all[name] {
			if !known[id] {
				wrong = append(wrong, name+" has a record of "+id+", which is gone")
			}
		}
	}
	return wrong
}

// unfinished are the tasks that have not ended, as operations.
func (w *world) unfinished() string {
	tasks, _, err := store.Tasks.List(w.store, store.Query{})
	if err != nil {
		w.t.Fatal(err)
	}
	var open []string
	for _, t := range tasks {
		if !t.State.Finished() {
			open = append(open, t.Operation)
		}
	}
	return strings.Join(open, ", ")
}

// watchdog audits what must hold at every revision, until stop is called: no
// host and no project is ever over its limit.
func (w *world) watchdog() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	usages := hostUsages.Watch(ctx, w.store, store.WatchOptions{Present: true})
	projects := store.Projects.Watch(ctx, w.store, store.WatchOptions{Present: true})
	go func() {
		defer func() { done <- struct{}{} }()
		for e := range usages {
			if e.New == nil {
				continue
			}
			h, err := store.Hosts.Get(w.store, e.ID)
			if err == nil && (e.New.Used.Memory > h.Facts.Capacity.Memory || e.New.Nodes < 0) {
				w.t.Errorf("revision %d: host %s has %+v of %+v", e.Revision, h.Address, e.New, h.Facts.Capacity)
			}
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for e := range projects {
			if e.New == nil {
				continue
			}
			limits, err1 := quota.Parse("limits", e.New.ResourceTicket.Limits)
			usage, err2 := quota.Parse("usage", e.New.ResourceTicket.Usage)
			if err := errors.Join(err1, err2, quota.Check(limits, quota.Set{}, usage)); err != nil {
				w.t.Errorf("revision %d: %v", e.Revision, err)
			}
		}
	}()
	return func() {
		cancel()
		<-done
		<-done
	}
}
