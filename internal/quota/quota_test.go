package quota

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pleiad/pleiad/internal/model"
)

// set reads the CLI's notation; "" is the empty set.
func set(t testing.TB, text string) Set {
	t.Helper()
	if text == "" {
		return Set{}
	}
	s, err := Parse("test", lines(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func lines(t testing.TB, text string) []model.QuotaLineItem {
	t.Helper()
	l, err := ParseTriples("test", text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func code(err error) model.Code {
	var e *model.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestAmountsAreExact(t *testing.T) {
	for _, c := range []struct {
		value float64
		unit  model.Unit
		units int64
		text  string
	}{
		{2.5, model.UnitGB, 2684354560, "2.5 GB"},
		{0.1, model.UnitGB, 107374182, "0.1 GB"},
		{512, model.UnitMB, 512 << 20, "512 MB"},
		{1, model.UnitB, 1, "1 B"},
		{0.1, model.UnitCount, 100, "0.1 COUNT"},
		{0.3, model.UnitCount, 300, "0.3 COUNT"},
		{0, model.UnitKB, 0, "0 KB"},
		{8388608, model.UnitGB, MaxBytes, "8388608 GB"},
		{1e12, model.UnitCount, MaxCount * 1000, "1000000000000 COUNT"},
	} {
		a, refusal := Of(c.value, c.unit)
		if refusal != "" || a.Units() != c.units || a.String() != c.text || a.Value() != c.value {
			t.Errorf("Of(%v, %s) = %d units, %q, %v, refusal %q; want %d, %q", c.value, c.unit, a.Units(), a, a.Value(), refusal, c.units, c.text)
		}
	}
}

// Whatever amounts are added and taken away, writing them to JSON in any unit and
// reading them back changes none.
func TestAmountsSurviveTheWire(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	units := []model.Unit{model.UnitGB, model.UnitMB, model.UnitKB, model.UnitB, model.UnitCount}
	for range 3_000 {
		unit := units[r.IntN(len(units))]
		n := r.Int64N(maxOf(unit) + 1)
		n >>= r.IntN(50)
		text, err := json.Marshal(Set{"x": {n, unit}}.Lines())
		if err != nil {
			t.Fatal(err)
		}
		var back []model.QuotaLineItem
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		s, err := Parse("test", back)
		if err != nil || s["x"] != (Amount{n, unit}) {
			t.Fatalf("%d units of %s came back as %v, %v (%s)", n, unit, s["x"], err, text)
		}
		if h := s["x"].Humane(); h.n != n {
			t.Fatalf("Humane changed %d into %d", n, h.n)
		}
		if again := set(t, s.String()); again["x"] != s["x"] {
			t.Fatalf("%q came back as %v", s, again)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	l := func(key string, value float64, unit model.Unit) []model.QuotaLineItem {
		return []model.QuotaLineItem{{Key: key, Value: value, Unit: unit}}
	}
	for name, c := range map[string]struct {
		lines []model.QuotaLineItem
		says  string
	}{
		"empty key":        {l("", 1, "GB"), "limits[0].key must be 1 to 127 characters"},
		"long key":         {l(strings.Repeat("k", 128), 1, "GB"), "limits[0].key must be 1 to 127 characters"},
		"key with space":   {l("vm cpu", 1, "COUNT"), `(was "vm cpu")`},
		"key with newline": {l("vm\n", 1, "COUNT"), `(was "vm\n")`},
		"unknown unit":     {l("a", 1, "TB"), `limits[0] (a) must have a unit of GB, MB, KB, B or COUNT (was "TB")`},
		"no unit":          {l("a", 1, ""), "must have a unit"},
		"negative":         {l("a", -1, "GB"), "limits[0] (a) must be 0 or more (was -1 GB)"},
		"not a number":     {l("a", math.NaN(), "GB"), "must be a finite number"},
		"infinite":         {l("a", math.Inf(1), "GB"), "must be a finite number"},
		"over bytes":       {l("a", 8388608.001, "GB"), "limits[0] (a) must be at most 8388608 GB"},
		"over bytes in B":  {l("a", math.MaxFloat64, "B"), "must be at most 9007199254740992 B"},
		"over count":       {l("a", 1.1e12, "COUNT"), "must be at most 1000000000000 COUNT"},
		"too fine":         {l("a", 0.0001, "COUNT"), "must be 0 or at least 0.001 COUNT"},
		"too fine bytes":   {l("a", 0.25, "B"), "must be 0 or at least 1 B"},
		"twice":            {append(l("a", 1, "GB"), l("a", 1, "GB")...), "limits[1] (a) must not have a key for the second time"},
		"memory in COUNT":  {l("vm.memory", 1, "COUNT"), "limits[0] (vm.memory) must have a unit of GB, MB, KB or B (was COUNT)"},
		"percent in GB":    {l("subdivide.percent", 1, "GB"), "limits[0] (subdivide.percent) must have a unit of COUNT (was GB)"},
		"cpu in GB":        {l("vm.cpu", 1, "GB"), "limits[0] (vm.cpu) must have a unit of COUNT (was GB)"},
		"flavor in GB":     {l("vm.flavor.small", 1, "GB"), "must have a unit of COUNT"},
		"capacity, COUNT":  {l("ephemeral-disk.capacity", 1, "COUNT"), "must have a unit of GB"},
	} {
		s, err := Parse("limits", c.lines)
		if code(err) != model.CodeInvalidEntity || !strings.Contains(err.Error(), c.says) || s != nil {
			t.Errorf("%s: %v, %v; want InvalidEntity with %q", name, s, err, c.says)
		}
	}
}

func TestParseTriples(t *testing.T) {
	got, err := ParseTriples("limits", " vm.memory 4 GB,vm.cpu 2 count ,\tvm.cost 0.5 COUNT")
	want := []model.QuotaLineItem{{Key: "vm.memory", Value: 4, Unit: "GB"}, {Key: "vm.cpu", Value: 2, Unit: "COUNT"}, {Key: "vm.cost", Value: 0.5, Unit: "COUNT"}}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for text, says := range map[string]string{
		"":                           "limits[0] must be a key, a value and a unit",
		"vm.memory 4 GB,":            "limits[1] must be a key, a value and a unit",
		"vm.memory 4GB":              `(was "vm.memory 4GB")`,
		"vm.memory four GB":          `limits[0] (vm.memory) must have a decimal number as its value (was "four")`,
		"vm.memory 0x10 GB":          "decimal number",
		"vm.memory -1 GB":            "decimal number",
		"vm.memory NaN GB":           "decimal number",
		"vm.memory 4 XB":             `(was "XB")`,
		"vm.cpu 1 COUNT, vm.cpu 1 B": "vm.cpu",
	} {
		if l, err := ParseTriples("limits", text); code(err) != model.CodeInvalidEntity || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, %v; want InvalidEntity with %q", text, l, err, says)
		}
	}
}

func FuzzParseTriples(f *testing.F) {
	for _, s := range []string{"", "vm.memory 4 GB, vm.cpu 2 COUNT", "a 0.0000000001 GB", "a 1e9 B", "vm 1 COUNT,,", "a 9007199254740993 B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseTriples("limits", text)
		if err != nil {
			if code(err) != model.CodeInvalidEntity {
				t.Fatalf("%q: %v is not InvalidEntity", text, err)
			}
			return
		}
		s, err := Parse("limits", parsed)
		if err != nil {
			t.Fatalf("%q was accepted as text, refused as lines: %v", text, err)
		}
		if again := set(t, s.String()); !cmp.Equal(s, again, cmp.AllowUnexported(Amount{})) {
			t.Fatalf("%q became %q and then %q", text, s, again)
		}
	})
}

func TestCheckNamesEverythingThatLacks(t *testing.T) {
	limits := set(t, "vm 10 COUNT, vm.cpu 4 COUNT, vm.memory 4 GB")
	usage := set(t, "vm 1 COUNT, vm.cpu 3 COUNT, vm.memory 4 GB, vm.cost 7 COUNT")
	err := Check(limits, usage, set(t, "vm 1 COUNT, vm.cpu 2 COUNT, vm.memory 1 MB, vm.cost 100 COUNT"))
	want := &model.Error{
		Code: model.CodeQuotaError,
		Message: "the quota does not allow it: vm.cpu is short of 1 COUNT (limit 4 COUNT, usage 3 COUNT, request 2 COUNT); " +
			"vm.memory is short of 1 MB (limit 4 GB, usage 4 GB, request 1 MB)",
		Data:   map[string]string{"key": "vm.cpu", "keys": "vm.cpu,vm.memory", "limit": "4 COUNT", "usage": "3 COUNT", "newUsage": "5 COUNT"},
		Action: "ask for less, delete what is not needed, or have the limit raised",
	}
	if d := cmp.Diff(want, model.AsError(err)); d != "" {
		t.Error(d)
	}
	if err := Check(limits, usage, set(t, "vm.cpu 1 COUNT")); err != nil {
		t.Errorf("exactly to the limit: %v", err)
	}
	if err := Check(set(t, "vm.cpu 1 COUNT"), set(t, "vm.cpu 2 COUNT"), set(t, "vm.cpu 0 COUNT, vm 1 COUNT")); err != nil {
		t.Errorf("a limit below usage must not refuse what costs nothing of that key: %v", err)
	}
	err = Check(set(t, "x 4 COUNT"), Set{}, set(t, "x 1 GB"))
	if code(err) != model.CodeInvalidEntity {
		t.Errorf("bytes against a limit in COUNT: %v", err)
	}
	err = Check(Set{}, set(t, "x 8388608 GB"), set(t, "x 1 B"))
	if code(err) != model.CodeInvalidEntity || !strings.Contains(err.Error(), "8388608 GB in all") {
		t.Errorf("usage beyond what can be counted: %v", err)
	}
}

func TestUsageIsInTheUnitOfItsLimit(t *testing.T) {
	limits := set(t, "vm.memory 4 GB")
	usage, err := Reserve(limits, limits.Zero(), set(t, "vm.memory 512 MB, disk 100 KB"))
	if err != nil || usage.String() != "disk 100 KB, vm.memory 0.5 GB" {
		t.Fatalf("%v, %v", usage, err)
	}
	usage, err = Return(limits, usage, set(t, "vm.memory 512 MB, disk 100 KB"))
	if err != nil || usage.String() != "vm.memory 0 GB" {
		t.Fatalf("%v, %v", usage, err)
	}
	usage, err = Return(limits, set(t, "vm.memory 1 GB, x 2 COUNT"), set(t, "vm.memory 2 GB, x 1 COUNT, y 1 B"))
	if !errors.Is(err, ErrReturnedTooMuch) || usage.String() != "vm.memory 0 GB, x 1 COUNT" {
		t.Fatalf("%v, %v", usage, err)
	}
}

// A ledger, stored as lines after every change, is never over its limits, and
// is back at zero once everything is returned.
func TestLedgerBalances(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	limits := set(t, "vm 40 COUNT, vm.cpu 99.9 COUNT, vm.memory 77.7 GB")
	units := []model.Unit{model.UnitGB, model.UnitMB, model.UnitKB}
	usage := limits.Zero()
	var live []Set
	refused := 0
	for range 3_000 {
		if len(live) > 0 && r.IntN(2) == 0 {
			i := r.IntN(len(live))
			rest, err := Return(limits, usage, live[i])
			if err != nil {
				t.Fatal(err)
			}
			usage, live = rest, append(live[:i], live[i+1:]...)
		} else {
			cost := Set{"vm": Count(1), "vm.cpu": {r.Int64N(5000), model.UnitCount},
				"vm.memory": {r.Int64N(8 << 30), units[r.IntN(3)]}, "other": {r.Int64N(1 << 20), model.UnitB}}
			sum, err := Reserve(limits, usage, cost)
			if err == nil {
				usage, live = sum, append(live, cost)
			} else if refused++; code(err) != model.CodeQuotaError {
				t.Fatal(err)
			}
		}
		again, err := Parse("usage", usage.Lines())
		if err != nil || !cmp.Equal(again, usage, cmp.AllowUnexported(Amount{})) {
			t.Fatalf("%v was stored as %v, %v", usage, again, err)
		}
		usage = again
		for k, l := range limits {
			if usage[k].n > l.n {
				t.Fatalf("%s: %s of %s", k, usage[k], l)
			}
		}
	}
	for _, cost := range live {
		var err error
		if usage, err = Return(limits, usage, cost); err != nil {
			t.Fatal(err)
		}
	}
	if !cmp.Equal(usage, limits.Zero(), cmp.AllowUnexported(Amount{})) || refused == 0 {
		t.Fatalf("left over: %v; refused %d", usage, refused)
	}
}

func TestArithmetic(t *testing.T) {
	a, b := set(t, "x 1.5 GB, y 2 COUNT"), set(t, "x 512 MB, z 1 COUNT")
	sum, err := a.Add(b)
	if err != nil || sum.String() != "x 2 GB, y 2 COUNT, z 1 COUNT" || a.String() != "x 1.5 GB, y 2 COUNT" {
		t.Errorf("sum %v, %v; a is now %v", sum, err, a)
	}
	rest, err := sum.Sub(b)
	if err != nil || rest.String() != "x 1.5 GB, y 2 COUNT, z 0 COUNT" {
		t.Errorf("rest %v, %v", rest, err)
	}
	if _, err := a.Sub(sum); code(err) != model.CodeInvalidEntity || !strings.Contains(err.Error(), "x cannot be lowered by 2 GB: it is only 1.5 GB") {
		t.Errorf("below zero: %v", err)
	}
	if _, err := a.Add(set(t, "y 1 B")); code(err) != model.CodeInvalidEntity {
		t.Errorf("bytes and COUNT: %v", err)
	}
	if _, err := a.Sub(set(t, "y 1 B")); code(err) != model.CodeInvalidEntity {
		t.Errorf("bytes and COUNT: %v", err)
	}
	three, err := a.Scale(3)
	if err != nil || three.String() != "x 4.5 GB, y 6 COUNT" {
		t.Errorf("three %v, %v", three, err)
	}
	for _, n := range []int{-1, math.MaxInt} {
		if _, err := a.Scale(n); code(err) != model.CodeInvalidEntity {
			t.Errorf("Scale(%d): %v", n, err)
		}
	}
}

func TestSubdivide(t *testing.T) {
	ticket := set(t, "vm 10 COUNT, vm.memory 1 GB")
	for name, c := range map[string]struct {
		text, want string
		code       model.Code
		says       string
	}{
		"percent":          {"subdivide.percent 33.3 COUNT", "vm 3.33 COUNT, vm.memory 357556027 B", "", ""},
		"whole":            {"subdivide.percent 100 COUNT", "vm 10 COUNT, vm.memory 1073741824 B", "", ""},
		"nothing":          {"subdivide.percent 0 COUNT", "", model.CodeInvalidEntity, "more than 0 and at most 100"},
		"over":             {"subdivide.percent 100.001 COUNT", "", model.CodeInvalidEntity, "more than 0 and at most 100"},
		"both":             {"subdivide.percent 10 COUNT, vm 1 COUNT", "", model.CodeInvalidEntity, "not both"},
		"superset":         {"vm 1 COUNT, vm.memory 1 KB, x 1 COUNT", "vm 1 COUNT, vm.memory 1024 B, x 1 COUNT", "", ""},
		"one key missing":  {"vm 1 COUNT, x 1 COUNT", "", model.CodeInvalidTicketSubdivide, "missing: vm.memory"},
		"two keys missing": {"x 1 COUNT", "", model.CodeInvalidTicketSubdivide, "missing: vm, vm.memory"},
	} {
		got, err := Subdivide("limits", ticket, lines(t, c.text))
		if c.code == "" {
			want := set(t, c.want)
			for k := range want {
				if err != nil || len(got) != len(want) || got[k].n != want[k].n {
					t.Errorf("%s: %v, %v; want %v", name, got, err, want)
				}
			}
		} else if code(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v; want %s with %q", name, got, err, c.code, c.says)
		}
	}
	_, err := Subdivide("limits", ticket, lines(t, "vm 1 COUNT"))
	if model.AsError(err).Data["missingLimit"] != "vm.memory" {
		t.Errorf("data: %v", err)
	}
}

// Parts by percent never add up to more than the whole.
func TestPercentRoundsDown(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 10_000 {
		whole := Set{"x": {r.Int64N(MaxBytes + 1), model.UnitB}}
		left, n := int64(100*thousand), int64(0)
		for left > 0 {
			p := 1 + r.Int64N(left)
			left -= p
			n += whole.Percent(Amount{p, model.UnitCount})["x"].n
		}
		if n > whole["x"].n {
			t.Fatalf("parts of %v add up to %d", whole, n)
		}
	}
}

func TestValidateFlavor(t *testing.T) {
	for _, c := range []struct {
		kind, cost string
		code       model.Code
		says       string
	}{
		{"vm", "vm.cpu 1 COUNT, vm.memory 1 GB, vm.cost 0.1 COUNT", "", ""},
		{"vm", "vm.cpu 1 COUNT", model.CodeInvalidFlavorSpec, "vm.memory, in GB, MB, KB or B"},
		{"vm", "vm.memory 1 GB", model.CodeInvalidFlavorSpec, "vm.cpu, in COUNT"},
		{"vm", "vm.memory 1 GB, vm.cpu 0 COUNT", model.CodeInvalidFlavorSpec, "vm.cpu"},
		{"vm", "vm.memory 1 GB, vm.cpu 1 COUNT, subdivide.percent 1 COUNT", model.CodeInvalidFlavorSpec, "subdivide.percent"},
		{"ephemeral-disk", "ephemeral-disk.cost 1 COUNT", "", ""},
		{"ephemeral-disk", "ephemeral-disk.capacity 1 GB", model.CodeInvalidFlavorSpec, "must not have ephemeral-disk.capacity"},
		{"persistent-disk", "persistent-disk.capacity 1 GB", model.CodeInvalidFlavorSpec, "must not have persistent-disk.capacity"},
		{"persistent-disk", "storage.NFS 1 COUNT", "", ""},
		{"gpu", "vm.cpu 1 COUNT", model.CodeInvalidEntity, `kind must be vm, ephemeral-disk or persistent-disk (was "gpu")`},
	} {
		err := ValidateFlavor(c.kind, lines(t, c.cost))
		if c.code == "" && err != nil || c.code != "" && (code(err) != c.code || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s %q: %v; want %s %q", c.kind, c.cost, err, c.code, c.says)
		}
	}
}

func TestCosts(t *testing.T) {
	vm, err := VMCost("small", lines(t, "vm.cpu 0.5 COUNT, vm.memory 2.5 GB"))
	if err != nil || vm.String() != "vm 1 COUNT, vm.cpu 0.5 COUNT, vm.flavor.small 1 COUNT, vm.memory 2.5 GB" {
		t.Errorf("%v, %v", vm, err)
	}
	// Photon's own flavors name these keys; they must not be charged twice.
	own, err := VMCost("small", lines(t, "vm 2 COUNT, vm.flavor.small 1 COUNT, vm.cpu 1 COUNT, vm.memory 1 GB"))
	if err != nil || own.String() != "vm 2 COUNT, vm.cpu 1 COUNT, vm.flavor.small 1 COUNT, vm.memory 1 GB" {
		t.Errorf("%v, %v", own, err)
	}
	disk, err := DiskCost(model.FlavorEphemeralDisk, "core", nil, 20)
	if err != nil || disk.String() != "ephemeral-disk 1 COUNT, ephemeral-disk.capacity 20 GB, ephemeral-disk.flavor.core 1 COUNT" {
		t.Errorf("%v, %v", disk, err)
	}
	if _, err := DiskCost(model.FlavorEphemeralDisk, "core", nil, -1); code(err) != model.CodeInvalidEntity {
		t.Errorf("negative size: %v", err)
	}
	all, err := vm.Add(disk)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Capacity(all), (model.Capacity{MilliCPU: 500, Memory: 5 << 29, Disk: 20 << 30}); got != want {
		t.Errorf("capacity %+v, want %+v", got, want)
	}
}
