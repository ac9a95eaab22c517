package fault

import "github.com/millrace/millrace/engine/machine"

// Decode returns the error that e was made of, as far as it is known here: with
// its messages and its shape, and with the registered errors in it.
func Decode(e machine.Error) error {
	causes := e.Causes
	root := &link{code: e.Code, cause: machine.Cause{Message: e.Message}}
	if len(causes) > 0 && causes[0].Depth == 0 {
		root.cause.Type, root.cause.Data = causes[0].Type, causes[0].Data
		causes = causes[1:]
	}
	root.value = registered.decode(root.cause)
	above := []*link{root} // by depth, from the root to the last one
	for _, cause := range causes {
		depth := min(max(cause.Depth, 1), len(above))
		l := &link{cause: cause, value: registered.decode(cause)}
		parent := above[depth-1]
		parent.wraps = append(parent.wraps, l)
		above = append(above[:depth], l)
	}
	return root
}

// link is an error of a chain that has travelled.
type link struct {
	cause machine.Cause
	code  string  // of the outermost one
	value error   // the registered error that it is, or nil
	wraps []error // links
}

// Error returns the message of the error that was sent.
func (l *link) Error() string { return l.cause.Message }

// Code returns the code that was sent.
func (l *link) Code() string { return l.code }

// Unwrap returns the registered error that this is, and what it wraps.
func (l *link) Unwrap() []error {
	if l.value == nil {
		return l.wraps
	}
	return append([]error{l.value}, l.wraps...)
}
