package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"

	"github.com/pleiad/pleiad/internal/model"
)

// view is a noun and where its objects are read from.
type view[T any] struct {
	noun[T]
	source Source[T]
}

// views of all nouns.
type views struct {
	tenants     view[model.Tenant]
	tickets     view[model.ResourceTicket]
	projects    view[model.Project]
	flavors     view[model.Flavor]
	images      view[model.Image]
	zones       view[model.Zone]
	hosts       view[model.Host]
	datastores  view[model.Datastore]
	orphans     view[model.Orphan]
	subnets     view[model.Subnet]
	deployments view[model.Deployment]
	vms         view[model.VM]
	clusters    view[model.Cluster]
	tasks       view[model.Task]
}

func newViews(s Sources) views {
	return views{
		tenants:     view[model.Tenant]{tenants, s.Tenants},
		tickets:     view[model.ResourceTicket]{tickets, s.ResourceTickets},
		projects:    view[model.Project]{projects, s.Projects},
		flavors:     view[model.Flavor]{flavors, s.Flavors},
		images:      view[model.Image]{images, s.Images},
		zones:       view[model.Zone]{zones, s.Zones},
		hosts:       view[model.Host]{hosts, s.Hosts},
		datastores:  view[model.Datastore]{datastores, s.Datastores},
		orphans:     view[model.Orphan]{orphans, s.Orphans},
		subnets:     view[model.Subnet]{subnets, s.Subnets},
		deployments: view[model.Deployment]{deployments, s.Deployments},
		vms:         view[model.VM]{vms, s.VMs},
		clusters:    view[model.Cluster]{clusters, s.Clusters},
		tasks:       view[model.Task]{tasks, s.Tasks},
	}
}

// find returns the object with that id, as it is served.
func (v view[T]) find(ctx context.Context, id string) (T, error) {
	var none T
	if !decentID(id) { // not an id of ours, and not to be made part of a key
		return none, v.missing(id)
	}
	found, err := v.source.Get(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return none, v.missing(id)
	}
	if err != nil {
		return none, err
	}
	return v.present(found), nil
}

// Sizes of pages.
const (
	defaultPageSize = 100
	maxPageSize     = 100
	scanSize        = 500 // objects looked at in one go where a filter has no index
)

// cursor is what a page link holds. It says what its list was asked for, so
// that following a link needs nothing else.
type cursor struct {
	Path   string            `json:"p"`
	Filter map[string]string `json:"f,omitempty"`
	Size   int               `json:"s"`
	After  string            `json:"a"`
}

func (c cursor) link() string {
	b, err := json.Marshal(c)
	if err != nil { // strings and a number
		panic(err)
	}
	return c.Path + "?pageLink=" + base64.RawURLEncoding.EncodeToString(b)
}

// parsePage reads the query of a list. filters are the fields it may filter by.
func parsePage(path string, query url.Values, filters []string) (cursor, error) {
	c := cursor{Path: path, Filter: map[string]string{}, Size: defaultPageSize}
	for name, values := range query {
		if !slices.Contains(filters, name) && name != "pageSize" && name != "pageLink" {
			return c, model.Errorf(model.CodeInvalidQueryParams, "%s is not a known query parameter here", clip(name)).
				With("parameter", clip(name))
		}
		if len(values) > 1 {
			return c, model.Errorf(model.CodeInvalidQueryParams, "%s is given %d times", name, len(values)).With("parameter", name)
		}
	}
	for _, name := range filters {
		if value := query.Get(name); value != "" {
			c.Filter[name] = value
		}
	}
	if link := query.Get("pageLink"); link != "" {
		b, err := base64.RawURLEncoding.DecodeString(link)
		var linked cursor
		if err != nil || json.Unmarshal(b, &linked) != nil || !linked.fits(path, filters) {
			return c, model.Errorf(model.CodePageExpired, "there is no such page").With("pageLink", clip(link)).
				Do("list again from the first page")
		}
		c = linked
	}
	if raw := query.Get("pageSize"); raw != "" {
		size, err := strconv.Atoi(raw)
		if err != nil || size < 1 || size > maxPageSize {
			return c, model.Errorf(model.CodeInvalidPageSize, "pageSize must be 1 to %d (was %q)", maxPageSize, clip(raw)).
				With("pageSize", clip(raw)).With("minPageSize", "1").With("maxPageSize", strconv.Itoa(maxPageSize))
		}
		c.Size = size
	}
	return c, nil
}

// fits reports whether a link that a client sent is of this list.
func (c cursor) fits(path string, filters []string) bool {
	for name := range c.Filter {
		if !slices.Contains(filters, name) {
			return false
		}
	}
	return c.Path == path && c.Size >= 1 && c.Size <= maxPageSize && decentID(c.After)
}

// page returns the objects that a list was asked for. within are fields that
// the path says, e.g. the tenant whose projects these are.
func (v view[T]) page(ctx context.Context, c cursor, within map[string]string) (model.ResourceList[T], error) {
	filter := map[string]string{}
	for name, value := range c.Filter {
		filter[name] = value
	}
	for name, value := range within {
		filter[name] = value
	}
	// One more than is shown tells whether there is a next page.
	found, err := v.matching(ctx, filter, c.After, c.Size+1)
	if err != nil {
		return model.ResourceList[T]{}, err
	}
	list := model.ResourceList[T]{Items: []T{}}
	if len(found) > c.Size {
		found = found[:c.Size]
		c.After = v.id(found[c.Size-1])
		list.NextPageLink = c.link()
	}
	for _, object := range found {
		list.Items = append(list.Items, v.present(object))
	}
	return list, nil
}

// selective are the fields to prefer an index of, the most selective first.
var selective = []string{"entityId", "name", "clusterId", "hostId", "projectId", "tenantId", "tag", "entityKind", "kind", "state"}

// matching returns up to want objects that match filter, after the id after.
func (v view[T]) matching(ctx context.Context, filter map[string]string, after string, want int) ([]*T, error) {
	q := Query{After: after, Limit: want}
	for _, field := range selective {
		if value, ok := filter[field]; ok && v.source.Indexed(field) {
			q.Index, q.Value = field, value
			delete(filter, field)
			break
		}
	}
	if len(filter) > 0 {
		q.Limit = scanSize
	}
	var found []*T
	for {
		looked, err := v.source.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, object := range looked {
			if v.matches(object, filter) {
				found = append(found, object)
			}
			if len(found) == want {
				return found, nil
			}
		}
		if len(looked) < q.Limit {
			return found, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q.After = v.id(looked[len(looked)-1])
	}
}

func (v view[T]) matches(object *T, filter map[string]string) bool {
	for field, value := range filter {
		if !slices.Contains(v.fields[field](object), value) {
			return false
		}
	}
	return true
}
