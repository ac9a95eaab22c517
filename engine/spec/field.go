package spec

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// entry is a field of a definition: its name in files, and where its value goes:
// a *string, an *int, *int64 or *uint64 of 1 or more, a **bool, a *Duration, a
// *time.Time, a value, or the entries of a mapping.
type entry struct {
	name string
	into any
}

// value is what a field has that is read in a way of its own.
type value interface {
	// read takes the value from what the file has.
	read(r *reader, field string, s scalar)
	// text returns the value for people, or "" if there is none.
	text() string
}

// text returns the value of an entry that is no mapping, as it stands in a file,
// or "" if it would not.
func (e entry) text() string {
	switch v := e.into.(type) {
	case *string:
		return *v
	case *int:
		return numberText(int64(*v))
	case *int64:
		return numberText(*v)
	case *uint64:
		return numberText(int64(*v))
	case **bool:
		if *v != nil {
			return strconv.FormatBool(**v)
		}
	case *Duration:
		if *v != 0 {
			return v.String()
		}
	case *time.Time:
		return timeText(*v)
	case value:
		return v.text()
	}
	return ""
}

func numberText(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// timeText returns a time as files have it, or "" for none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// put sets the value of an entry that is no mapping, or says what is wrong with
// what the file has, and what to do.
func (e entry) put(s scalar) (wrong string) {
	if _, null := s.node.(*ast.NullNode); null {
		return s.what
	}
	switch into := e.into.(type) {
	case *string:
		*into = s.text
		return s.what
	case *int:
		return putNumber(into, s)
	case *int64:
		return putNumber(into, s)
	case *uint64:
		return putNumber(into, s)
	case *time.Time:
		t, err := time.Parse(time.RFC3339Nano, s.text)
		if s.what != "" || err != nil {
			return s.shown() + ": use a time such as 2027-01-01T00:00:00Z"
		}
		*into = t.UTC()
		return ""
	case **bool:
		if n, ok := s.node.(*ast.BoolNode); ok {
			*into = &n.Value
			return ""
		}
		return s.shown() + ": use true or false"
	case *Duration:
		d, err := ParseDuration(s.text)
		switch {
		case s.what != "" || err != nil:
			return s.shown() + ": " + errDuration.Error()
		case d <= 0:
			return s.shown() + ": use a longer one, or leave the field out"
		}
		*into = d
		return ""
	}
	panic(fmt.Sprintf("spec: a field of type %T", e.into))
}

// putNumber sets a number to that of the file, which is whole and 1 or more, or
// says what is wrong with it.
func putNumber[T int | int64 | uint64](into *T, s scalar) (wrong string) {
	if n, ok := s.node.(*ast.IntegerNode); ok {
		if v, ok := wholeNumber(n.Value); ok && int64(T(v)) == v {
			*into = T(v)
			return ""
		}
	}
	return s.shown() + ": use a whole number of 1 or more, or leave the field out"
}

// wholeNumber returns the value of a number of YAML, if it is one of 1 or more.
func wholeNumber(value any) (int64, bool) {
	switch v := value.(type) {
	case int64:
		return v, v >= 1
	case uint64:
		return int64(v), v >= 1 && v <= math.MaxInt64
	}
	return 0, false
}

// leaves returns the entries that are no mappings, with the names of the mappings
// that they are in.
func leaves(prefix string, entries []entry) (all []entry) {
	for _, e := range entries {
		if in, ok := e.into.([]entry); ok {
			all = append(all, leaves(prefix+e.name+".", in)...)
			continue
		}
		all = append(all, entry{prefix + e.name, e.into})
	}
	return all
}

// Change is a field that differs between two definitions.
type Change struct {
	Field string `json:"field"`
	Old   string `json:"old"`
	New   string `json:"new"`
}

// Diff returns what differs from old to new, two definitions of one kind, in the
// order in which fields are written. Those without a difference say the same.
func Diff(old, new Document) []Change {
	before, after := leaves("", old.entries()), leaves("", new.entries())
	var changes []Change
	for i, was := range before {
		if is := after[i]; was.text() != is.text() {
			changes = append(changes, Change{was.name, was.text(), is.text()})
		}
	}
	return changes
}
