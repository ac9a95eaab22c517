package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/attempt"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
)

// JobOptions is what a definition says about its jobs. The zero value of a
// field means its default.
type JobOptions struct {
	// Queue is where the jobs wait. Default: the kind up to its first dot.
	Queue string
	// Class is the class of priority of the jobs: [High], [Normal] or [Low].
	// Default [Normal].
	Class Class
	// MaxAttempts is how many failures end a job. Default 5.
	MaxAttempts int
	// Timeout bounds one attempt. Default: none.
	Timeout time.Duration
	// QueueTimeout is after how long a job fails if no attempt has started, and
	// Deadline after how long it fails if it has not ended, from when it may
	// start. A submit may say otherwise. Default: never.
	QueueTimeout time.Duration
	Deadline     time.Duration
	// Heartbeat ends an attempt, which is a failure then, when its handler has
	// called neither [Current.Heartbeat] nor [Current.Progress] for that long.
	// Default: none.
	Heartbeat time.Duration
	// Retry says how long to wait between attempts. Default: 1s after the
	// first failure, then twice as long each time, up to 1h.
	Retry Retry
	// Middleware is around the handler, the first outermost, within that of
	// the worker.
	Middleware []Middleware
}

// Retry says how long a job waits between a failure and its next attempt.
type Retry = machine.Retry

// Handler runs one attempt of a job. Its input and result are JSON. [JobFrom]
// tells which job it is.
type Handler = attempt.Handler

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
type Middleware = attempt.Middleware

// PanicError is a panic of a handler or of a [Middleware], with its stack.
type PanicError = attempt.PanicError

// Current is the job that a handler runs: which one it is, and what the handler
// can say of it. Its methods may be called at any time and by several goroutines;
// none of them waits for NATS.
type Current = attempt.Current

// Shard is one of the numbered pieces of a sharded job, see [Job.SubmitShards].
type Shard = attempt.Shard

// MaxDetails is how large the details of a heartbeat may be, in bytes of JSON.
const MaxDetails = attempt.MaxDetails

// JobFrom returns the job that the handler with this context runs. It returns
// the zero value elsewhere.
func JobFrom(ctx context.Context) Current { return attempt.From(ctx) }

// Job is a definition: a kind and the handler for it, with the types of its
// input and result. They travel as JSON.
type Job[In, Out any] struct {
	def *definition
}

// Definition is what a [Worker] can be given: a [Job] or a [Trigger].
type Definition interface{ register(*Worker) error }

// definition is a job's definition without its types.
type definition struct {
	kind   string
	opts   JobOptions
	handle Handler
	err    error
}

// NewJob defines the jobs of a kind: a stable name of tokens with dots. With a
// nil handler it only declares the kind, for others to run or for
// [Job.Handle] to bind later. What is wrong with a definition is reported by
// whoever uses it.
func NewJob[In, Out any](kind string, handle func(context.Context, In) (Out, error), opts ...JobOptions) *Job[In, Out] {
	d := &definition{kind: kind, opts: first(opts)}
	if d.opts.Queue == "" {
		d.opts.Queue = name.Queue(kind)
	}
	d.err = d.validate()
	j := &Job[In, Out]{def: d}
	if handle != nil {
		j.Handle(handle)
	}
	return j
}

// Handle binds the handler of a definition that was made without one, for
// definitions that name themselves. It must be called before a worker gets the
// definition.
func (j *Job[In, Out]) Handle(handle func(context.Context, In) (Out, error)) {
	j.def.handle = func(ctx context.Context, input json.RawMessage) (json.RawMessage, error) {
		var in In
		if len(input) > 0 {
			if err := json.Unmarshal(input, &in); err != nil {
				return nil, Fail(fmt.Errorf("input does not fit %T: %w", in, err))
			}
		}
		out, err := handle(ctx, in)
		if err != nil {
			return nil, err
		}
		result, err := json.Marshal(out)
		if err != nil {
			return nil, Fail(fmt.Errorf("result does not become JSON: %w", err))
		}
		return result, nil
	}
}

// Kind returns the name of the handler.
func (j *Job[In, Out]) Kind() string { return j.def.kind }

func (j *Job[In, Out]) register(w *Worker) error {
	if j.def.err != nil {
		return j.def.err
	}
	if j.def.handle == nil {
		return fmt.Errorf("engine: job %s has no handler: bind one by Handle before a worker gets it", j.def.kind)
	}
	return w.add(j.def)
}

func (d *definition) validate() error {
	if err := name.CheckKind(d.kind); err != nil {
		return err
	}
	errs := []error{name.Check("queue", d.opts.Queue)}
	if err := checkClass(d.opts.Class); err != nil {
		errs = append(errs, fmt.Errorf("engine: job %s: %w", d.kind, err))
	}
	if d.opts.MaxAttempts < 0 {
		errs = append(errs, fmt.Errorf("engine: job %s: max attempts is %d: use 1 or more, or 0 for the default", d.kind, d.opts.MaxAttempts))
	}
	if d.opts.Timeout < 0 {
		errs = append(errs, fmt.Errorf("engine: job %s: timeout is %v: use a positive one, or 0 for none", d.kind, d.opts.Timeout))
	}
	if d.opts.QueueTimeout < 0 || d.opts.Deadline < 0 {
		errs = append(errs, fmt.Errorf("engine: job %s: queue timeout is %v, deadline is %v: use positive ones, or 0 for none", d.kind, d.opts.QueueTimeout, d.opts.Deadline))
	}
	if d.opts.Heartbeat < 0 {
		errs = append(errs, fmt.Errorf("engine: job %s: heartbeat is %v: use a positive one, or 0 for none", d.kind, d.opts.Heartbeat))
	}
	if err := d.opts.Retry.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("engine: job %s: %w", d.kind, err))
	}
	return errors.Join(errs...)
}
