package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// column is how one field of a T stands in a table.
type column[T any] struct {
	title string
	cell  func(T) string
}

// list prints values: a table, or JSON, one a line.
func list[T any](e *env, values []T, columns []column[T]) error {
	if e.Output == "json" {
		for _, v := range values {
			if err := e.json(v); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(e.stdout)
	t.AppendHeader(row(columns, func(c column[T]) string { return c.title }))
	for _, v := range values {
		t.AppendRow(row(columns, func(c column[T]) string { return plain(c.cell(v), widestCell) }))
	}
	t.Render()
	return nil
}

func row[T any](columns []column[T], cell func(column[T]) string) table.Row {
	r := make(table.Row, len(columns))
	for i, c := range columns {
		r[i] = cell(c)
	}
	return r
}

// newTable returns a table without lines, as wide as what is in it.
func newTable(w io.Writer) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	style := table.StyleLight
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	return t
}

// field is a line of what is known about one thing.
type field struct{ name, value string }

// describe prints one value: fields by name, leaving out those that are empty,
// or JSON.
func describe(e *env, value any, fields []field) error {
	if e.Output == "json" {
		return e.json(value)
	}
	width := 0
	for _, f := range fields {
		if f.value != "" {
			width = max(width, len(f.name))
		}
	}
	for _, f := range fields {
		if f.value != "" {
			fmt.Fprintf(e.stdout, "%-*s  %s\n", width, f.name, plain(f.value, widestField))
		}
	}
	return nil
}

// json prints a value as JSON on one line.
func (e *env) json(v any) error {
	enc := json.NewEncoder(e.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// How many characters of a text are shown.
const (
	widestCell  = 60
	widestField = 2000
)

// plain returns s on one line, without anything that a terminal would obey, cut
// to a width.
func plain(s string, width int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return s
}

// clock returns a time as people in this place read it.
func clock(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Local().Format(time.DateTime)
}

// took returns how long something took.
func took(from, to *time.Time) string {
	if from == nil || to == nil {
		return ""
	}
	return length(to.Sub(*from))
}

// length returns a duration with no more digits than are of interest.
func length(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// deref returns what a pointer points to, or nothing.
func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
