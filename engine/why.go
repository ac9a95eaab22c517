package engine

import (
	"context"
	"fmt"

	"github.com/millrace/millrace/engine/explain"
	"github.com/millrace/millrace/engine/store"
)

// Reason is why a job is where it is, as [Engine.Why] sees it. Its JSON is
// stable, the wording of the text aside.
type Reason = explain.Reason

// The codes of a [Reason].
const (
	WhyEnded    = explain.Ended    // nothing will happen any more
	WhyRemoving = explain.Removing // it has ended, and its record is about to go
	WhyRunning  = explain.Running  // its node runs it
	WhyEnding   = explain.Ending   // its attempt was told to end and has not yet
	WhyOffline  = explain.Offline  // the node that ran it is gone
	WhyDelay    = explain.Delay    // it was submitted for later
	WhyRetry    = explain.Retry    // it failed, and is tried again later
	WhySnooze   = explain.Snooze   // its handler asked to be tried later
	WhyPaused   = explain.Paused   // somebody paused its queue
	WhyLimit    = explain.Limit    // as many jobs of its queue run as may at once
	WhyNoKind   = explain.NoKind   // the workers of its queue have no handler for it
	WhyNoWorker = explain.NoWorker // no worker takes from its queue
	WhyDraining = explain.Draining // those who could take it are draining
	WhyNoOwner  = explain.NoOwner  // it needs the owner, and there is none
	WhyOwner    = explain.Owner    // it needs the owner, which will see to it
	WhyBusy     = explain.Busy     // no worker of its queue has a free slot
	WhyNode     = explain.Node     // it is for a node that is not there
	WhyPlace    = explain.Place    // it is for a node that has some labels, and there is none
	WhyParts    = explain.Parts    // it waits for its parts, or shards
	WhyTurn     = explain.Turn     // as many jobs of its schedule go on as may at once
	WhySoon     = explain.Soon     // it is about to be taken
	WhyNotKnown = explain.NotKnown // its state is one of a later version
)

// Why says why a job is where it is: what runs it, or what it waits for. It
// writes nothing and costs a few requests. It returns [ErrNotFound] for a job
// that is not there.
func (e *Engine) Why(ctx context.Context, id string) (Reason, error) {
	if err := checkID(id); err != nil {
		return Reason{}, err
	}
	reason, err := e.explainer().Why(ctx, id)
	if err != nil {
		return Reason{}, fmt.Errorf("engine: explain job: %w", err)
	}
	return reason, nil
}

// waits returns what a job waits for, if it has been pending for more than a
// moment. It returns nothing to those who may not ask, but soon.
func (e *Engine) waits(ctx context.Context, entry store.Entry) string {
	why, err := e.explainer().Waits(ctx, entry)
	if err != nil {
		e.log.DebugContext(ctx, "why a job waits is not known", "job", entry.Key, "err", err)
	}
	return why
}

func (e *Engine) explainer() *explain.Explainer {
	return explain.New(e.pub, explain.Options{
		Namespace: e.ns, Store: e.store, Work: e.work, Clock: e.clock, Queue: e.definition, Turns: e.turns,
		Declines: e.definitions.Declines, Lease: e.settings.Lease,
	})
}

// turns returns what a schedule knows of its jobs that take turns.
func (e *Engine) turns(ctx context.Context, schedule string) (explain.Turns, error) {
	info, err := e.schedules.Get(ctx, schedule)
	if err != nil {
		return explain.Turns{}, err
	}
	t := explain.Turns{Most: 1, Running: info.Running, Waiting: info.Waiting}
	if def := info.Definition; def != nil {
		t.Most, _ = def.Overlap.Turns()
	}
	return t, nil
}
