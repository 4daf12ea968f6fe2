package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// table is what the bench prints.
type table struct {
	head string
	rows []row
}

// row is a figure and what it compares to. Cells that say nothing are empty.
type row struct{ what, figure, comparedTo, ratio, aim string }

func (t *table) add(r row) { t.rows = append(t.rows, r) }

func (t *table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\n\nWHAT\tFIGURE\tCOMPARED TO\tRATIO\tAIM\n", t.head)
	for _, r := range t.rows {
		for _, cell := range []*string{&r.figure, &r.comparedTo, &r.ratio, &r.aim} {
			if *cell == "" {
				*cell = "-"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.what, r.figure, r.comparedTo, r.ratio, r.aim)
	}
	return w.Flush()
}

// ratio is a divided by b, for a table.
func ratio(a, b float64) string {
	switch r := a / b; {
	case b == 0:
		return ""
	case r >= 10:
		return fmt.Sprintf("%.0f", r)
	default:
		return fmt.Sprintf("%.2f", r)
	}
}

// rate is a number of things in a second, with commas.
func rate(perSecond float64) string {
	digits := fmt.Sprintf("%.0f", perSecond)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits + "/s"
}

func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }

// brief is for times that may be well below a second.
func brief(s float64) string { return fmt.Sprintf("%.1f ms", s*1000) }

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/(1<<20)) }

// median of at least one value; of two in the middle the mean.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// percentile is the smallest of at least one value that p percent of them do not exceed.
func percentile(values []time.Duration, p int) time.Duration {
	s := slices.Sorted(slices.Values(values))
	return s[max(0, (len(s)*p+99)/100-1)]
}
