package quota

import (
	"maps"
	"math/bits"

	"github.com/pleiad/pleiad/internal/model"
)

// Zero returns the same keys and units with nothing in them: the usage of limits
// of which nothing is used yet.
func (s Set) Zero() Set {
	z := make(Set, len(s))
	for k, a := range s {
		z[k] = Amount{0, a.unit}
	}
	return z
}

// Add returns the sum. Keys both have keep s's unit. The error (InvalidEntity)
// names a key that is bytes in one and COUNT in the other, or whose sum is over
// MaxBytes or MaxCount.
func (s Set) Add(o Set) (Set, error) {
	sum := maps.Clone(s)
	if sum == nil {
		sum = Set{}
	}
	for _, k := range o.Keys() {
		a, err := plus(k, sum[k], o[k])
		if err != nil {
			return nil, err
		}
		sum[k] = a
	}
	return sum, nil
}

// plus adds two amounts of one key; neither is over its maximum, so n cannot overflow.
func plus(key string, a, b Amount) (Amount, error) {
	if !a.sameSort(b) {
		return Amount{}, mismatch(key, a, b)
	}
	if a.unit == "" {
		a.unit = b.unit
	}
	a.n += b.n
	if limit := maxOf(a.unit); a.n > limit {
		return Amount{}, model.Errorf(model.CodeInvalidEntity, "%s must be at most %s in all (was %s)",
			key, Amount{limit, a.unit}, a)
	}
	return a, nil
}

func mismatch(key string, a, b Amount) *model.Error {
	return model.Errorf(model.CodeInvalidEntity, "%s is in %s in one place and in %s in another, which do not measure the same",
		key, a.unit, b.unit)
}

// Sub returns s less o. The error (InvalidEntity) names a key that would fall below zero, or
// is bytes in one and COUNT in the other.
func (s Set) Sub(o Set) (Set, error) {
	rest := maps.Clone(s)
	if rest == nil {
		rest = Set{}
	}
	for _, k := range o.Keys() {
		a, b := rest[k], o[k]
		if !a.sameSort(b) {
			return nil, mismatch(k, a, b)
		}
		if a.n < b.n {
			return nil, model.Errorf(model.CodeInvalidEntity, "%s cannot be lowered by %s: it is only %s", k, b.Humane(), a.Humane())
		}
		if a.unit == "" {
			a.unit = b.unit
		}
		a.n -= b.n
		rest[k] = a
	}
	return rest, nil
}

// Scale returns n times the set, e.g. the cost of n VMs. n must be 0 or more; the
// error (InvalidEntity) names a key that comes to more than MaxBytes or MaxCount.
func (s Set) Scale(n int) (Set, error) {
	if n < 0 {
		return nil, model.Errorf(model.CodeInvalidEntity, "a cost cannot be taken %d times", n)
	}
	out := make(Set, len(s))
	for _, k := range s.Keys() {
		a := s[k]
		high, low := bits.Mul64(uint64(a.n), uint64(n))
		if limit := maxOf(a.unit); high != 0 || low > uint64(limit) {
			return nil, model.Errorf(model.CodeInvalidEntity, "%s must be at most %s in all (was %d times %s)",
				k, Amount{limit, a.unit}, n, a)
		}
		out[k] = Amount{int64(low), a.unit}
	}
	return out, nil
}

// Percent returns so many percent of each amount, rounded down, so that parts
// never add up to more than the whole. percent is 0 to 100 and exact to thousandths.
func (s Set) Percent(percent Amount) Set {
	const whole = 100 * thousand
	out := make(Set, len(s))
	for k, a := range s {
		high, low := bits.Mul64(uint64(a.n), uint64(percent.n))
		n, _ := bits.Div64(high, low, whole)
		out[k] = Amount{int64(n), a.unit}
	}
	return out
}
