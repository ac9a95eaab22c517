package engine

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/engine/spec"
)

// What Apply did, or would do.
const (
	Created   = "created"
	Changed   = "changed"
	Unchanged = "unchanged"
)

// ApplyOptions says how to apply a definition.
type ApplyOptions struct {
	// DryRun tells what would change, and what would be refused, and changes
	// nothing.
	DryRun bool
}

// Applied is what [Engine.Apply] did.
type Applied struct {
	// Key is the definition's, such as "trigger.new-orders".
	Key string `json:"key"`
	// Action is Created, Changed or Unchanged.
	Action string `json:"action"`
	// Changes are the fields that differ from before.
	Changes []spec.Change `json:"changes,omitempty"`
}

// Apply stores a definition, such as a [spec.Trigger], in the place of the one
// of its name. One that is equal to what is stored is left alone. When Apply has
// returned, no event is missed that is published from then on, even if nobody
// runs the trigger yet.
//
// What is refused leaves nothing behind.
func (e *Engine) Apply(ctx context.Context, doc spec.Document, opts ...ApplyOptions) (Applied, error) {
	return Applied{}, errors.New("engine: not built yet")
}

// TriggerInfo is a trigger as users see it.
type TriggerInfo struct {
	Name string `json:"name"`
	// Declared is "stored" for a trigger that was applied, and "go" for one
	// that workers bring along.
	Declared string `json:"declared"`
	Subject  string `json:"subject,omitempty"`
	Stream   string `json:"stream,omitempty"`
	Filter   string `json:"filter,omitempty"`
	Job      string `json:"job"` // the kind of its jobs
	// Definition is what was applied. It is nil for a trigger in Go, and for
	// one that cannot be read.
	Definition *spec.Trigger `json:"definition,omitempty"`
	// Problem is why a stored trigger cannot run, or empty.
	Problem string `json:"problem,omitempty"`
	// Source is the stream that its events come from.
	Source string `json:"source,omitempty"`
	// Waiting is how many events have not been handled, and nil if it is not
	// known.
	Waiting  *uint64    `json:"waiting"`
	Revision uint64     `json:"revision"` // of the stored definition
	Changed  *time.Time `json:"changed_at"`
}

// Triggers returns all triggers, by name.
func (e *Engine) Triggers(ctx context.Context) ([]TriggerInfo, error) {
	return nil, errors.New("engine: not built yet")
}

// Trigger returns the trigger of a name. It returns [ErrNotFound] for one that
// is not there.
func (e *Engine) Trigger(ctx context.Context, name string) (TriggerInfo, error) {
	return TriggerInfo{}, errors.New("engine: not built yet")
}

// DeleteTrigger ends a trigger: it forgets where it stood, and its subject is
// captured no more if no other trigger needs it. Jobs that it started stay. It
// returns [ErrNotFound] for a trigger that is not there. One in Go comes back
// with the next worker that has it.
func (e *Engine) DeleteTrigger(ctx context.Context, name string) error {
	return errors.New("engine: not built yet")
}
