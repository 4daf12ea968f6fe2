package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
)

// Tx is a transaction being made. It sees the store as the in-memory copy has
// it, with what it and the transactions committed together with it have
// written on top. It is good until the function it was given to returns.
type Tx struct {
	s     *Store
	batch *layer // what the transactions before this one in the same commit have done
	own   *layer
}

// state is an object as a transaction sees it; nil stands for no object.
type state struct {
	val           any    // shared with the cache; nil for a state made by a transaction
	raw           []byte // JSON; made when needed from val
	unique, index []string
}

func (st *state) json() ([]byte, error) {
	if st.raw == nil {
		raw, err := json.Marshal(st.val)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		st.raw = raw
	}
	return st.raw, nil
}

type objectKey struct {
	sch *schema
	id  string
}

func (k objectKey) String() string { return "o/" + k.sch.name + "/" + k.id }

// read is an object as it was first read, and the revision of its last change,
// 0 for an absent one. The commit requires it to be still that.
type read struct {
	state *state
	mod   int64
}

// layer is what a transaction, or several in a row, have read and written.
// All strings are etcd keys without the prefix.
type layer struct {
	reads  map[objectKey]read
	free   map[string]bool  // unique keys seen absent from the store
	lists  map[string]int64 // version keys of lists, to the revision the list was read at
	writes map[objectKey]*state
	claims map[string]string // unique keys, to the id that holds them now; "" when freed
	moved  map[string]bool   // version keys of lists whose membership changes
	frees  bool              // it is on the way to space being freed
}

func newLayer() *layer {
	return &layer{reads: map[objectKey]read{}, free: map[string]bool{}, lists: map[string]int64{},
		writes: map[objectKey]*state{}, claims: map[string]string{}, moved: map[string]bool{}}
}

// Frees says that the transaction begins what frees space, so that it may use
// some of what must otherwise stay free on the disk. One that deletes an object,
// and one of a leader's, who works on what was accepted before, may anyway.
func (t *Tx) Frees() { t.own.frees = true }

// absorb adds what l has read to b and, if it is to be committed, what it has written.
func (b *layer) absorb(l *layer, commit bool) {
	maps.Copy(b.reads, l.reads)
	maps.Copy(b.free, l.free)
	for key, rev := range l.lists {
		if _, ok := b.lists[key]; !ok { // the earlier read is the stricter condition
			b.lists[key] = rev
		}
	}
	if commit {
		maps.Copy(b.writes, l.writes)
		maps.Copy(b.claims, l.claims)
		maps.Copy(b.moved, l.moved)
		b.frees = b.frees || l.frees
	}
}

// size returns how many operations of etcd's the layer takes (it counts
// conditions and writes apart; the larger is limited), and about how many bytes.
func (l *layer) size() (ops, bytes int) {
	const perKey = 120 // bytes of a key, its condition and the seal
	ops = max(len(l.reads)+len(l.free)+len(l.lists), len(l.writes)+len(l.claims)+len(l.moved))
	bytes = perKey * (len(l.reads) + len(l.free) + len(l.lists) + len(l.writes) + len(l.claims) + len(l.moved))
	for key := range l.claims {
		bytes += 2 * len(key) // it may be a condition, too
	}
	for _, st := range l.writes {
		if st != nil {
			bytes += len(st.raw)
		}
	}
	return ops, bytes
}

// listKey returns the version key of a list: each change of its membership
// rewrites it. A list's own key would stay behind when the list is long gone,
// so all lists of an index share 256 keys; sharing costs a needless retry now and then.
func listKey(sch *schema, indexKey string) string {
	name, value, ok := strings.Cut(indexKey, "/")
	if !ok {
		return "g/" + sch.name + "/"
	}
	h := fnv.New32a()
	h.Write([]byte(value))
	return fmt.Sprintf("g/%s/%s/%02x", sch.name, name, byte(h.Sum32()))
}

// current returns the object as the transaction sees it now, and takes note of the read.
func (t *Tx) current(sch *schema, id string) (*state, error) {
	k := objectKey{sch, id}
	for _, l := range []*layer{t.own, t.batch} {
		if st, ok := l.writes[k]; ok {
			return st, nil
		}
	}
	t.s.cache.mu.RLock()
	defer t.s.cache.mu.RUnlock()
	return t.read(sch, id, t.s.cache.tables[sch].byID[id]), nil
}

// read takes note that the cache has e (nil: nothing) under that id, unless it
// was read before: all reads of an object in one commit are of one state.
// The cache must be locked.
func (t *Tx) read(sch *schema, id string, e *entry) *state {
	k := objectKey{sch, id}
	for _, l := range []*layer{t.own, t.batch} {
		if r, ok := l.reads[k]; ok {
			return r.state
		}
	}
	var r read
	if e != nil {
		r = read{&state{val: e.val, unique: sch.unique(e.val), index: sch.index(e.val)}, e.mod}
	}
	t.own.reads[k] = r
	return r.state
}

// copyOf returns a fresh copy of an object's state; nil of nil.
func copyOf(sch *schema, st *state) (any, error) {
	if st == nil {
		return nil, nil
	}
	raw, err := st.json()
	if err != nil {
		return nil, err
	}
	return sch.decode(raw)
}

func (t *Tx) get(sch *schema, id string) (any, error) {
	st, err := t.current(sch, id)
	if err != nil {
		return nil, err
	}
	return copyOf(sch, st)
}

// find returns the id of the object that holds a unique key, "" if none does.
// Either answer becomes a condition of the commit.
func (t *Tx) find(sch *schema, unique string) string {
	key := "u/" + sch.name + "/" + unique
	for _, l := range []*layer{t.own, t.batch} {
		if id, ok := l.claims[key]; ok {
			return id
		}
	}
	t.s.cache.mu.RLock()
	defer t.s.cache.mu.RUnlock()
	table := t.s.cache.tables[sch]
	id := table.unique[unique]
	if id == "" {
		t.own.free[key] = true
	} else {
		t.read(sch, id, table.byID[id])
	}
	return id
}

// written returns what the transaction has written in a collection.
func (t *Tx) written(sch *schema) map[string]*state {
	w := map[string]*state{}
	for _, l := range []*layer{t.batch, t.own} {
		for k, st := range l.writes {
			if k.sch == sch {
				w[k.id] = st
			}
		}
	}
	return w
}

func (st *state) listed(key string) bool {
	return st != nil && (key == "" || slices.Contains(st.index, key))
}

// watchList makes the list's membership a condition of the commit. The cache must be locked.
func (t *Tx) watchList(sch *schema, key string) {
	lk := listKey(sch, key)
	if _, ok := t.own.lists[lk]; !ok {
		t.own.lists[lk] = t.s.cache.rev
	}
}

func (t *Tx) list(sch *schema, q Query) (page []any, next string, err error) {
	written := t.written(sch)
	found := map[string]*state{}
	for id, st := range written {
		if st.listed(q.key()) && id > q.After {
			found[id] = st
		}
	}
	t.s.cache.mu.RLock()
	t.watchList(sch, q.key())
	stored := 0
	for _, e := range after(t.s.cache.tables[sch].list(q.key()), q.After) {
		if q.Limit > 0 && stored > q.Limit {
			break
		}
		if _, ok := written[e.id]; !ok {
			stored++
			found[e.id] = nil // read below, if it is on the page
		}
	}
	ids := slices.Sorted(maps.Keys(found))
	if q.Limit > 0 && len(ids) > q.Limit {
		ids = ids[:q.Limit]
		next = ids[q.Limit-1]
	}
	for _, id := range ids {
		if found[id] == nil {
			found[id] = t.read(sch, id, t.s.cache.tables[sch].byID[id])
		}
	}
	t.s.cache.mu.RUnlock()
	for _, id := range ids {
		v, err := copyOf(sch, found[id])
		if err != nil {
			return nil, "", err
		}
		if v != nil { // else read as absent before, and the commit will fail
			page = append(page, v)
		}
	}
	return page, next, nil
}

func (t *Tx) count(sch *schema, q Query) int {
	written := t.written(sch)
	t.s.cache.mu.RLock()
	defer t.s.cache.mu.RUnlock()
	t.watchList(sch, q.key())
	table := t.s.cache.tables[sch]
	n := len(table.list(q.key()))
	for id, st := range written {
		before := false
		if e := table.byID[id]; e != nil {
			before = q.key() == "" || slices.Contains(sch.index(e.val), q.key())
		}
		switch after := st.listed(q.key()); {
		case after && !before:
			n++
		case before && !after:
			n--
		}
	}
	return n
}

// set writes an object, or removes it if st is nil.
func (t *Tx) set(sch *schema, id string, st *state) error {
	old, err := t.current(sch, id)
	if err != nil {
		return err
	}
	if st == nil {
		t.own.frees = true
	}
	was, is := old, st
	if was == nil {
		was = &state{}
	}
	if is == nil {
		is = &state{}
	}
	if old != nil && st != nil {
		before, err := old.json()
		if err != nil {
			return err
		}
		if bytes.Equal(before, st.raw) {
			return nil
		}
	}
	for _, u := range is.unique {
		if holder := t.find(sch, u); holder != "" && holder != id {
			name, key, _ := strings.Cut(u, "/")
			return &TakenError{Collection: sch.name, Unique: name, Key: key, Holder: holder}
		}
	}
	for _, u := range was.unique {
		if !slices.Contains(is.unique, u) {
			t.own.claims["u/"+sch.name+"/"+u] = ""
		}
	}
	for _, u := range is.unique {
		if !slices.Contains(was.unique, u) {
			t.own.claims["u/"+sch.name+"/"+u] = id
		}
	}
	if (old == nil) != (st == nil) {
		t.own.moved[listKey(sch, "")] = true
	}
	for _, key := range slices.Concat(was.index, is.index) {
		if !slices.Contains(was.index, key) || !slices.Contains(is.index, key) {
			t.own.moved[listKey(sch, key)] = true
		}
	}
	t.own.writes[objectKey{sch, id}] = st
	return nil
}
