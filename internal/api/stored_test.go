package api

import (
	"errors"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
	"github.com/pleiad/pleiad/internal/store"
	"github.com/pleiad/pleiad/internal/store/storetest"
)

func TestStored(t *testing.T) {
	st := storetest.Open(t)
	_, err := st.Update(t.Context(), "", func(tx *store.Tx) error {
		for _, p := range []model.Project{
			{Meta: model.Meta{ID: "a", Name: "one"}, TenantID: "t"},
			{Meta: model.Meta{ID: "b", Name: "two"}, TenantID: "u"},
			{Meta: model.Meta{ID: "c", Name: "three"}, TenantID: "t"},
		} {
			if err := store.Projects.Create(tx, &p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	source := Stored(st, store.Projects, "tenantId")
	if p, err := source.Get(t.Context(), "b"); err != nil || p.Name != "two" {
		t.Errorf("project %+v, %v", p, err)
	}
	if _, err := source.Get(t.Context(), "d"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such project: %v", err)
	}
	if n, err := source.Count(t.Context()); err != nil || n != 3 {
		t.Errorf("%d projects, %v", n, err)
	}
	if !source.Indexed("tenantId") || source.Indexed("name") {
		t.Error("the indexes are not those that were given")
	}
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{Limit: 10}, "abc"}, {Query{Limit: 2}, "ab"}, {Query{After: "a", Limit: 10}, "bc"},
		{Query{Index: "tenantId", Value: "t", Limit: 10}, "ac"}, {Query{Index: "tenantId", Value: "t", After: "a", Limit: 10}, "c"},
		{Query{Index: "tenantId", Value: "v", Limit: 10}, ""},
	} {
		page, err := source.List(t.Context(), c.q)
		got := ""
		for _, p := range page {
			got += p.ID
		}
		if err != nil || got != c.want {
			t.Errorf("%+v: %q, %v; want %q", c.q, got, err, c.want)
		}
	}
}
