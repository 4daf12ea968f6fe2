package client

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"strings"

	"github.com/pleiad/pleiad/internal/model"
)

// Filter narrows a list: an object's field must have the value. The API's
// document says which lists have which filters.
type Filter struct{ Field, Value string }

// ByName keeps the objects of that name.
func ByName(name string) Filter { return Filter{"name", name} }

// Each goes through a list of the API, page after page, e.g. that at
// "/v1/tasks". An error ends it.
func Each[T any](ctx context.Context, c *Client, path string, filters ...Filter) iter.Seq2[T, error] {
	query := url.Values{}
	for _, f := range filters {
		if f.Value != "" {
			query.Set(f.Field, f.Value)
		}
	}
	next := path
	if len(query) > 0 {
		next += "?" + query.Encode()
	}
	return func(yield func(T, error) bool) {
		for next := next; next != ""; {
			page, err := get[model.ResourceList[T]](ctx, c, next)
			if err != nil {
				yield(*new(T), err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			// A link leads to where we are, or it is not our server's.
			if page.NextPageLink != "" && (!strings.HasPrefix(page.NextPageLink, "/") || page.NextPageLink == next) {
				yield(*new(T), fmt.Errorf("the server's link to the next page, %q, leads elsewhere", page.NextPageLink))
				return
			}
			next = page.NextPageLink
		}
	}
}

// all is Each as a slice, which is empty and not nil when there is nothing.
func all[T any](ctx context.Context, c *Client, path string, filters ...Filter) ([]T, error) {
	items := []T{}
	for item, err := range Each[T](ctx, c, path, filters...) {
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}
