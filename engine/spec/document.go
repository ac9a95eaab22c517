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

	entries() []entry
}

// readers holds every kind of document and how it is read.
var readers = map[string]func(*reader) Document{
	"Queue":    readQueue,
	"Schedule": readSchedule,
	"Trigger":  readTrigger,
}

// kindNames returns the kinds of documents there are, for people.
func kindNames() string {
	return strings.Join(slices.Sorted(maps.Keys(readers)), ", ")
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
	within string // the mapping whose fields these are, with a dot; empty for the document
}

// read takes the value of every entry from the document, and reports fields that
// no entry has and values that are of another type. A field that is nearly an
// entry is read as that, so that one slip is one problem.
func (r *reader) read(entries []entry) {
	var names []string
	for _, e := range entries {
		names = append(names, e.name)
	}
	r.refuse(names)
	for _, e := range entries {
		s, ok := r.fields[e.name]
		if !ok {
			continue
		}
		switch into := e.into.(type) {
		case []entry:
			r.readMapping(e.name, s, into)
		case value:
			into.read(r, e.name, s)
		default:
			if wrong := e.put(s); wrong != "" {
				r.refuseValue(e.name, s, wrong)
			}
		}
	}
}

// refuseValue reports what is wrong with the value of a field, unless the field has
// a problem already.
func (r *reader) refuseValue(field string, s scalar, wrong string) {
	if !r.blamed[field] {
		r.blame(field, s.at, r.within+field+" is "+wrong)
	}
}

func (r *reader) isBlamed(field string) bool { return r.blamed[field] }

// refuse reports the fields that have none of these names.
func (r *reader) refuse(names []string) {
	for _, name := range slices.Sorted(maps.Keys(r.fields)) {
		if name == "kind" && r.within == "" || slices.Contains(names, name) {
			continue
		}
		s := r.fields[name]
		meant := nearest(name, names)
		if meant == "" {
			all := "the fields are " + strings.Join(names, ", ")
			if r.within == "" {
				all = "the fields are kind, " + strings.Join(names, ", ")
			} else if len(names) == 1 {
				all = "the only field is " + names[0]
			}
			r.blame(name, s.key, "unknown field "+quote(r.within+name)+": "+all)
			continue
		}
		r.blame(name, s.key, "unknown field "+quote(r.within+name)+": did you mean "+meant+"?")
		if _, taken := r.fields[meant]; !taken {
			r.fields[meant], r.blamed[meant] = s, true
		}
	}
}

// readMapping reads the entries of a field that is a mapping.
func (r *reader) readMapping(name string, s scalar, entries []entry) {
	mapping := mappingOf(s.node)
	if mapping == nil {
		var names []string
		for _, e := range entries {
			names = append(names, e.name)
		}
		r.refuseValue(name, s, s.shown()+": give its fields, "+strings.Join(names, ", ")+", each on a line of its own")
		return
	}
	in := &reader{file: r.file, fields: map[string]scalar{}, blamed: map[string]bool{}, within: r.within + name + "."}
	in.addFields(s.src, mapping)
	in.read(entries)
	r.problems = append(r.problems, in.problems...)
	for field, s := range in.fields {
		r.fields[name+"."+field] = s
	}
	for field := range in.blamed {
		r.blamed[name+"."+field] = true
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

// shortestPart is how long a name is that gives away what a longer word means.
const shortestPart = 4

// nearest returns the one of names that word is nearly or else has in it, or "".
func nearest(word string, names []string) string {
	best, least := "", 1+max(1, len(word)/3)
	for _, name := range names {
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d < least {
			best, least = name, d
		}
	}
	if best != "" {
		return best
	}
	for _, name := range names {
		if len(name) >= max(shortestPart, len(best)+1) && strings.Contains(strings.ToLower(word), name) {
			best = name
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
