package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
)

// DeleteTrigger ends a trigger: it forgets where it stood, and its subject is
// captured no more if no other trigger needs it. Jobs that it started stay. It
// returns [ErrNotFound] for a trigger that is not there. One in Go comes back
// with the next worker that has it.
func (e *Engine) DeleteTrigger(ctx context.Context, trigger string) error {
	if err := name.Check("trigger", trigger); err != nil {
		return fmt.Errorf("engine: delete trigger: %w", err)
	}
	if err := e.underBootstrap(ctx, func(ctx context.Context) error { return e.deleteTrigger(ctx, trigger) }); err != nil {
		return fmt.Errorf("engine: delete trigger %s: %w", trigger, err)
	}
	return nil
}

func (e *Engine) deleteTrigger(ctx context.Context, trigger string) error {
	key := definitionKey(trigger)
	var known bool
	for {
		definition, err := e.definitions().Get(ctx, key)
		if errors.Is(err, kv.ErrNotFound) {
			break
		}
		known = true
		if err == nil {
			err = e.definitions().Delete(ctx, key, definition.Revision)
		}
		if err != nil && !kv.Unknown(err) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	forgotten, err := e.forget(ctx, trigger)
	if err == nil && !known && !forgotten {
		return fmt.Errorf("%w of that name", errNoTrigger)
	}
	return err
}

// errNoTrigger is ErrNotFound in the words of triggers.
var errNoTrigger error = noTrigger{}

type noTrigger struct{}

func (noTrigger) Error() string        { return "there is no trigger" }
func (noTrigger) Is(target error) bool { return target == ErrNotFound }

// forget ends what a trigger has in JetStream, if it has anything. The caller
// holds the bootstrap lease.
func (e *Engine) forget(ctx context.Context, trigger string) (had bool, err error) {
	js, err := jetstream.New(e.pub.Conn())
	if err != nil {
		return false, err
	}
	c, err := e.cursors().Get(ctx, cursorKey(trigger))
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = e.deleteConsumer(ctx, js, c.Value.Home, trigger)
	}
	if err == nil {
		err = e.deleteCursor(ctx, trigger)
	}
	if err == nil && c.Value.Home == e.ns.CaptureStream() {
		err = e.setCapture(ctx, js)
	}
	return true, err
}

// deleteCursor deletes a cursor at whatever revision it is: a runner that has
// not heard yet may move it.
func (e *Engine) deleteCursor(ctx context.Context, trigger string) error {
	for {
		c, err := e.cursors().Get(ctx, cursorKey(trigger))
		if errors.Is(err, kv.ErrNotFound) {
			return nil
		}
		if err == nil {
			err = e.cursors().Delete(ctx, cursorKey(trigger), c.Revision)
		}
		if err != nil && !kv.Unknown(err) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}
