package engine

import (
	"context"
	"errors"
)

// Trigger lets events start jobs. [On] makes one; a [Worker] that is given it
// runs it.
type Trigger struct {
	rule goTrigger
	err  error
}

// TriggerOptions says more about a trigger. The zero value of a field means its
// default.
type TriggerOptions[In any] struct {
	// ID returns the local ID of the job for an event, any string: events with
	// the same one start one job between them, for as long as that job is kept.
	// An empty string, and the default, is an ID of the event's own.
	ID func(Message, In) string
}

// On defines a trigger: every event of the source starts a job, whose input
// mapping returns. A nil mapping decodes the event's data as JSON.
//
// If mapping returns [Skip] the event starts no job. Any other error, and a
// panic, is the end of the event: it goes to the list that [Engine.DeadEvents]
// returns. Events arrive at least once, but one that arrives again starts
// nothing, since its job's ID is the same. Mapping may be called by several
// goroutines at once.
//
// The trigger runs in every [Worker] that is given it; between them they handle
// each event once. Its name, one token, is the only one of its kind in the
// namespace, stored triggers included.
func On[In, Out any](name string, source Source, job *Job[In, Out], mapping func(Message) (In, error), opts ...TriggerOptions[In]) *Trigger {
	return &Trigger{err: errors.New("engine: not built yet")}
}

func (t *Trigger) register(*Worker) error { return t.err }

type goTrigger struct{}

func (e *Engine) runTrigger(ctx context.Context, _ goTrigger) error { <-ctx.Done(); return nil }

func (e *Engine) runStoredTriggers(ctx context.Context) error { <-ctx.Done(); return nil }
