package engine

import (
	"context"

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

// DeadEvent is an event that a trigger could not map to a job, or whose job
// could not be made. It is kept for 14 days.
type DeadEvent = triggers.DeadEvent

// DeadEvents returns events that could not be mapped, the most recent first: of
// one trigger, or of all for an empty name. A limit of 0 means 100.
func (e *Engine) DeadEvents(ctx context.Context, trigger string, limit int) ([]DeadEvent, error) {
	return e.triggers.Dead(ctx, trigger, limit)
}
