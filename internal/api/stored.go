package api

import (
	"context"
	"errors"
	"slices"

	"github.com/pleiad/pleiad/internal/store"
)

// Stored serves a collection of the store from its in-memory copy, so that
// reads cost no I/O and show what the same process has written. indexes are
// those of the collection's indexes that are named after a field of a list
// filter: name, kind, state, tag, tenantId, projectId, clusterId, hostId,
// entityId, entityKind. A field without an index is filtered by looking at each
// object.
func Stored[T any](s *store.Store, c *store.Collection[T], indexes ...string) Source[T] {
	return stored[T]{s, c, indexes}
}

type stored[T any] struct {
	store      *store.Store
	collection *store.Collection[T]
	indexes    []string
}

func (s stored[T]) Get(_ context.Context, id string) (*T, error) {
	v, err := s.collection.Get(s.store, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrNotFound
	}
	return v, err
}

func (s stored[T]) List(_ context.Context, q Query) ([]*T, error) {
	page, _, err := s.collection.List(s.store, store.Query{Index: q.Index, Value: q.Value, After: q.After, Limit: q.Limit})
	return page, err
}

func (s stored[T]) Count(context.Context) (int, error) {
	return s.collection.Count(s.store, store.Query{})
}

func (s stored[T]) Indexed(field string) bool { return slices.Contains(s.indexes, field) }
