package triggers

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/kv"
)

// ApplyOptions says how to apply a definition.
type ApplyOptions struct {
	// DryRun tells what would change, and what would be refused, and changes
	// nothing.
	DryRun bool
}

// Apply stores a definition, such as a [spec.Trigger], in the place of the one
// of its name. One that is equal to what is stored is left alone. When Apply has
// returned, no event is missed that is published from then on, even if nobody
// runs the trigger yet. A trigger whose source has changed begins anew, with what
// is published from then on.
//
// What is refused leaves nothing behind.
func (t *Triggers) Apply(ctx context.Context, doc spec.Document, opts ApplyOptions) (spec.Applied, error) {
	trigger, ok := doc.(spec.Trigger)
	if !ok {
		return spec.Applied{}, fmt.Errorf("engine: apply %s: this build cannot apply a %s", doc.Key(), doc.Kind())
	}
	r, err := storedRule(trigger, 0)
	if err != nil {
		return spec.Applied{}, err
	}
	js, err := t.pub.JetStream()
	if err != nil {
		return spec.Applied{}, fmt.Errorf("engine: apply trigger %s: %w", trigger.Name, err)
	}
	a := &applying{Triggers: t, js: js, trigger: trigger, rule: r}
	done, err := a.look(ctx)
	if err == nil && !done && !opts.DryRun {
		err = t.underBootstrap(ctx, a.apply)
	}
	if err != nil {
		return spec.Applied{}, fmt.Errorf("engine: apply trigger %s: %w", trigger.Name, err)
	}
	return a.result, nil
}

// applying is one call of Apply.
type applying struct {
	*Triggers
	js      jetstream.JetStream
	trigger spec.Trigger
	rule    Rule
	before  kv.Entry[stored] // revision 0 if there was none
	result  spec.Applied
}

// look reads what is stored, and refuses what cannot be. It reports whether all
// is as it should be.
func (a *applying) look(ctx context.Context) (done bool, err error) {
	a.before, err = a.definitions().Get(ctx, a.trigger.Key())
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return false, err
	}
	a.result = spec.Applied{Key: a.trigger.Key(), Action: spec.Changed, Changes: spec.Diff(a.before.Value.Trigger, a.trigger)}
	switch {
	case a.before.Revision == 0:
		a.result.Action = spec.Created
	case a.before.Value.problem == nil && a.before.Value.Trigger == a.trigger:
		a.result.Action = spec.Unchanged
	}
	a.rule.stored = max(a.before.Revision, 1)
	c, err := a.cursors().Get(ctx, cursorKey(a.rule.Name))
	switch {
	case err == nil && c.Value.Go:
		return false, errInGo
	case err != nil && !errors.Is(err, kv.ErrNotFound):
		return false, err
	}
	if a.result.Action == spec.Unchanged {
		if _, err := a.inPlace(ctx, a.js, a.rule); !errors.Is(err, errElsewhere) {
			return err == nil, err
		}
	}
	return false, a.check(ctx)
}

// check refuses a source that cannot be read.
func (a *applying) check(ctx context.Context) error {
	h, err := a.home(ctx, a.js, a.rule.Source)
	if err == nil && h.captured {
		_, err = a.cover(ctx, a.js, a.rule.Name, a.rule.Source.subject)
	}
	return err
}

// apply stores the definition and puts the trigger in place, or leaves all as it
// was. The caller holds the bootstrap lease.
func (a *applying) apply(ctx context.Context) error {
	if done, err := a.look(ctx); done || err != nil {
		return err
	}
	if a.result.Action != spec.Unchanged {
		revision, err := a.write(ctx, stored{Trigger: a.trigger}, a.before.Revision)
		if err != nil {
			return err
		}
		a.rule.stored = revision
	}
	_, err := a.putInPlace(ctx, a.js, a.rule, a.before.Revision == 0)
	for try := 0; kv.Unknown(err) && try < 3; try++ {
		_, err = a.putInPlace(ctx, a.js, a.rule, false)
	}
	if err != nil && a.result.Action != spec.Unchanged {
		err = errors.Join(err, a.undo(ctx))
	}
	return err
}

// write puts a definition in the place of a revision, 0 for none, and returns
// the new revision.
func (a *applying) write(ctx context.Context, s stored, revision uint64) (uint64, error) {
	key := a.trigger.Key()
	var err error
	if revision == 0 {
		revision, err = a.definitions().Create(ctx, key, s)
	} else {
		revision, err = a.definitions().Update(ctx, key, s, revision)
	}
	if err == nil || !kv.Unknown(err) && !errors.Is(err, kv.ErrExists) {
		return revision, err
	}
	now, readErr := a.definitions().Get(ctx, key)
	if readErr == nil && now.Value.problem == nil && now.Value.Trigger == s.Trigger {
		return now.Revision, nil // it was this write, or one that said the same
	}
	return 0, fmt.Errorf("it may have been changed at the same time, so look and apply it again: %w", err)
}

// undo takes back the definition of a trigger that could not be put in place.
func (a *applying) undo(ctx context.Context) error {
	var err error
	if a.before.Revision == 0 {
		err = a.definitions().Delete(ctx, a.trigger.Key(), a.rule.stored)
	} else {
		_, err = a.write(ctx, a.before.Value, a.rule.stored)
	}
	if err != nil {
		return fmt.Errorf("the definition stays stored: %w", err)
	}
	return nil
}
