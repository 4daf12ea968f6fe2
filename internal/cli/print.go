package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"sigs.k8s.io/yaml"
)

// format is how an answer is printed.
type format int

const (
	formatTable format = iota
	formatBare         // -n: tab-separated, no header
	formatJSON
	formatYAML
)

// structured reports whether answers are documents for programs.
func (f format) structured() bool { return f == formatJSON || f == formatYAML }

// column is one thing to print of an object.
type column[T any] struct {
	title string
	value func(T) string
}

// printList prints objects: as a table with their number and, if state isn't
// nil, how many are in which state; as tab-separated lines; or as a document.
func printList[T any](s *session, columns []column[T], items []T, state func(T) string) error {
	switch {
	case s.format.structured():
		if items == nil {
			items = []T{} // [] and not null
		}
		return s.printDocument(items)
	case s.format == formatBare:
		for _, item := range items {
			if err := printRow(s.env.Stdout, columns, item); err != nil {
				return err
			}
		}
		return nil
	}
	if err := printTable(s.env.Stdout, columns, items); err != nil {
		return err
	}
	var order []string
	var count map[string]int
	if state != nil {
		order, count = countStates(items, state)
	}
	if _, err := fmt.Fprintln(s.env.Stdout); err != nil {
		return err
	}
	return printCounts(s.env.Stdout, len(items), order, count)
}

// printSummary prints how many objects there are, and how many are in which state.
func printSummary[T any](s *session, items []T, state func(T) string) error {
	order, count := countStates(items, state)
	switch {
	case s.format.structured():
		return s.printDocument(struct {
			Total  int            `json:"total"`
			States map[string]int `json:"states"`
		}{len(items), count})
	case s.format == formatBare:
		_, err := fmt.Fprintln(s.env.Stdout, len(items))
		return err
	}
	return printCounts(s.env.Stdout, len(items), order, count)
}

// countStates returns the states there are, in order of appearance, and how many objects are in each.
func countStates[T any](items []T, state func(T) string) (order []string, count map[string]int) {
	count = map[string]int{}
	for _, item := range items {
		if count[state(item)]++; count[state(item)] == 1 {
			order = append(order, state(item))
		}
	}
	return order, count
}

func printCounts(out io.Writer, total int, order []string, count map[string]int) error {
	if _, err := fmt.Fprintf(out, "Total: %d\n", total); err != nil {
		return err
	}
	for _, name := range order {
		if _, err := fmt.Fprintf(out, "%s: %d\n", name, count[name]); err != nil {
			return err
		}
	}
	return nil
}

// printObject prints one object: a line per column, one tab-separated line, or
// as a document.
func printObject[T any](s *session, columns []column[T], item T) error {
	switch {
	case s.format.structured():
		return s.printDocument(item)
	case s.format == formatBare:
		return printRow(s.env.Stdout, columns, item)
	}
	w := newTabWriter(s.env.Stdout)
	for _, c := range columns {
		if v := c.value(item); v != "" {
			fmt.Fprintf(w, "%s:\t%s\n", c.title, strings.ReplaceAll(printable(v), "\n", "\n\t"))
		}
	}
	return w.Flush()
}

// printTable prints a header and a line per object.
func printTable[T any](out io.Writer, columns []column[T], items []T) error {
	var table bytes.Buffer
	w := newTabWriter(&table)
	for _, c := range columns {
		fmt.Fprint(w, c.title, "\t")
	}
	fmt.Fprintln(w)
	for _, item := range items {
		for _, c := range columns {
			fmt.Fprint(w, oneLine(c.value(item)), "\t")
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(table.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil { // no padding after the last
			return err
		}
	}
	return nil
}

// printRow prints an object's columns in one line, separated by single tabs.
func printRow[T any](out io.Writer, columns []column[T], item T) error {
	values := make([]string, len(columns))
	for i, c := range columns {
		values[i] = oneLine(c.value(item))
	}
	_, err := fmt.Fprintln(out, strings.Join(values, "\t"))
	return err
}

// oneLine makes one line of a text, for tables: names are checked by the server,
// but messages and descriptions may hold anything.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(printable(text), func(r rune) bool { return r == '\n' || r == '\t' }), " ")
}

// printable drops control characters, with which a log or a message could drive
// the terminal; lines and tabs stay.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, text)
}

func newTabWriter(out io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
}

// printDocument prints v as JSON or YAML.
func (s *session) printDocument(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if s.format == formatYAML {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return err
		}
	}
	_, err = s.env.Stdout.Write(b)
	return err
}
