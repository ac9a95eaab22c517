package attempt

import (
	"context"
	"encoding/json"
	"errors"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/millrace/millrace/engine/fault"
	"github.com/millrace/millrace/internal/obs"
)

// Handler runs one attempt of a job. Its input and result are JSON. [From]
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

// Wrap puts around a handler all that is to be around it: what the engine does,
// and within that what a worker and the job's definition want, the first of them
// outermost. Without metrics none are taken.
func Wrap(handle Handler, metrics *obs.Metrics, around ...Middleware) Handler {
	all := slices.Concat([]Middleware{traced, measured(metrics), recovered}, around, []Middleware{recovered})
	for _, m := range slices.Backward(all) {
		handle = m(handle)
	}
	return handle
}

// recovered makes an error of a panic, and text of an error that has no end: whoever
// looks for something in it would not come back.
func recovered(next Handler) Handler {
	return func(ctx context.Context, input json.RawMessage) (result json.RawMessage, err error) {
		defer func() {
			if r := recover(); r != nil {
				result, err = nil, &PanicError{Value: r, Stack: string(debug.Stack())}
			}
			err = fault.Finite(err)
		}()
		return next(ctx, input)
	}
}

// traced begins a span for each attempt, in the trace of the job's submitter.
func traced(next Handler) Handler {
	tracer := obs.NewTracer()
	return func(ctx context.Context, input json.RawMessage) (result json.RawMessage, err error) {
		job := From(ctx)
		queue, _, _ := strings.Cut(job.ID, ".")
		ctx, end := tracer.Start(ctx, obs.Attempt{
			Namespace: job.Namespace, Node: job.Node, Queue: queue, Job: job.ID, Kind: job.Kind, Number: job.Attempt,
		})
		defer func() {
			if nap := (*snooze)(nil); errors.As(err, &nap) {
				end(nil)
				return
			}
			end(err)
		}()
		return next(ctx, input)
	}
}

// measured counts and times attempts, if there are metrics.
func measured(metrics *obs.Metrics) Middleware {
	return func(next Handler) Handler {
		if metrics == nil {
			return next
		}
		return func(ctx context.Context, input json.RawMessage) (json.RawMessage, error) {
			job := From(ctx)
			queue, _, _ := strings.Cut(job.ID, ".")
			defer metrics.Run(queue, job.Kind)()
			return next(ctx, input)
		}
	}
}
