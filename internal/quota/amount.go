package quota

import (
	"math"
	"strconv"

	"github.com/pleiad/pleiad/internal/model"
)

const (
	// MaxBytes is the largest amount of bytes, 8,388,608 GB.
	MaxBytes int64 = 1 << 53
	// MaxCount is the largest COUNT.
	MaxCount int64 = 1e12
	// thousand is how many parts a COUNT is divided into: a flavor may cost 0.1 or
	// 0.001 COUNT, and model.Capacity counts CPUs in the same thousandths.
	thousand = 1000
)

// Amount is an exact number of bytes or of thousandths of a COUNT, together with
// the unit it is shown in. The zero Amount is zero of no unit and goes with any.
type Amount struct {
	n    int64
	unit model.Unit
}

// byteUnits in falling order.
var byteUnits = []struct {
	unit model.Unit
	size int64
}{{model.UnitGB, 1 << 30}, {model.UnitMB, 1 << 20}, {model.UnitKB, 1 << 10}, {model.UnitB, 1}}

// sizeOf returns the unit's size in bytes or thousandths, 0 for an unknown unit.
func sizeOf(unit model.Unit) int64 {
	if unit == model.UnitCount {
		return thousand
	}
	for _, u := range byteUnits {
		if u.unit == unit {
			return u.size
		}
	}
	return 0
}

// isBytes reports whether the unit is one of bytes.
func isBytes(unit model.Unit) bool { return unit != model.UnitCount && sizeOf(unit) != 0 }

// maxOf returns the largest amount of the unit's sort, in bytes or thousandths.
func maxOf(unit model.Unit) int64 {
	if unit == model.UnitCount {
		return MaxCount * thousand
	}
	return MaxBytes
}

// Bytes returns n bytes, shown in unit. It is meant for amounts the program
// makes itself: n must be 0 to MaxBytes and unit one of bytes.
func Bytes(n int64, unit model.Unit) Amount { return Amount{n, unit} }

// Count returns n COUNT; n must be 0 to MaxCount.
func Count(n int64) Amount { return Amount{n * thousand, model.UnitCount} }

// Of returns a value of a unit, rounded to the nearest byte or thousandth. The
// reason for a refusal is in words that go after the name of a field.
func Of(value float64, unit model.Unit) (a Amount, refusal string) {
	size := sizeOf(unit)
	switch {
	case size == 0:
		return Amount{}, "must have a unit of GB, MB, KB, B or COUNT (was " + strconv.Quote(clip(string(unit))) + ")"
	case math.IsNaN(value) || math.IsInf(value, 0):
		return Amount{}, "must be a finite number"
	case value < 0:
		return Amount{}, "must be 0 or more (was " + number(value) + " " + string(unit) + ")"
	}
	n := math.Round(value * float64(size))
	if limit := maxOf(unit); n > float64(limit) {
		return Amount{}, "must be at most " + Amount{limit, unit}.String() + " (was " +
			strconv.FormatFloat(value, 'g', -1, 64) + " " + string(unit) + ")"
	}
	if n == 0 && value > 0 {
		return Amount{}, "must be 0 or at least " + Amount{1, smallest(unit)}.String() +
			" (was " + strconv.FormatFloat(value, 'g', -1, 64) + " " + string(unit) + ")"
	}
	return Amount{int64(n), unit}, ""
}

func smallest(unit model.Unit) model.Unit {
	if isBytes(unit) {
		return model.UnitB
	}
	return unit
}

// Units returns the amount in bytes, or in thousandths for COUNT.
func (a Amount) Units() int64 { return a.n }

// Unit returns the unit the amount is shown in.
func (a Amount) Unit() model.Unit { return a.unit }

// IsZero reports whether the amount is zero.
func (a Amount) IsZero() bool { return a.n == 0 }

// Value returns the amount in its unit: of all decimals that Of turns into this
// amount, one with the fewest digits, so that 0.1 GB stays 0.1 GB.
func (a Amount) Value() float64 {
	size := sizeOf(a.unit)
	if size == 0 {
		return 0
	}
	if a.n%size == 0 {
		return float64(a.n / size)
	}
	exact := float64(a.n) / float64(size)
	for digits := 1; digits <= 10; digits++ {
		v, err := strconv.ParseFloat(strconv.FormatFloat(exact, 'f', digits, 64), 64)
		if err == nil && int64(math.Round(v*float64(size))) == a.n {
			return v
		}
	}
	return exact
}

// String returns the amount in its unit, e.g. "2.5 GB".
func (a Amount) String() string {
	if a.unit == "" {
		return "0"
	}
	return number(a.Value()) + " " + string(a.unit)
}

// Humane returns the same amount in the largest unit in which it is at least 1
// and has at most two decimals: 4095 MB rather than 3.9990234375 GB.
func (a Amount) Humane() Amount {
	if a.n == 0 || !isBytes(a.unit) {
		return a
	}
	for _, u := range byteUnits {
		// A quarter is the finest step of a power of two that two decimals tell exactly.
		if a.n >= u.size && a.n%max(u.size/4, 1) == 0 {
			return Amount{a.n, u.unit}
		}
	}
	return Amount{a.n, model.UnitB}
}

// in returns the amount shown in unit, where the units measure the same.
func (a Amount) in(unit model.Unit) Amount {
	if unit != "" && a.sameSort(Amount{unit: unit}) {
		a.unit = unit
	}
	return a
}

// sameSort reports whether both are bytes or both counts.
func (a Amount) sameSort(b Amount) bool {
	return a.unit == "" || b.unit == "" || isBytes(a.unit) == isBytes(b.unit)
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// clip shortens what a user sent before it is shown back.
func clip(s string) string {
	const limit = 64
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}
