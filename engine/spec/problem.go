package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a definition, and what to do about it.
type Problem struct {
	File    string // the file; of a definition that was made in Go, what it is, such as "trigger new-orders"
	Line    int    // counted from 1; 0 if there is no file
	Column  int    // in characters, counted from 1
	Message string // one line
}

// Error returns the problem on one line, as "file:line:column: message".
func (p Problem) Error() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems is everything that is wrong with a file or a definition, in the order
// of lines. It is what [Parse] and [Trigger.Validate] return as error.
type Problems []Problem

// Error returns one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// err returns p in order, or nil if there is no problem.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return p
}

// fault is what is wrong with one field of a definition, wherever the definition
// came from.
type fault struct {
	field   string
	message string
	// Where in the text of the field, as CEL counts: lines from 1, columns from
	// 0. Line 0 is the field as a whole.
	line, column int
}

// unplaced returns faults as the problems of a definition that no file holds.
func unplaced(definition string, faults []fault) error {
	var p Problems
	for _, f := range faults {
		p = append(p, Problem{File: definition, Message: f.message})
	}
	return p.err()
}

// oneLine returns s on one line, with whatever would break it or not be seen as
// a space, cut if it is longer than anybody reads.
func oneLine(s string) string {
	const most = 300
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029
	}), " ")
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// quote returns s in quotes, on one line.
func quote(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		return fmt.Sprintf("%q…", string(r[:most]))
	}
	return fmt.Sprintf("%q", s)
}
