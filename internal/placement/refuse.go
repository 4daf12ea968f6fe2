package placement

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/quota"
)

// tally is what stands in the way of a node, counted over hosts.
type tally struct {
	count  [reasons]int
	states map[string]int
	limits []string // each once
	// The most that any host that lacks it has left for one VM.
	memory, milliCPU, disk int64
}

// refuse says why no host takes the node. It goes over all hosts with the same
// filter that refused them, so that message and decision cannot differ.
func (d *draft) refuse(n *Node, hosts []*entry) *model.Error {
	t := tally{states: map[string]int{}}
	for _, e := range hosts {
		why, _ := d.fits(n, e, d.groups[n.SpreadBy])
		t.count[why]++
		switch why {
		case notReady:
			t.states[string(e.State)]++
		case lackMemory:
			t.memory = max(t.memory, d.free(e).Memory)
		case lackCPU:
			t.milliCPU = max(t.milliCPU, min(d.free(e).MilliCPU, e.Capacity.MilliCPU))
		case lackStorage:
			for i := range e.Datastores {
				if n.Datastore == "" || n.Datastore == e.Datastores[i].Name {
					t.disk = max(t.disk, d.storeFree(e, i))
				}
			}
		case lackLimit:
			if !slices.Contains(t.limits, e.Limit) {
				t.limits = append(t.limits, e.Limit)
			}
		}
	}
	return d.errorOf(n, &t, len(hosts))
}

// phrases tell each reason in words, after the number of hosts.
func phrases(n *Node, t *tally) [reasons]string {
	return [reasons]string{
		notReady:    "not READY (" + listed(t.states) + ")",
		silent:      "not answer",
		notAsked:    "not among the hosts asked for",
		otherZone:   "in other zones",
		noTag:       "without tag " + strings.Join(n.Tags, " and "),
		noDatastore: "without datastore " + n.Datastore,
		noNetwork:   "without network " + strings.Join(n.Networks, " or "),
		otherImage:  "unable to run the image (" + imageNeeds(n.Image) + ")",
		lackMemory:  "short of memory (largest free " + down(t.memory) + ")",
		lackCPU:     "short of CPU (largest free for one VM " + cpus(t.milliCPU) + ")",
		lackStorage: "short of storage (largest free " + down(t.disk) + " in one datastore)",
		lackLimit:   "at a kernel limit (" + strings.Join(t.limits, ", ") + ")",
		notApart:    "taken by a node of " + n.SpreadBy + ", from which it must stay apart",
	}
}

// names of the reasons in an error's data.
var names = [reasons]string{
	notReady: "notReady", silent: "silent", notAsked: "notAsked", otherZone: "otherZone", noTag: "noTag", noDatastore: "noDatastore",
	noNetwork: "noNetwork", otherImage: "otherImage", lackMemory: "lackMemory", lackCPU: "lackCpu",
	lackStorage: "lackStorage", lackLimit: "lackLimit", notApart: "notApart",
}

func (d *draft) errorOf(n *Node, t *tally, hosts int) *model.Error {
	code, action := verdict(t)
	err := model.Errorf(code, "there is no host for node %s (%s)", n.Name, size(n.Resources)).Do("%s", action)
	err.With("node", n.Name).With("hosts", strconv.Itoa(hosts))
	if hosts == 0 {
		return err
	}
	words := phrases(n, t)
	var parts []string
	for why := notReady; why < reasons; why++ {
		if k := t.count[why]; k > 0 {
			verb := "are"
			switch {
			case why == silent && k == 1:
				verb = "does"
			case why == silent:
				verb = "do"
			case k == 1:
				verb = "is"
			}
			parts = append(parts, fmt.Sprintf("%d %s %s", k, verb, words[why]))
			err.With(names[why], strconv.Itoa(k))
		}
	}
	besides := ""
	if d.placed > 0 {
		besides = fmt.Sprintf(" besides the %d placed before it", d.placed)
	}
	of := fmt.Sprintf("none of %d hosts", hosts)
	if hosts == 1 {
		of = "the one host cannot"
	} else {
		of += " can"
	}
	err.Message = fmt.Sprintf("%s take node %s (%s)%s: %s", of, n.Name, size(n.Resources), besides, strings.Join(parts, ", "))
	return err
}

// verdict finds the code: that of the hosts that came furthest through the filters, since they
// are nearest to taking the node, and what to do about it.
func verdict(t *tally) (model.Code, string) {
	lacks := []struct {
		why    reason
		code   model.Code
		action string
	}{
		{lackMemory, model.CodeNotEnoughMemory, "add hosts, free memory, or use a smaller flavor"},
		{lackCPU, model.CodeNotEnoughCPU, "add hosts, free CPUs, or use a smaller flavor"},
		{lackStorage, model.CodeNotEnoughDatastore, "add or free storage, or use a smaller disk"},
		{lackLimit, model.CodeHostLimits, "raise the kernel limit on the hosts, or add hosts"},
	}
	var found []int
	for i, l := range lacks {
		if t.count[l.why] > 0 {
			found = append(found, i)
		}
	}
	switch {
	case t.count[notApart] > 0:
		return model.CodeUnfulfillableAffinities, "add hosts, or ask for fewer nodes that must be apart"
	case len(found) == 1:
		return lacks[found[0]].code, lacks[found[0]].action
	case len(found) > 1:
		return model.CodeInsufficientCapacity, "add hosts, free capacity, or use a smaller flavor"
	case t.count[noNetwork] > 0:
		return model.CodeNoSuchResource, "use a subnet whose port groups are on the hosts"
	case t.count[otherImage] > 0:
		return model.CodeNoSuchResource, "use an image made for these hosts"
	case t.count[notAsked]+t.count[otherZone]+t.count[noTag]+t.count[noDatastore] > 0:
		return model.CodeUnfulfillableAffinities, "ask for other hosts, zones, tags or datastores"
	case t.count[silent] > 0:
		return model.CodeInsufficientCapacity, "see why hosts do not answer ('host show' says), or add some"
	case t.count[notReady] > 0:
		return model.CodeInsufficientCapacity, "bring hosts back to READY, or add some"
	}
	return model.CodeNoSuchResource, "add a host"
}

func size(c model.Capacity) string {
	parts := []string{cpus(c.MilliCPU), exact(c.Memory) + " memory"}
	if c.Disk > 0 {
		parts = append(parts, exact(c.Disk)+" disk")
	}
	return strings.Join(parts, ", ")
}

func imageNeeds(i Image) string {
	var parts []string
	if i.Architecture != "" {
		parts = append(parts, "for "+i.Architecture)
	}
	if len(i.Formats) > 0 {
		parts = append(parts, "as "+strings.Join(i.Formats, " or "))
	}
	return strings.Join(parts, ", ")
}

func cpus(milli int64) string {
	return strconv.FormatFloat(float64(max(milli, 0))/1000, 'f', -1, 64) + " vCPU"
}

func exact(bytes int64) string { return quota.Bytes(bytes, model.UnitGB).Humane().String() }

// down rounds down to a tenth of a readable unit: what is free must never look
// like enough when it is not.
func down(bytes int64) string {
	bytes = max(bytes, 0)
	unit, size := model.UnitB, int64(1)
	for _, u := range []model.Unit{model.UnitKB, model.UnitMB, model.UnitGB} {
		if bytes < size<<10 {
			break
		}
		unit, size = u, size<<10
	}
	whole, tenth := bytes/size, bytes%size*10/size
	if tenth == 0 {
		return fmt.Sprintf("%d %s", whole, unit)
	}
	return fmt.Sprintf("%d.%d %s", whole, tenth, unit)
}

// listed returns counts in words, sorted, e.g. "2 ERROR, 1 SUSPENDED".
func listed(counts map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[k], k))
	}
	return strings.Join(parts, ", ")
}
