package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/engine/triggers"
)

// Message is an event: a message on a subject that may start jobs.
type Message = triggers.Message

// ErrSkip is returned by the mapping of a [Trigger] for an event that is to
// start no job.
var ErrSkip = triggers.ErrSkip

// Source is where the events of a trigger come from: see [Subject] and
// [Stream].
type Source = triggers.Source

// Subject returns the events on a subject, which may have wildcards. If some
// stream has the subject they come from there; otherwise they are captured, in
// a stream of the namespace, for seven days. While a subject is captured no other
// stream can have it. Nobody tells the publisher whether an event was captured:
// those that must not be lost are better published to a stream.
//
// A trigger sees what is published from the moment on at which its worker first
// ran, also what is published while no worker runs.
func Subject(subject string) Source { return triggers.Subject(subject) }

// Stream returns the events of a stream that exists, on subjects that match
// filter; an empty filter means all of them. The stream must not be a work queue
// or one with interest retention, since reading takes messages away from those.
//
// A trigger sees what is published from the moment on at which its worker first
// ran, also what is published while no worker runs.
func Stream(stream, filter string) Source { return triggers.Stream(stream, filter) }

// Trigger lets events start jobs. [On] makes one; a [Worker] that is given it
// runs it.
type Trigger struct {
	rule triggers.Rule
	err  error // one problem a line
}

// TriggerOptions says more about a trigger. The zero value of a field means its
// default.
type TriggerOptions[In any] struct {
	// ID returns the local ID of the job for an event and its input, any
	// string: events with the same one start one job between them, for as long
	// as that job is kept. An empty string, and the default, is an ID of the
	// event's own.
	ID func(Message, In) string
}

// On defines a trigger: every event of the source starts a job, whose input
// mapping returns. A nil mapping decodes the event's data as JSON.
//
// If mapping returns [ErrSkip] the event starts no job. Any other error, and a
// panic, is the end of the event: it goes to the list that [Engine.DeadEvents]
// returns. Events arrive at least once, but one that arrives again starts
// nothing, since its job's ID is the same.
//
// The trigger runs in every [Worker] that is given it; between them they handle
// each event once. Its name, one token, is the only one of its kind in the
// namespace, stored triggers included. Where several programs have a trigger of
// one name with different sources or jobs, the one that started last has it, so
// that a new version takes over from the old one. A trigger that no program has
// any more goes on collecting events until [Engine.DeleteTrigger].
func On[In, Out any](name string, source Source, job *Job[In, Out], mapping func(Message) (In, error), opts ...TriggerOptions[In]) *Trigger {
	t := &Trigger{rule: triggers.Rule{Name: name, Source: source}}
	t.err = t.rule.Check()
	if job == nil {
		t.err = errors.Join(t.err, errors.New("job is nil: give the job that it starts"))
		return t
	}
	t.err = errors.Join(t.err, job.def.err)
	o := job.def.opts
	t.rule.Kind = job.def.kind
	t.rule.Terms = triggers.Terms{
		Queue: o.Queue, Class: o.Class, MaxAttempts: o.MaxAttempts, QueueTimeout: o.QueueTimeout, Deadline: o.Deadline,
	}
	if mapping == nil {
		mapping = func(m Message) (in In, err error) { return in, m.Decode(&in) }
	}
	t.rule.Mapping = untyped(mapping, first(opts))
	return t
}

// untyped returns a mapping whose inputs are JSON.
func untyped[In any](mapping func(Message) (In, error), o TriggerOptions[In]) func(Message) (triggers.Mapped, error) {
	return func(m Message) (triggers.Mapped, error) {
		in, err := mapping(m)
		if err != nil {
			return triggers.Mapped{}, err
		}
		out := triggers.Mapped{}
		if o.ID != nil {
			out.ID = o.ID(m, in)
		}
		if out.Input, err = json.Marshal(in); err != nil {
			return triggers.Mapped{}, fmt.Errorf("the input of the job does not become JSON: %w", err)
		}
		return out, nil
	}
}

func (t *Trigger) register(w *Worker) error {
	err := t.err
	for _, other := range w.triggers {
		if other.Name == t.rule.Name {
			err = errors.Join(err, errors.New("the worker has two triggers of that name: rename one"))
		}
	}
	w.triggers = append(w.triggers, t.rule)
	if err != nil {
		return fmt.Errorf("engine: trigger %q: %s", t.rule.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}

// started returns the record of a job that an event starts.
func (e *Engine) started(j triggers.Job) (machine.Job, error) {
	return e.made(j.Kind, j.Input, SubmitOptions{
		ID: j.Local, Queue: j.Queue, Class: j.Class, MaxAttempts: j.MaxAttempts,
		QueueTimeout: j.QueueTimeout, Deadline: j.Deadline, Trace: j.Trace,
	})
}

// What Apply did, or would do.
const (
	Created   = spec.Created
	Changed   = spec.Changed
	Unchanged = spec.Unchanged
)

// ApplyOptions says how to apply a definition.
type ApplyOptions = triggers.ApplyOptions

// Applied is what [Engine.Apply] did.
type Applied = spec.Applied

// Apply stores a definition, a [spec.Trigger], a [spec.Queue] or a [Schedule], in the
// place of the one of its name. One that is equal to what is stored is left alone.
// What is refused leaves nothing behind.
//
// When Apply has returned for a trigger, no event is missed that is published from
// then on, even if nobody runs the trigger yet. A trigger whose source has changed
// begins anew, with what is published from then on. A queue or a schedule stays
// paused or not, unless its definition says. A schedule that says which revision it
// is to replace is refused with a [*ConflictError] if another one is there. Of one
// that is new, or ticks at other times than before, what is after the write is due.
func (e *Engine) Apply(ctx context.Context, doc spec.Document, opts ...ApplyOptions) (Applied, error) {
	switch doc := doc.(type) {
	case spec.Queue:
		return e.queues.Apply(ctx, doc, first(opts).DryRun)
	case spec.Schedule:
		return e.schedules.Apply(ctx, doc, first(opts).DryRun)
	}
	return e.triggers.Apply(ctx, doc, first(opts))
}

// TriggerInfo is a trigger as users see it.
type TriggerInfo = triggers.Info

// Triggers returns all triggers, by name. It may be some milliseconds behind.
func (e *Engine) Triggers(ctx context.Context) ([]TriggerInfo, error) {
	return e.triggers.List(ctx)
}

// Trigger returns the trigger of a name. It returns [ErrNotFound] for one that
// is not there.
func (e *Engine) Trigger(ctx context.Context, trigger string) (TriggerInfo, error) {
	return e.triggers.Get(ctx, trigger)
}

// DeleteTrigger ends a trigger: it forgets where it stood, and its subject is
// captured no more if no other trigger needs it. Jobs that it started stay. It
// returns [ErrNotFound] for a trigger that is not there. One in Go comes back
// with the next worker that has it.
func (e *Engine) DeleteTrigger(ctx context.Context, trigger string) error {
	return e.triggers.Delete(ctx, trigger)
}

// DeadEvent is an event that a trigger could not map to a job, or whose job
// could not be made. It is kept for 14 days.
type DeadEvent = triggers.DeadEvent

// DeadEvents returns events that could not be mapped, the most recent first: of
// one trigger, or of all for an empty name. A limit of 0 means 100.
func (e *Engine) DeadEvents(ctx context.Context, trigger string, limit int) ([]DeadEvent, error) {
	return e.triggers.Dead(ctx, trigger, limit)
}
