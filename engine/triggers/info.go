package triggers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
)

// Info is a trigger as users see it.
type Info struct {
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
	// known. Handled is how far the trigger got: every event up to that place
	// in the stream is done with.
	Waiting  *uint64    `json:"waiting"`
	Handled  uint64     `json:"handled"`
	Revision uint64     `json:"revision"` // of the stored definition, or 0
	Changed  *time.Time `json:"changed_at"`
}

// List returns all triggers, by name. It may be some milliseconds behind.
func (t *Triggers) List(ctx context.Context) ([]Info, error) {
	definitions, err := t.definitions().ListStale(ctx, definitionKey("*"))
	if err != nil {
		return nil, fmt.Errorf("engine: list triggers: %w", err)
	}
	cursors, err := t.cursors().ListStale(ctx, cursorKey("*"))
	if err != nil {
		return nil, fmt.Errorf("engine: list triggers: %w", err)
	}
	all := map[string]Info{}
	for _, d := range definitions {
		info := describeStored(d)
		all[info.Name] = info
	}
	for _, c := range cursors {
		trigger := strings.TrimPrefix(c.Key, cursorKey(""))
		info, ok := all[trigger]
		if !ok && !c.Value.Go {
			continue // deleted
		}
		all[trigger] = t.locate(ctx, info, c)
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Info) int { return cmp.Compare(a.Name, b.Name) }), nil
}

// Get returns the trigger of a name. It returns [store.ErrNotFound] for one that
// is not there.
func (t *Triggers) Get(ctx context.Context, trigger string) (Info, error) {
	if err := name.Check("trigger", trigger); err != nil {
		return Info{}, fmt.Errorf("engine: get trigger: %w", err)
	}
	d, err := t.definitions().Get(ctx, definitionKey(trigger))
	c, cursorErr := t.cursors().Get(ctx, cursorKey(trigger))
	var info Info
	switch missing := errors.Is(err, kv.ErrNotFound); {
	case err == nil:
		info = describeStored(d)
	case !missing:
		return Info{}, fmt.Errorf("engine: get trigger: %w", err)
	case cursorErr == nil && !c.Value.Go, errors.Is(cursorErr, kv.ErrNotFound):
		return Info{}, fmt.Errorf("engine: get trigger %s: %w", trigger, errNoTrigger)
	}
	switch {
	case cursorErr == nil:
		info = t.locate(ctx, info, c)
	case !errors.Is(cursorErr, kv.ErrNotFound):
		return Info{}, fmt.Errorf("engine: get trigger: %w", cursorErr)
	}
	return info, nil
}

func describeStored(d kv.Entry[stored]) Info {
	info := Info{
		Name: strings.TrimPrefix(d.Key, definitionKey("")), Declared: "stored",
		Revision: d.Revision,
	}
	if !d.Stored.IsZero() {
		changed := d.Stored.UTC()
		info.Changed = &changed
	}
	if err := usable(d); err != nil {
		info.Problem = oneLine(err.Error())
		return info
	}
	definition := d.Value.Trigger
	info.Definition = &definition
	info.Subject, info.Stream, info.Filter, info.Job = definition.Subject, definition.Stream, definition.Filter, definition.Job
	return info
}

// locate adds what the cursor says.
func (t *Triggers) locate(ctx context.Context, info Info, c kv.Entry[cursor]) Info {
	if c.Value.Go && info.Revision != 0 {
		info.Problem = errInGo.Error()
		return info
	}
	if c.Value.Go {
		info.Name, info.Declared = strings.TrimPrefix(c.Key, cursorKey("")), "go"
		info.Subject, info.Stream, info.Filter, info.Job = c.Value.Subject, c.Value.Stream, c.Value.Filter, c.Value.Job
	}
	info.Source = c.Value.Home
	js, err := t.pub.JetStream()
	if err != nil {
		return info
	}
	consumer, err := js.Consumer(ctx, c.Value.Home, t.ns.TriggerConsumer(info.Name, "", 0).Durable)
	if err == nil {
		state := consumer.CachedInfo()
		waiting := state.NumPending + uint64(state.NumAckPending)
		info.Waiting, info.Handled = &waiting, state.AckFloor.Stream
	}
	return info
}
