package main

import (
	"encoding/json"
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/millrace/millrace/cmd/millrace/show"
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
	t := show.Table(e.stdout)
	t.AppendHeader(row(columns, func(c column[T]) string { return c.title }))
	for _, v := range values {
		t.AppendRow(row(columns, func(c column[T]) string { return show.Plain(c.cell(v), widestCell) }))
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
			fmt.Fprintf(e.stdout, "%-*s  %s\n", width, f.name, show.Plain(f.value, widestField))
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

// deref returns what a pointer points to, or nothing.
func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
