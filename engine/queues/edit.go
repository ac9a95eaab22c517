package queues

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
)

// Apply puts a definition in the place of the one of its name. Whether the queue
// is paused stays as it is, unless the definition says.
//
// If the process dies before the write, nothing has happened; after it, the owner
// gives the queue its consumer. A lost answer is settled by reading; where that
// cannot be, because others wrote meanwhile, the error says so.
func (q *Queues) Apply(ctx context.Context, doc spec.Queue, dryRun bool) (spec.Applied, error) {
	if err := doc.Validate(); err != nil {
		return spec.Applied{}, err
	}
	e := &edit{Queues: q, queue: doc.Name, dryRun: dryRun, replaces: true, change: func(was spec.Queue) spec.Queue {
		next := doc
		if next.Paused == nil {
			next.Paused = was.Paused
		}
		return next
	}}
	err := e.make(ctx)
	if err == nil && !dryRun {
		err = e.follow(ctx)
	}
	if err != nil {
		return spec.Applied{}, fmt.Errorf("engine: apply queue %s: %w", doc.Name, err)
	}
	a := spec.Applied{Key: doc.Key(), Action: spec.Changed, Changes: spec.Diff(e.before, e.after)}
	switch {
	case !e.existed:
		a.Action, a.Changes = spec.Created, nil
	case !e.changed:
		a.Action = spec.Unchanged
	}
	return a, nil
}

// Pause keeps jobs of a queue from starting, as soon as the workers hear of it.
// Those that run go on.
func (q *Queues) Pause(ctx context.Context, queue string) (spec.Queue, error) {
	return q.edit(ctx, "pause", queue, func(was spec.Queue) spec.Queue {
		was.Paused = new(true)
		return was
	})
}

// Resume lets the jobs of a queue start again.
func (q *Queues) Resume(ctx context.Context, queue string) (spec.Queue, error) {
	return q.edit(ctx, "resume", queue, func(was spec.Queue) spec.Queue {
		was.Paused = new(false)
		return was
	})
}

// Limits says what to change of a queue. What is nil stays as it is; 0 is the
// default.
type Limits struct {
	Concurrency                  *int
	Succeeded, Failed, Cancelled *spec.Duration
}

// Limit changes how many jobs of a queue run at once, and how long records stay
// of those that end from now on.
func (q *Queues) Limit(ctx context.Context, queue string, l Limits) (spec.Queue, error) {
	change := func(was spec.Queue) spec.Queue {
		set(&was.Concurrency, l.Concurrency)
		set(&was.Retention.Succeeded, l.Succeeded)
		set(&was.Retention.Failed, l.Failed)
		set(&was.Retention.Cancelled, l.Cancelled)
		return was
	}
	if err := change(spec.Queue{Name: queue}).Validate(); err != nil {
		return spec.Queue{}, fmt.Errorf("engine: limit %w", err)
	}
	return q.edit(ctx, "limit", queue, change)
}

func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

// edit changes a definition and does what follows.
func (q *Queues) edit(ctx context.Context, verb, queue string, change func(spec.Queue) spec.Queue) (spec.Queue, error) {
	if err := name.Check("queue", queue); err != nil {
		return spec.Queue{}, fmt.Errorf("engine: %s: %w", verb, err)
	}
	e := &edit{Queues: q, queue: queue, change: change}
	err := e.make(ctx)
	if err == nil {
		err = e.follow(ctx)
	}
	if err != nil {
		return spec.Queue{}, fmt.Errorf("engine: %s queue %s: %w", verb, queue, err)
	}
	return e.after, nil
}

// Delete forgets what was said about a queue: nothing limits it, it is not
// paused, and records stay as long as is usual. Its jobs stay. It returns
// [ErrNotFound] for a queue that has no definition.
func (q *Queues) Delete(ctx context.Context, queue string) error {
	if err := name.Check("queue", queue); err != nil {
		return fmt.Errorf("engine: delete: %w", err)
	}
	limited := false
	err := q.stored.Drop(ctx, key(queue), func(was kv.Entry[stored]) error {
		limited = limited || was.Value.problem != nil || was.Value.Concurrency > 0
		return nil
	})
	if errors.Is(err, kv.ErrNotFound) {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("engine: delete queue %s: %w", queue, err)
	}
	if !limited {
		return nil
	}
	if err := q.serve(ctx, queue); err != nil {
		return fmt.Errorf("engine: delete queue %s: %w", queue, later(err))
	}
	return nil
}

// edit is one change of a definition.
type edit struct {
	*Queues
	queue    string
	change   func(spec.Queue) spec.Queue // says the same however often it is asked
	replaces bool                        // what was there, also if it cannot be read
	dryRun   bool

	before, after spec.Queue
	existed       bool // something was there
	changed       bool
}

// errDry ends a change that is not to be made.
var errDry = errors.New("dry run")

// make writes the definition. It is one write: a create where nothing is, and
// otherwise a replacement of the revision that change was given.
func (e *edit) make(ctx context.Context) error {
	_, err := e.stored.Put(ctx, key(e.queue), e.next)
	if errors.Is(err, errDry) {
		return nil
	}
	return err
}

// next is what the definition shall be, given what is stored.
func (e *edit) next(was kv.Entry[stored]) (stored, error) {
	e.existed = was.Revision != 0
	now := Definition{Queue: spec.Queue{Name: e.queue}}
	if e.existed {
		now = defined(was)
	}
	if now.Problem != nil && !e.replaces {
		return was.Value, fmt.Errorf("%w: %w", ErrUnreadable, now.Problem)
	}
	e.before = now.Queue
	e.after = e.change(e.before)
	e.changed = !e.existed || now.Problem != nil || len(spec.Diff(e.before, e.after)) > 0
	switch {
	case !e.changed:
		return was.Value, kv.ErrKeep
	case e.dryRun:
		return was.Value, errDry
	}
	return stored{Queue: e.after}, nil
}

// follow does what follows from a definition that is stored: the consumer of the
// queue. It is done also if nothing was changed, since whoever stored it before
// may have died.
func (e *edit) follow(ctx context.Context) error {
	if e.before.Concurrency == e.after.Concurrency && e.after.Concurrency == 0 {
		return nil
	}
	return later(e.serve(ctx, e.queue))
}

// later says what is done and what is not.
func later(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the definition is stored, and the owner will bring the limit into force, which failed here: %w", err)
}
