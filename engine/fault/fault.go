// Package fault is errors as they travel: from the handler that returned one,
// through the job's record, to whoever waits for the job.
//
//	error ──▶ Encode ──▶ machine.Error ──▶ (stored) ──▶ Decode ──▶ error
//
// What arrives has the messages and the shape of what was sent. Errors whose
// type or value is registered, under a name that both processes know, arrive as
// themselves, so that errors.As and errors.Is find them. All others arrive as
// text, and are handed on as they came: a process that does not know a name
// loses nothing.
//
// Start reading at [Encode], then at [Decode] and [Register].
//
// What a record can hold is bounded, so a long chain arrives without its end.
// Methods of errors are code of users: one that panics is an error, too.
package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/engine/machine"
)

// How much of an error a record keeps, in bytes: of each message, of the stack,
// of the JSON of each registered error, and of all causes together.
const (
	maxMessage = 2 << 10
	maxStack   = 4 << 10
	maxData    = 4 << 10
	maxCauses  = 8 << 10
)

// How many causes a record keeps, and how deep the chain may be.
const (
	maxCount = 8
	maxDepth = 8
)

// maxVisits bounds how many errors are looked at: an error may wrap itself.
const maxVisits = 64

// maxChain is how many errors one may wrap: errors.Is looks at all of them.
const maxChain = 10_000

// maxCode is the length of the longest code, in bytes.
const maxCode = 64

// Encode returns what a record keeps of err. Its code is that of the first error
// in the chain, depth first, that has a method Code() string, or is registered:
// the name then. An error that only wraps another one and says nothing of its
// own is left out.
func Encode(err error) machine.Error {
	w := walk{left: maxCauses}
	w.visit(err, 0)
	return w.out
}

// walk is one way through a chain of errors.
type walk struct {
	out    machine.Error
	visits int
	left   int  // bytes
	said   bool // the message is there
	full   bool // no cause is added any more: a chain has no holes
}

// visit notes err, which lies under depth others, and what it wraps.
func (w *walk) visit(err error, depth int) {
	if err == nil || depth > maxDepth || w.visits == maxVisits {
		return
	}
	w.visits++
	var self machine.Cause
	var code string
	if l, ok := err.(*link); ok { //nolint:errorlint // the walk unwraps
		self, code = l.cause, l.code
	} else {
		self.Message, code = text(err)
		self.Type, self.Data = registered.encode(err)
	}
	self.Message = Clip(self.Message, maxMessage)
	wraps := children(err)
	if code == "" && self.Type == "" && len(wraps) == 1 && wraps[0] != nil && w.visits < maxVisits {
		if inner, _ := text(wraps[0]); Clip(inner, maxMessage) == self.Message {
			w.visit(wraps[0], depth)
			return
		}
	}
	w.note(err, self, code, depth)
	for _, e := range wraps {
		w.visit(e, depth+1)
	}
}

// note adds one error to the record. The outermost one has its message in
// another place.
func (w *walk) note(err error, self machine.Cause, code string, depth int) {
	if p, ok := err.(*Panic); ok && w.out.Stack == "" { //nolint:errorlint // the walk unwraps
		w.out.Stack = Clip(p.Stack, maxStack)
	}
	if w.out.Code == "" {
		w.out.Code = Clip(code, maxCode)
	}
	if w.out.Code == "" {
		w.out.Code = self.Type
	}
	if !w.said {
		w.said, w.out.Message = true, self.Message
		self.Message = ""
		if self.Type == "" {
			return
		}
	}
	size := len(self.Message) + len(self.Type) + len(self.Data)
	if w.full = w.full || len(w.out.Causes) == maxCount || size > w.left; w.full {
		return
	}
	w.left -= size
	self.Depth = depth
	w.out.Causes = append(w.out.Causes, self)
}

// text returns the message of an error and its code, if it has one.
func text(err error) (message, code string) {
	defer func() {
		if r := recover(); r != nil {
			message, code = fmt.Sprintf("panic: %v", r), CodePanic
		}
	}()
	if c, ok := err.(interface{ Code() string }); ok {
		code = c.Code()
	}
	return err.Error(), code
}

// children returns what an error wraps, of both forms.
func children(err error) (wraps []error) {
	defer func() {
		if recover() != nil {
			wraps = nil // its message says enough
		}
	}()
	switch e := err.(type) { //nolint:errorlint // the walk unwraps
	case *link:
		return e.wraps
	case interface{ Unwrap() error }:
		return []error{e.Unwrap()}
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	}
	return nil
}

// marshal returns the JSON of an error of a registered type, or nothing if it has
// none or a long one.
func marshal(err error) (data json.RawMessage) {
	defer func() {
		if recover() != nil {
			data = nil // it travels as text
		}
	}()
	data, failed := json.Marshal(err)
	if failed != nil || len(data) > maxData {
		return nil
	}
	return data
}

// Finite returns err, or its text alone if it wraps so many errors that [errors.Is]
// would not come back in time: itself, for instance.
func Finite(err error) error {
	if left := maxChain; counted(err, &left) {
		return err
	}
	message, _ := text(err)
	return errors.New(message)
}

// counted takes the errors of a chain off what is left, and reports whether that was
// enough.
func counted(err error, left *int) bool {
	if err == nil {
		return true
	}
	if *left--; *left < 0 {
		return false
	}
	for _, e := range children(err) {
		if !counted(e, left) {
			return false
		}
	}
	return true
}

// Clip returns s, made valid and cut to limit bytes.
func Clip(s string, limit int) string {
	const more = "…"
	if s = strings.ToValidUTF8(s, "�"); len(s) <= limit {
		return s
	}
	end := limit - len(more)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + more
}
