package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pleiad/pleiad/internal/model"
)

// bytesText writes a size in binary units with one decimal, e.g. "412.0 MiB".
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, prefix := float64(n)/unit, 0
	for value >= unit && prefix < len("KMGTPE")-1 {
		value, prefix = value/unit, prefix+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[prefix])
}

// durationText writes a duration for people: "0.4s", "3m12s", "1h02m".
func durationText(d time.Duration) string {
	tenths, seconds := max(0, d.Round(100*time.Millisecond)), d.Round(time.Second)
	switch {
	case tenths < time.Minute:
		return fmt.Sprintf("%.1fs", tenths.Seconds())
	case seconds < time.Hour:
		return fmt.Sprintf("%dm%02ds", seconds/time.Minute, seconds%time.Minute/time.Second)
	default:
		return fmt.Sprintf("%dh%02dm", seconds/time.Hour, seconds%time.Hour/time.Minute)
	}
}

// timeText writes milliseconds since the Unix epoch in UTC; nothing for 0.
func timeText(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05 UTC")
}

// betweenMillis returns the time from start to end, both milliseconds since the Unix epoch.
func betweenMillis(start, end int64) time.Duration {
	return time.Duration(end-start) * time.Millisecond
}

// quotaText writes lines in the notation of --limits and --cost.
func quotaText(lines []model.QuotaLineItem) string {
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = fmt.Sprintf("%s %s %s", l.Key, strconv.FormatFloat(l.Value, 'f', -1, 64), l.Unit)
	}
	return strings.Join(texts, ", ")
}

// usageText writes, for each limit, what is used of it.
func usageText(limits, usage []model.QuotaLineItem) string {
	used := map[string]model.QuotaLineItem{}
	for _, u := range usage {
		used[u.Key] = u
	}
	texts := make([]string, len(limits))
	for i, l := range limits {
		u, ok := used[l.Key]
		if !ok {
			u = model.QuotaLineItem{Unit: l.Unit}
		}
		texts[i] = fmt.Sprintf("%s: %s %s of %s %s", l.Key,
			strconv.FormatFloat(u.Value, 'f', -1, 64), u.Unit,
			strconv.FormatFloat(l.Value, 'f', -1, 64), l.Unit)
	}
	return strings.Join(texts, "\n")
}

// conditionsText writes a line per condition.
func conditionsText(conditions []model.Condition) string {
	texts := make([]string, len(conditions))
	for i, c := range conditions {
		texts[i] = c.Type + "=" + c.Status
		if c.Reason != "" {
			texts[i] += " (" + c.Reason + ")"
		}
		if c.Message != "" {
			texts[i] += ": " + c.Message
		}
	}
	return strings.Join(texts, "\n")
}

// pairsText writes a map in order of its keys.
func pairsText(m map[string]string) string {
	texts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		texts = append(texts, k+"="+m[k])
	}
	return strings.Join(texts, "\n")
}

func groupsText(groups []model.SecurityGroup) string {
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.Name
	}
	return strings.Join(names, ",")
}

// splitList splits a comma-separated flag; empty items are left out.
func splitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// numberText writes a count.
func numberText(n int) string { return strconv.Itoa(n) }

// yesText writes a boolean as Photon's CLI did.
func yesText(b bool) string { return strconv.FormatBool(b) }
