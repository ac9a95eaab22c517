package spec

import (
	"fmt"
	"strconv"

	"github.com/goccy/go-yaml/ast"
)

// entry is a field of a definition: its name in files, and where its value goes:
// a *string, an *int of 1 or more, a **bool, a *Duration, or the entries of a
// mapping.
type entry struct {
	name string
	into any
}

// text returns the value of an entry that is no mapping, as it stands in a file,
// or "" if it would not.
func (e entry) text() string {
	switch v := e.into.(type) {
	case *string:
		return *v
	case *int:
		if *v != 0 {
			return strconv.Itoa(*v)
		}
	case **bool:
		if *v != nil {
			return strconv.FormatBool(**v)
		}
	case *Duration:
		if *v != 0 {
			return v.String()
		}
	}
	return ""
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
		if n, ok := s.node.(*ast.IntegerNode); ok {
			if v, ok := wholeNumber(n.Value); ok {
				*into = v
				return ""
			}
		}
		return s.shown() + ": use a whole number of 1 or more, or leave the field out"
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

// wholeNumber returns the value of a number of YAML, if it is one of 1 or more
// that an int holds.
func wholeNumber(value any) (int, bool) {
	switch v := value.(type) {
	case int64:
		return int(v), v >= 1 && int64(int(v)) == v
	case uint64:
		return int(v), v >= 1 && int(v) >= 1 && uint64(int(v)) == v
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
