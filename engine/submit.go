package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
)

// MaxValue is how many bytes an input or a result may have. One of more than 32 KiB
// is not part of the job's record: it is kept in the object store until the job goes.
const MaxValue = store.MaxValue

// Handle is a job that was submitted. Out is the type of its result.
type Handle[Out any] struct {
	eng *Engine
	// ID is the job's ID, <queue>.<local>.
	ID string
	// Created is false if the job was there before, by its ID or its unique key.
	Created bool
}

// Submit creates a job, or attaches to the one that has its ID, or holds its unique
// key, already.
func (j *Job[In, Out]) Submit(ctx context.Context, eng *Engine, in In, opts ...SubmitOptions) (*Handle[Out], error) {
	input, o, err := j.prepare(in, first(opts))
	if err != nil {
		return nil, err
	}
	return submit[Out](ctx, eng, j.def.kind, input, o)
}

// Submission is one of many jobs to submit at once.
type Submission[In any] struct {
	Input   In
	Options SubmitOptions
}

// SubmitMany creates many jobs with as many writes in flight as the server
// takes, and returns their handles in order. After an error some of the jobs
// may be there; submitting again with the same IDs attaches to those.
func (j *Job[In, Out]) SubmitMany(ctx context.Context, eng *Engine, jobs iter.Seq[Submission[In]]) ([]*Handle[Out], error) {
	var records []machine.Job
	places := placer{eng: eng}
	for s := range jobs {
		input, o, err := j.prepare(s.Input, s.Options)
		if err != nil {
			return nil, fmt.Errorf("job %d: %w", len(records), err)
		}
		if err := eng.readClock(ctx, o); err != nil {
			return nil, err
		}
		record, err := eng.record(j.def.kind, input, o.traceOf(ctx))
		if err == nil {
			err = places.place(ctx, &record, o)
		}
		if err != nil {
			return nil, fmt.Errorf("job %d: %w", len(records), err)
		}
		records = append(records, record)
	}
	there, err := eng.submitMany(ctx, records)
	if err != nil {
		return nil, err
	}
	handles := make([]*Handle[Out], len(records))
	for i, job := range there {
		handles[i] = &Handle[Out]{eng: eng, ID: job.id, Created: job.created}
	}
	return handles, nil
}

// Submit creates a job of a kind that needs not be defined in this program.
func (e *Engine) Submit(ctx context.Context, kind string, input json.RawMessage, opts ...SubmitOptions) (*Handle[json.RawMessage], error) {
	return submit[json.RawMessage](ctx, e, kind, input, first(opts))
}

func (j *Job[In, Out]) prepare(in In, o SubmitOptions) (json.RawMessage, SubmitOptions, error) {
	if j.def.err != nil {
		return nil, o, j.def.err
	}
	if o.Queue == "" {
		o.Queue = j.def.opts.Queue
	}
	if o.Class == "" {
		o.Class = j.def.opts.Class
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = j.def.opts.MaxAttempts
	}
	if o.QueueTimeout == 0 {
		o.QueueTimeout = j.def.opts.QueueTimeout
	}
	if o.Deadline == 0 {
		o.Deadline = j.def.opts.Deadline
	}
	input, err := json.Marshal(in)
	if err != nil {
		return nil, o, fmt.Errorf("engine: submit %s: input does not become JSON: %w", j.def.kind, err)
	}
	return input, o, nil
}

func submit[Out any](ctx context.Context, e *Engine, kind string, input json.RawMessage, o SubmitOptions) (*Handle[Out], error) {
	if err := e.readClock(ctx, o); err != nil {
		return nil, err
	}
	record, err := e.record(kind, input, o.traceOf(ctx))
	if err == nil {
		err = (&placer{eng: e}).place(ctx, &record, o)
	}
	if err != nil {
		return nil, err
	}
	entry, created, err := e.store.Submit(ctx, record)
	if err != nil {
		return nil, fmt.Errorf("engine: submit %s: %w", record.ID, err)
	}
	if err := checkPlain(entry, kind); err != nil {
		return nil, err
	}
	return &Handle[Out]{eng: e, ID: entry.Key, Created: created}, nil
}

// submitted is a job that is there.
type submitted struct {
	id      string
	created bool
}

// submitMany submits records and tells what became of them.
func (e *Engine) submitMany(ctx context.Context, records []machine.Job) ([]submitted, error) {
	there := make([]submitted, len(records))
	failures := e.submitAtOnce(ctx, records)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("engine: submit %d jobs: %w", len(records), context.Cause(ctx))
	}
	away := func(err error) bool { return errors.Is(err, publish.ErrUnsent) }
	nothing := !slices.ContainsFunc(failures, func(err error) bool { return !away(err) })
	var alone errgroup.Group
	alone.SetLimit(aloneAtOnce)
	for i, failure := range failures {
		settle := func() (err error) {
			there[i], err = e.settle(ctx, records[i], failure)
			return err
		}
		switch {
		case failure == nil:
			there[i] = submitted{records[i].ID, true}
		case nothing:
			return nil, fmt.Errorf("engine: submit %s: %w", records[i].ID, failure)
		case e.store.Alone(records[i]):
			alone.Go(settle)
		default:
			if err := settle(); err != nil {
				return nil, errors.Join(err, alone.Wait())
			}
		}
	}
	return there, alone.Wait()
}

// aloneAtOnce is how many jobs are submitted at a time of those that take more than
// one write.
const aloneAtOnce = 32

// settle finishes a submit that failed when it was one of many.
func (e *Engine) settle(ctx context.Context, record machine.Job, failure error) (submitted, error) {
	entry, created, err := e.store.Settle(ctx, record, failure)
	if err != nil {
		return submitted{}, fmt.Errorf("engine: submit %s: %w", record.ID, err)
	}
	if record.Tick != nil { // the schedule may have made jobs of another kind before
		return submitted{entry.Key, created}, nil
	}
	return submitted{entry.Key, created}, checkPlain(entry, record.Kind)
}

// submitAtOnce submits records with everything in flight and returns what went
// wrong with each, if anything did.
func (e *Engine) submitAtOnce(ctx context.Context, records []machine.Job) []error {
	failures := make([]error, len(records))
	var wg sync.WaitGroup
	for i, record := range records {
		if e.pub.Room(ctx) != nil {
			break // with ctx
		}
		wg.Add(1)
		e.store.SubmitAsync(record, func(_ store.Entry, err error) {
			failures[i] = err
			wg.Done()
		})
	}
	wg.Wait()
	return failures
}

// checkKind refuses to attach to a job of another kind.
func checkKind(entry store.Entry, kind string) error {
	if entry.Value.Kind == kind {
		return nil
	}
	return fmt.Errorf("engine: submit %s: there is a job of that ID and of kind %s, not %s: choose another ID", entry.Key, entry.Value.Kind, kind)
}

// checkPlain refuses to attach to a job of another kind, or to one with children, which
// has no handler and another result.
func checkPlain(entry store.Entry, kind string) error {
	if err := checkKind(entry, kind); err != nil || entry.Value.Fan == nil {
		return err
	}
	return fmt.Errorf("engine: submit %s: there is a job of that ID, and it is %s: choose another ID", entry.Key, sortOf(entry.Value))
}

// record returns the record of a new job.
func (e *Engine) record(kind string, input json.RawMessage, o SubmitOptions) (machine.Job, error) {
	if o.ID != "" && o.Unique != (Unique{}) {
		return machine.Job{}, fmt.Errorf("engine: submit %s: there is both an ID and a unique key, which makes one: use one of them", kind)
	}
	if o.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return machine.Job{}, fmt.Errorf("engine: make a job ID: %w", err)
		}
		o.ID = id.String()
	} else if err := name.CheckLocal(o.ID); err != nil {
		return machine.Job{}, err
	}
	return e.made(kind, input, o)
}

// made returns the record of a new job whose local ID may be one that only the
// engine makes.
func (e *Engine) made(kind string, input json.RawMessage, o SubmitOptions) (machine.Job, error) {
	if err := name.CheckKind(kind); err != nil {
		return machine.Job{}, err
	}
	if o.Queue == "" {
		o.Queue = name.Queue(kind)
	}
	if err := name.Check("queue", o.Queue); err != nil {
		return machine.Job{}, err
	}
	if err := o.validate(kind); err != nil {
		return machine.Job{}, err
	}
	if err := checkInput(kind, input); err != nil {
		return machine.Job{}, err
	}
	j := machine.Job{
		ID: name.JobID(o.Queue, o.ID), Kind: kind, State: machine.Pending, Class: stored(o.Class),
		MaxAttempts: o.MaxAttempts, Retry: o.Retry, Input: input, Created: e.clock.Now(), Trace: o.Trace,
	}
	j.Unique = o.Unique.withDefaults().record(j.Created)
	o.plan(&j)
	return j, nil
}

// readClock makes sure that the server's time is known well enough for jobs that
// depend on it.
func (e *Engine) readClock(ctx context.Context, o SubmitOptions) error {
	if o.Delay == 0 && o.At.IsZero() && o.QueueTimeout == 0 && o.Deadline == 0 && o.Unique.Period == 0 {
		return nil
	}
	if err := e.clock.Fresh(ctx); err != nil {
		return fmt.Errorf("engine: submit: read the server's clock: %w", err)
	}
	return nil
}

// checkInput refuses what could not be stored.
func checkInput(kind string, input json.RawMessage) error {
	if len(input) > MaxValue { // before it is read
		return fmt.Errorf("engine: submit %s: input has %d bytes, and up to %d are stored: put it elsewhere and pass a reference", kind, len(input), MaxValue)
	}
	if err := machine.CheckValue(input); err != nil {
		return fmt.Errorf("engine: submit %s: its input cannot be stored: %w", kind, err)
	}
	return nil
}
