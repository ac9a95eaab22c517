package triggers

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
)

// Delete ends a trigger: it forgets where it stood, and its subject is captured
// no more if no other trigger needs it. Jobs that it started stay. It returns
// [store.ErrNotFound] for a trigger that is not there. One in Go comes back
// with the next worker that has it.
func (t *Triggers) Delete(ctx context.Context, trigger string) error {
	if err := name.Check("trigger", trigger); err != nil {
		return fmt.Errorf("engine: delete trigger: %w", err)
	}
	if err := t.underBootstrap(ctx, func(ctx context.Context) error { return t.delete(ctx, trigger) }); err != nil {
		return fmt.Errorf("engine: delete trigger %s: %w", trigger, err)
	}
	return nil
}

func (t *Triggers) delete(ctx context.Context, trigger string) error {
	err := t.definitions().Drop(ctx, definitionKey(trigger), nil)
	known := err == nil
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	forgotten, err := t.forget(ctx, trigger)
	if err == nil && !known && !forgotten {
		return fmt.Errorf("%w of that name", errNoTrigger)
	}
	return err
}

// errNoTrigger is store.ErrNotFound in the words of triggers.
var errNoTrigger error = noTrigger{}

type noTrigger struct{}

func (noTrigger) Error() string        { return "there is no trigger" }
func (noTrigger) Is(target error) bool { return target == store.ErrNotFound }

// forget ends what a trigger has in JetStream, if it has anything. The caller
// holds the bootstrap lease.
func (t *Triggers) forget(ctx context.Context, trigger string) (had bool, err error) {
	js, err := t.pub.JetStream()
	if err != nil {
		return false, err
	}
	c, err := t.cursors().Get(ctx, cursorKey(trigger))
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = t.deleteConsumer(ctx, js, c.Value.Home, trigger)
	}
	if err == nil {
		// At whatever revision: a runner that has not heard yet may move it.
		if err = t.cursors().Drop(ctx, cursorKey(trigger), nil); errors.Is(err, kv.ErrNotFound) {
			err = nil
		}
	}
	if err == nil && c.Value.Home == t.ns.CaptureStream() {
		err = t.setCapture(ctx, js)
	}
	return true, err
}
