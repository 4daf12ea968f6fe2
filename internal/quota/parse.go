package quota

import (
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/pleiad/pleiad/internal/model"
)

// KeyLimit is the longest key, in characters.
const KeyLimit = 127

var (
	keyPattern   = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9._-]*$`)
	valuePattern = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
)

// Set is amounts by key: limits, usage or a cost. A key that is absent costs
// nothing, or has no limit.
type Set map[string]Amount

// Parse checks lines and returns them as a Set. field names the list in errors,
// e.g. "limits". Errors are InvalidEntity and name the line, its key and the limit.
func Parse(field string, lines []model.QuotaLineItem) (Set, error) {
	s := make(Set, len(lines))
	for i, l := range lines {
		where := fmt.Sprintf("%s[%d]", field, i)
		if len(l.Key) == 0 || len(l.Key) > KeyLimit || !keyPattern.MatchString(l.Key) {
			return nil, model.Errorf(model.CodeInvalidEntity,
				"%s.key must be 1 to %d characters, start with a letter and have only letters, digits, dots, hyphens and underscores (was %s)",
				where, KeyLimit, strconv.Quote(clip(l.Key)))
		}
		a, refusal := Of(l.Value, l.Unit)
		if refusal != "" {
			return nil, model.Errorf(model.CodeInvalidEntity, "%s (%s) %s", where, l.Key, refusal)
		}
		if bytes, known := sortOf(l.Key); known && bytes != isBytes(l.Unit) {
			want := "COUNT"
			if bytes {
				want = "GB, MB, KB or B"
			}
			return nil, model.Errorf(model.CodeInvalidEntity, "%s (%s) must have a unit of %s (was %s)", where, l.Key, want, l.Unit)
		}
		if _, twice := s[l.Key]; twice {
			return nil, model.Errorf(model.CodeInvalidEntity, "%s (%s) must not have a key for the second time", where, l.Key)
		}
		s[l.Key] = a
	}
	return s, nil
}

// sortOf says whether a key Pleiad itself charges is in bytes or in COUNT. A limit
// of the other sort could never be used, so it is refused where it is written.
func sortOf(key string) (bytes, known bool) {
	switch key {
	case KeyMemory, model.FlavorEphemeralDisk + capacitySuffix, model.FlavorPersistentDisk + capacitySuffix:
		return true, true
	case KeyCPU, KeyPercent, model.FlavorVM, model.FlavorEphemeralDisk, model.FlavorPersistentDisk:
		return false, true
	}
	for _, kind := range []string{model.FlavorVM, model.FlavorEphemeralDisk, model.FlavorPersistentDisk} {
		if strings.HasPrefix(key, kind+flavorInfix) {
			return false, true
		}
	}
	return false, false
}

// ParseTriples reads the CLI's notation, Photon's: "vm.memory 4 GB, vm.cpu 2 COUNT".
// Values are plain decimals; units may be written small. field names the text in errors,
// e.g. "limits".
func ParseTriples(field, text string) ([]model.QuotaLineItem, error) {
	items := strings.Split(text, ",")
	lines := make([]model.QuotaLineItem, 0, len(items))
	for i, item := range items {
		words := strings.Fields(item)
		if len(words) != 3 {
			return nil, model.Errorf(model.CodeInvalidEntity, "%s[%d] must be a key, a value and a unit (was %s)",
				field, i, strconv.Quote(clip(strings.TrimSpace(item)))).
				Do("write it like \"vm.memory 4 GB, vm.cpu 2 COUNT\"")
		}
		value, err := strconv.ParseFloat(words[1], 64)
		if err != nil || !valuePattern.MatchString(words[1]) {
			return nil, model.Errorf(model.CodeInvalidEntity, "%s[%d] (%s) must have a decimal number as its value (was %s)",
				field, i, clip(words[0]), strconv.Quote(clip(words[1])))
		}
		lines = append(lines, model.QuotaLineItem{Key: words[0], Value: value, Unit: model.Unit(strings.ToUpper(words[2]))})
	}
	if _, err := Parse(field, lines); err != nil {
		return nil, err
	}
	return lines, nil
}

// Keys returns the keys, sorted.
func (s Set) Keys() []string {
	keys := make([]string, 0, len(s))
	for k := range s {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Lines returns the set as lines sorted by key, each in the unit it was given in.
// The result is never nil, so that it is served as [].
func (s Set) Lines() []model.QuotaLineItem {
	lines := make([]model.QuotaLineItem, 0, len(s))
	for _, k := range s.Keys() {
		lines = append(lines, model.QuotaLineItem{Key: k, Value: s[k].Value(), Unit: s[k].unit})
	}
	return lines
}

// String returns the set in the notation of ParseTriples.
func (s Set) String() string {
	parts := make([]string, 0, len(s))
	for _, k := range s.Keys() {
		parts = append(parts, k+" "+s[k].String())
	}
	return strings.Join(parts, ", ")
}
