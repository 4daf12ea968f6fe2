package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pleiad/pleiad/internal/model"
)

const (
	securityScheme = "token"
	routeKey       = "route" // of an operation's metadata
)

// op describes an operation: pattern is "METHOD /path".
func op(id, pattern string, access Access, tag, summary string) huma.Operation {
	method, path, _ := strings.Cut(pattern, " ")
	o := huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag},
		// Bodies are read, bounded and parsed before huma sees them.
		MaxBodyBytes: -1,
		Metadata:     map[string]any{routeKey: route{access: access}},
	}
	switch access {
	case Authenticated:
		o.Security = []map[string][]string{{securityScheme: {}}}
	case Admin:
		o.Security = []map[string][]string{{securityScheme: {}}}
		o.Description = "For administrators."
	}
	return o
}

// withRoute changes what guards an operation.
func withRoute(o huma.Operation, change func(*route)) huma.Operation {
	rt := o.Metadata[routeKey].(route)
	change(&rt)
	o.Metadata[routeKey] = rt
	return o
}

func withBody(o huma.Operation) huma.Operation {
	return withRoute(o, func(rt *route) { rt.maxBody = MaxBody })
}

// answer is the body of an answer.
type answer[T any] struct{ Body T }

type byID struct {
	ID string `path:"id"`
}

type bodied[S any] struct{ Body S }

type bodiedByID[S any] struct {
	ID   string `path:"id"`
	Body S
}

// read serves a GET without parameters.
func read[T any](s *server, o huma.Operation, answerWith func(context.Context) (T, error)) {
	huma.Register(s.huma, o, func(ctx context.Context, _ *struct{}) (*answer[T], error) {
		v, err := answerWith(ctx)
		return answered(ctx, s, v, err)
	})
}

// get serves one object.
func get[T any](s *server, o huma.Operation, v view[T]) {
	huma.Register(s.huma, o, func(ctx context.Context, in *byID) (*answer[T], error) {
		found, err := v.find(ctx, in.ID)
		return answered(ctx, s, found, err)
	})
}

// create serves the POST of a spec.
func create[S any](s *server, o huma.Operation, do func(context.Context, S) (*model.Task, error)) {
	o.DefaultStatus = http.StatusCreated
	huma.Register(s.huma, withBody(o), func(ctx context.Context, in *bodied[S]) (*answer[model.Task], error) {
		return taskAnswer(ctx, s)(do(ctx, in.Body))
	})
}

// createIn serves the POST of a spec below an object.
func createIn[P, S any](s *server, o huma.Operation, parent view[P], do func(context.Context, string, S) (*model.Task, error)) {
	o.DefaultStatus = http.StatusCreated
	huma.Register(s.huma, withBody(o), func(ctx context.Context, in *bodiedByID[S]) (*answer[model.Task], error) {
		if !decentID(in.ID) {
			return taskAnswer(ctx, s)(nil, parent.missing(in.ID))
		}
		return taskAnswer(ctx, s)(do(ctx, in.ID, in.Body))
	})
}

// act serves what is done to an object and needs no body: DELETE, or the POST of an action.
func act[T any](s *server, o huma.Operation, v view[T], do func(context.Context, string) (*model.Task, error)) {
	o.DefaultStatus = http.StatusCreated
	huma.Register(s.huma, o, func(ctx context.Context, in *byID) (*answer[model.Task], error) {
		if !decentID(in.ID) {
			return taskAnswer(ctx, s)(nil, v.missing(in.ID))
		}
		return taskAnswer(ctx, s)(do(ctx, in.ID))
	})
}

// answered makes an operation's result of what a function returned.
func answered[T any](ctx context.Context, s *server, v T, err error) (*answer[T], error) {
	if err != nil {
		return nil, httpError{s.userError(ctx, err)}
	}
	return &answer[T]{v}, nil
}

// taskAnswer returns a function that makes an operation's result of a mutation's.
func taskAnswer(ctx context.Context, s *server) func(*model.Task, error) (*answer[model.Task], error) {
	return func(t *model.Task, err error) (*answer[model.Task], error) {
		if err != nil {
			return answered(ctx, s, model.Task{}, err)
		}
		return answered(ctx, s, tasks.present(t), nil)
	}
}

// listing is the input of a list. Its query is read as a whole, for Photon's
// codes and to refuse parameters that would be ignored.
type listing struct {
	id, path string
	query    url.Values
}

// Resolve is huma's way to hand over the request.
func (l *listing) Resolve(c huma.Context) []error {
	u := c.URL()
	l.id, l.path, l.query = c.Param("id"), u.Path, u.Query()
	return nil
}

// list serves the objects of a noun, filtered by fields.
func list[T any](s *server, o huma.Operation, v view[T], filters ...string) {
	documentList(&o, filters)
	huma.Register(s.huma, o, func(ctx context.Context, in *listing) (*answer[model.ResourceList[T]], error) {
		page, err := v.listed(ctx, in, filters, nil)
		return answered(ctx, s, page, err)
	})
}

// listIn serves the objects of a noun that belong to an object: those whose
// field is its id. An empty field is for objects of the whole deployment.
func listIn[P, T any](s *server, o huma.Operation, parent view[P], field string, v view[T], filters ...string) {
	documentList(&o, filters)
	o.Parameters = append(o.Parameters, &huma.Param{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	huma.Register(s.huma, o, func(ctx context.Context, in *listing) (*answer[model.ResourceList[T]], error) {
		if _, err := parent.find(ctx, in.id); err != nil {
			return answered(ctx, s, model.ResourceList[T]{}, err)
		}
		within := map[string]string{}
		if field != "" {
			within[field] = in.id
		}
		page, err := v.listed(ctx, in, filters, within)
		return answered(ctx, s, page, err)
	})
}

func (v view[T]) listed(ctx context.Context, in *listing, filters []string, within map[string]string) (model.ResourceList[T], error) {
	c, err := parsePage(in.path, in.query, filters)
	if err != nil {
		return model.ResourceList[T]{}, err
	}
	return v.page(ctx, c, within)
}

func documentList(o *huma.Operation, filters []string) {
	text := func() *huma.Schema { return &huma.Schema{Type: huma.TypeString} }
	for _, name := range filters {
		o.Parameters = append(o.Parameters, &huma.Param{Name: name, In: "query", Schema: text(), Description: "Only those of this " + name + "."})
	}
	lowest, highest := float64(1), float64(maxPageSize)
	o.Parameters = append(o.Parameters,
		&huma.Param{Name: "pageSize", In: "query", Description: "Most objects in a page.",
			Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: &lowest, Maximum: &highest, Default: defaultPageSize}},
		&huma.Param{Name: "pageLink", In: "query", Schema: text(), Description: "A page, as nextPageLink names it; it includes the filters."})
}
