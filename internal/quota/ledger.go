package quota

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/pleiad/pleiad/internal/model"
)

// KeyPercent is the one key that reserves a part of every limit of a ticket instead of amounts.
const KeyPercent = "subdivide.percent"

// ErrReturnedTooMuch is returned, together with a result, by Return.
var ErrReturnedTooMuch = errors.New("more quota returned than was used")

// Check says whether request fits into limits beside usage. Its error is a QuotaError
// that names everything that lacks, not only the first; its data is Photon's limit,
// usage and newUsage of the first key, key, and keys. An InvalidEntity error
// names a key whose units do not go together, or whose usage would be over MaxBytes or MaxCount.
func Check(limits, usage, request Set) error {
	_, err := Reserve(limits, usage, request)
	return err
}

// Reserve returns usage with request in it, each key in its limit's unit, or the
// error of Check.
func Reserve(limits, usage, request Set) (Set, error) {
	sum := maps.Clone(usage)
	if sum == nil {
		sum = make(Set, len(request))
	}
	var lacking []string
	for _, k := range request.Keys() {
		asked := request[k]
		limit, limited := limits[k]
		if limited && !limit.sameSort(asked) {
			return nil, mismatch(k, limit, asked)
		}
		if limited && asked.n > 0 && usage[k].n+asked.n > limit.n {
			lacking = append(lacking, k)
			continue
		}
		a, err := plus(k, usage[k], asked)
		if err != nil {
			return nil, err
		}
		if limited {
			a = a.in(limit.unit)
		}
		sum[k] = a
	}
	if lacking != nil {
		return nil, refuse(limits, usage, request, lacking)
	}
	return sum, nil
}

func refuse(limits, usage, request Set, keys []string) *model.Error {
	parts := make([]string, len(keys))
	for i, k := range keys {
		used := Amount{usage[k].n, limits[k].unit}
		short := Amount{usage[k].n + request[k].n - limits[k].n, limits[k].unit}
		parts[i] = fmt.Sprintf("%s is short of %s (limit %s, usage %s, request %s)",
			k, short.Humane(), limits[k].Humane(), used.Humane(), request[k].Humane())
	}
	first := keys[0]
	limit := limits[first]
	return model.Errorf(model.CodeQuotaError, "the quota does not allow it: %s", strings.Join(parts, "; ")).
		With("key", first).
		With("keys", strings.Join(keys, ",")).
		With("limit", limit.String()).
		With("usage", Amount{usage[first].n, limit.unit}.String()).
		With("newUsage", Amount{usage[first].n + request[first].n, limit.unit}.String()).
		Do("ask for less, delete what is not needed, or have the limit raised")
}

// Return gives back what was reserved. Keys without a limit of which nothing is
// used any more are left out of the result. There always is a result: a key of which more is
// returned than was used becomes zero, and the error, ErrReturnedTooMuch, names it. Deletion goes on
// in spite of it; it is for the log, since a ledger was wrong before.
func Return(limits, usage, amount Set) (Set, error) {
	rest := maps.Clone(usage)
	if rest == nil {
		rest = Set{}
	}
	var wrong []string
	for _, k := range amount.Keys() {
		a, back := rest[k], amount[k]
		if back.n > a.n || !a.sameSort(back) {
			wrong = append(wrong, fmt.Sprintf("%s: %s of %s", k, back, a))
			back.n = a.n
		}
		a.n -= back.n
		limit, limited := limits[k]
		switch {
		case limited:
			rest[k] = a.in(limit.unit)
		case a.n == 0:
			delete(rest, k)
		default:
			rest[k] = a
		}
	}
	if wrong != nil {
		return rest, fmt.Errorf("%w (%s)", ErrReturnedTooMuch, strings.Join(wrong, ", "))
	}
	return rest, nil
}

// Subdivide returns the limits of a project that reserves a part of a ticket. lines is either
// one line of KeyPercent, or limits of its own, which must have every key of
// the ticket's: a key left out would be without limit in the project. That the ticket still has so much is for
// Check to say, with the result as the request. field names lines in errors.
func Subdivide(field string, ticketLimits Set, lines []model.QuotaLineItem) (Set, error) {
	s, err := Parse(field, lines)
	if err != nil {
		return nil, err
	}
	if percent, ok := s[KeyPercent]; ok {
		if len(s) != 1 {
			return nil, model.Errorf(model.CodeInvalidEntity, "%s must be either one line of %s or limits, not both", field, KeyPercent)
		}
		if percent.n == 0 || percent.n > 100*thousand {
			return nil, model.Errorf(model.CodeInvalidEntity, "%s[0] (%s) must be more than 0 and at most 100 COUNT (was %s)", field, KeyPercent, percent)
		}
		return ticketLimits.Percent(percent), nil
	}
	var missing []string
	for _, k := range ticketLimits.Keys() {
		if _, ok := s[k]; !ok {
			missing = append(missing, k)
		}
	}
	if missing != nil {
		list := strings.Join(missing, ", ")
		return nil, model.Errorf(model.CodeInvalidTicketSubdivide,
			"%s must have every key that the resource ticket limits; missing: %s", field, list).
			With("missingLimit", list).
			Do("add the missing keys, or use one line of %s", KeyPercent)
	}
	return s, nil
}
