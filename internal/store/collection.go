package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Schema says how the objects of a collection are stored and found.
type Schema[T any] struct {
	// ID returns the object's id, unique in the collection.
	ID func(*T) string
	// Version of the stored form; 0 counts as 1. Raise it when old values need Upgrade.
	Version int
	// Unique are the names no two objects may share, by a name of their own:
	// each function returns an object's key, or "" for none. Key composes one of parts.
	Unique map[string]func(*T) string
	// Index are the lists objects are found in, by name: each function returns
	// the values an object is listed under. Empty strings are left out.
	Index map[string]func(*T) []string
	// Upgrade turns the JSON of an older version into the present one's.
	// A replica that meets a newer version than its own stops.
	Upgrade func(version int, raw []byte) ([]byte, error)
}

// Collection is all objects of one type. Declare it as a package-level variable.
type Collection[T any] struct {
	sch *schema
	id  func(*T) string
}

// schema is a Schema without its type parameter, which the cache and transactions work with.
type schema struct {
	name    string
	version int
	decode  func([]byte) (any, error)
	upgrade func(int, []byte) ([]byte, error)
	unique  func(any) []string // as "name/key"
	index   func(any) []string // as "name/value"
	uniques map[string]bool    // their names
	indexes map[string]bool
}

// registry holds every collection of the program: Open must know them all to
// decode what it loads. It is written only while packages initialise.
var registry = map[string]*schema{}

// NewCollection declares a collection. Its name is part of the stored keys; a
// name used twice panics. Call it where package-level variables are
// initialised, nowhere else.
func NewCollection[T any](name string, s Schema[T]) *Collection[T] {
	if registry[name] != nil || name == "" || strings.Contains(name, "/") {
		panic("store: bad or repeated collection name " + name)
	}
	sch := &schema{name: name, version: max(s.Version, 1), upgrade: s.Upgrade,
		uniques: map[string]bool{}, indexes: map[string]bool{}}
	sch.decode = func(raw []byte) (any, error) {
		v := new(T)
		if err := json.Unmarshal(raw, v); err != nil {
			return nil, err
		}
		return v, nil
	}
	uniqueNames, indexNames := slices.Sorted(maps.Keys(s.Unique)), slices.Sorted(maps.Keys(s.Index))
	for _, n := range uniqueNames {
		sch.uniques[n] = true
	}
	for _, n := range indexNames {
		sch.indexes[n] = true
	}
	sch.unique = func(v any) (keys []string) {
		for _, n := range uniqueNames {
			if key := s.Unique[n](v.(*T)); key != "" {
				keys = append(keys, n+"/"+key)
			}
		}
		return keys
	}
	sch.index = func(v any) (keys []string) {
		for _, n := range indexNames {
			for _, value := range s.Index[n](v.(*T)) {
				if key := n + "/" + value; value != "" && !slices.Contains(keys, key) {
					keys = append(keys, key)
				}
			}
		}
		return keys
	}
	registry[name] = sch
	return &Collection[T]{sch: sch, id: s.ID}
}

// Key composes a unique key of parts that may hold any characters, so that
// different parts never give the same key. It is empty if the last part is:
// an object without a name claims none.
func Key(parts ...string) string {
	if len(parts) == 0 || parts[len(parts)-1] == "" {
		return ""
	}
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
	}
	return strings.Join(escaped, "/")
}

// Reader is what objects are read from: a *Store, whose objects are shared and
// must not be changed, or a *Tx, which gives copies of the caller's own and
// makes its commit depend on what was read.
type Reader interface {
	get(sch *schema, id string) (any, error)
	find(sch *schema, unique string) (id string)
	list(sch *schema, q Query) ([]any, string, error)
	count(sch *schema, q Query) int
}

// Query selects objects of a collection, in order of their ids.
type Query struct {
	Index, Value string // both empty: all objects
	After        string // only ids after this one: the token of the page before
	Limit        int    // at most so many; 0: all
}

func (q Query) key() string {
	if q.Index == "" {
		return ""
	}
	return q.Index + "/" + q.Value
}

func (c *Collection[T]) check(q Query) error {
	if q.Index != "" && !c.sch.indexes[q.Index] {
		return fmt.Errorf("store: %s have no index %q", c.sch.name, q.Index)
	}
	return nil
}

// Get returns the object with that id. The error wraps ErrNotFound if there is none.
func (c *Collection[T]) Get(r Reader, id string) (*T, error) {
	v, err := r.get(c.sch, id)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, fmt.Errorf("store: %s %q: %w", c.sch.name, id, ErrNotFound)
	}
	return v.(*T), nil
}

// Find returns the object that holds a unique key, as its schema composes it.
// The error wraps ErrNotFound if there is none.
func (c *Collection[T]) Find(r Reader, unique, key string) (*T, error) {
	if !c.sch.uniques[unique] {
		return nil, fmt.Errorf("store: %s have no unique key %q", c.sch.name, unique)
	}
	id := r.find(c.sch, unique+"/"+key)
	if id == "" {
		return nil, fmt.Errorf("store: %s with %s %q: %w", c.sch.name, unique, key, ErrNotFound)
	}
	return c.Get(r, id)
}

// List returns the objects that match, and the token of the next page (Query's
// After), empty if there is none. Pages are stable: an object present
// throughout is on exactly one. Read with a Tx, each object it returns adds to
// what the transaction must carry.
func (c *Collection[T]) List(r Reader, q Query) (page []*T, next string, err error) {
	if err := c.check(q); err != nil {
		return nil, "", err
	}
	values, next, err := r.list(c.sch, q)
	if err != nil {
		return nil, "", err
	}
	page = make([]*T, len(values))
	for i, v := range values {
		page[i] = v.(*T)
	}
	return page, next, nil
}

// Count returns how many objects have the query's index value; After and Limit
// are ignored. Read with a Tx it is protected like a list, at the cost of one key.
func (c *Collection[T]) Count(r Reader, q Query) (int, error) {
	if err := c.check(q); err != nil {
		return 0, err
	}
	return r.count(c.sch, q), nil
}

// Create writes a new object. The error wraps ErrExists if its id exists, and
// is a *TakenError if another object holds one of its unique keys.
func (c *Collection[T]) Create(tx *Tx, v *T) error {
	id := c.id(v)
	old, err := tx.current(c.sch, id)
	if err != nil {
		return err
	}
	if old != nil {
		return fmt.Errorf("store: %s %q: %w", c.sch.name, id, ErrExists)
	}
	return c.Put(tx, v)
}

// Put writes an object, new or not. What is equal to what is stored is not
// written again. The error is a *TakenError if another object holds one of its
// unique keys.
func (c *Collection[T]) Put(tx *Tx, v *T) error {
	id := c.id(v)
	if id == "" {
		return fmt.Errorf("store: %s: object without an id", c.sch.name)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("store: %s %q: %w", c.sch.name, id, err)
	}
	return tx.set(c.sch, id, &state{raw: raw, unique: c.sch.unique(v), index: c.sch.index(v)})
}

// Delete removes an object; its unique keys are free with it. The error wraps
// ErrNotFound if there is none.
func (c *Collection[T]) Delete(tx *Tx, id string) error {
	old, err := tx.current(c.sch, id)
	if err != nil {
		return err
	}
	if old == nil {
		return fmt.Errorf("store: %s %q: %w", c.sch.name, id, ErrNotFound)
	}
	return tx.set(c.sch, id, nil)
}

// open decodes what is stored at key, a key without the prefix.
func (sch *schema) open(s Sealer, key string, sealed []byte) (any, error) {
	version, raw, err := unseal(s, key, sealed)
	if err != nil {
		return nil, err
	}
	switch {
	case version > sch.version:
		return nil, fmt.Errorf("written by a newer version of pleiad (schema %d, this one knows %d): upgrade this one",
			version, sch.version)
	case version < sch.version && sch.upgrade == nil:
		return nil, errors.New("written by an older version of pleiad, and there is no way to upgrade it")
	case version < sch.version:
		if raw, err = sch.upgrade(version, raw); err != nil {
			return nil, fmt.Errorf("upgrade from schema %d: %w", version, err)
		}
	}
	return sch.decode(raw)
}
