package spec

import (
	"maps"
	"slices"
	"strings"
)

// Document is one definition.
type Document interface {
	// Kind returns the word that stands after "kind:".
	Kind() string
	// Key returns the key of the definition in the config bucket, such as
	// "trigger.new-orders". No two definitions share one.
	Key() string
	// Validate returns [Problems], or nil.
	Validate() error
}

// readers holds every kind of document and how it is read.
var readers = map[string]func(*reader) Document{
	"Trigger": readTrigger,
}

// kindNames returns the kinds of documents there are, for people.
func kindNames() string {
	return strings.Join(slices.Sorted(maps.Keys(readers)), ", ")
}

// entry is a field of a definition: its name in files, and where its text goes.
type entry struct {
	name string
	text *string
}

// reader reads the fields of one document. It collects what is wrong with them.
type reader struct {
	file     string
	at       position // where the document begins
	fields   map[string]scalar
	problems Problems
	// blamed holds the fields that have a problem already: what follows from it
	// is not reported again.
	blamed map[string]bool
}

// read takes the text of every entry from the document, and reports fields that
// no entry has and values that are no text. A field that is nearly an entry is
// read as that, so that one slip is one problem.
func (r *reader) read(entries []entry) {
	var names []string
	for _, e := range entries {
		names = append(names, e.name)
	}
	for _, name := range slices.Sorted(maps.Keys(r.fields)) {
		if name == "kind" || slices.Contains(names, name) {
			continue
		}
		s := r.fields[name]
		meant := nearest(name, names)
		if meant == "" {
			r.blame(name, s.key, "unknown field "+quote(name)+": the fields are kind, "+strings.Join(names, ", "))
			continue
		}
		r.blame(name, s.key, "unknown field "+quote(name)+": did you mean "+meant+"?")
		if _, taken := r.fields[meant]; !taken {
			r.fields[meant], r.blamed[meant] = s, true
		}
	}
	for _, e := range entries {
		s, ok := r.fields[e.name]
		if !ok {
			continue
		}
		if s.what != "" && !r.blamed[e.name] {
			r.blame(e.name, s.at, e.name+" is "+s.what)
		}
		*e.text = s.text
	}
}

// report adds faults as problems, where the fields stand in the file.
func (r *reader) report(faults []fault) {
	for _, f := range faults {
		if r.blamed[f.field] {
			continue
		}
		at := r.at
		if s, ok := r.fields[f.field]; ok {
			at = s.place(f.line, f.column)
		}
		r.problems = append(r.problems, problemAt(r.file, at, f.message))
	}
}

func (r *reader) blame(field string, at position, message string) {
	r.blamed[field] = true
	r.problems = append(r.problems, problemAt(r.file, at, message))
}

func problemAt(file string, at position, message string) Problem {
	return Problem{File: file, Line: at.line, Column: at.column, Message: message}
}

// nearest returns the one of names that word is nearly, or "".
func nearest(word string, names []string) string {
	best, least := "", 1+max(1, len(word)/3)
	for _, name := range names {
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance returns how many bytes have to be changed, added, dropped or swapped
// with the next to make b of a.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
