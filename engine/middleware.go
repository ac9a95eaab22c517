package engine

import (
	"context"
	"encoding/json"
	"runtime/debug"
	"slices"

	"github.com/millrace/millrace/engine/fault"
)

// Handler runs one attempt of a job. Its input and result are JSON. [JobFrom]
// tells which job it is.
type Handler func(ctx context.Context, input json.RawMessage) (json.RawMessage, error)

// Middleware does something around each attempt: it returns a handler that calls
// next, or does not. It is asked once for each kind of a worker. What it returns
// in place of the handler's result or error is what counts, [Fail],
// [RetryAfter] and [Snooze] included.
//
// An attempt goes through them from left to right and back:
//
//	trace ▶ metrics ▶ recovery ▶ the worker's ▶ the job's ▶ recovery ▶ handler
//
// A panic of the handler is a [*PanicError] for those around it; theirs are, for
// the engine.
type Middleware func(next Handler) Handler

// PanicError is a panic of a handler or of a [Middleware], with its stack.
type PanicError = fault.Panic

// wrap puts around a handler what a worker and its job's definition want, the
// first of them outermost.
func wrap(handle Handler, around ...Middleware) Handler {
	for _, m := range slices.Backward(around) {
		handle = m(handle)
	}
	return handle
}

// around returns all that is around the handler of a definition.
func (w *Worker) around(d *definition) []Middleware {
	return slices.Concat(
		[]Middleware{traced, w.measured, recovered},
		w.opts.Middleware,
		d.opts.Middleware,
		[]Middleware{recovered},
	)
}

// recovered makes an error of a panic.
func recovered(next Handler) Handler {
	return func(ctx context.Context, input json.RawMessage) (result json.RawMessage, err error) {
		defer func() {
			if r := recover(); r != nil {
				result, err = nil, &PanicError{Value: r, Stack: string(debug.Stack())}
			}
		}()
		return next(ctx, input)
	}
}
