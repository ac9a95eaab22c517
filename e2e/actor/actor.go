// Package actor is the program of a user, as scenarios need one: handlers that
// do what the input of a job tells them, and submits that are repeated until the
// answer is certain. It uses the engine as anybody would, and writes what it does
// into a ledger, outside of the system.
//
// Start reading at [Work], which is what a handler is told, and [Actor.Job]; the
// program around them is in package program below.
package actor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/engine"
)

// Actor is one life of a process that writes into a ledger.
type Actor struct {
	// Ledger is where it writes.
	Ledger *ledger.Writer
	// Process is the name of this life, such as w1#2.
	Process string
}

// End is how a run of a handler has ended.
type End struct {
	Outcome string // one of the ledger's, such as [ledger.Succeeded]
	Cause   string // why its context had ended, if it had
	Err     error  // what the handler returns
}

// Start writes that a handler starts with an attempt, and what it was told of a tick.
// It returns the nonce that names this run of it.
func (a *Actor) Start(of engine.Current, told Work) (nonce string, err error) {
	nonce = uuid.NewString()
	e := a.entry(ledger.Start, of, nonce)
	if e.Schedule = told.Schedule; !told.Tick.IsZero() {
		e.Due = told.Tick.UnixNano()
	}
	if err := a.Ledger.Write(e); err != nil {
		return "", fmt.Errorf("actor: start %s: %w", of.ID, err)
	}
	return nonce, nil
}

// End writes that the run of a handler with that nonce has ended.
func (a *Actor) End(of engine.Current, nonce string, end End) error {
	e := a.entry(ledger.End, of, nonce)
	e.Outcome, e.Cause = end.Outcome, end.Cause
	if end.Err != nil {
		e.Error = end.Err.Error()
	}
	if err := a.Ledger.Write(e); err != nil {
		return fmt.Errorf("actor: end %s: %w", of.ID, err)
	}
	return nil
}

// entry is what a handler writes: who runs which attempt of what.
func (a *Actor) entry(what ledger.What, of engine.Current, nonce string) ledger.Entry {
	queue, _, _ := strings.Cut(of.ID, ".")
	e := ledger.Entry{
		What: what, Process: a.Process, Node: of.Node,
		Job: of.ID, Queue: queue, Attempt: of.Attempt, Parent: of.Parent, Part: of.Part, Fence: of.Fence, Nonce: nonce,
	}
	if of.Shard != nil {
		e.Count = of.Shard.Total
	}
	return e
}

// causes are the ledger's words for why the context of a handler ended.
var causes = []struct {
	err  error
	word string
}{
	{engine.ErrLeaseLost, ledger.LeaseLost},
	{engine.ErrCancelled, ledger.Cancelled},
	{engine.ErrTimeout, ledger.Timeout},
	{engine.ErrStopping, ledger.Drained},
}

// cause says why the context of a handler has ended, or nothing if it has not.
func cause(ctx context.Context) string {
	err := context.Cause(ctx)
	if err == nil {
		return ""
	}
	for _, c := range causes {
		if errors.Is(err, c.err) {
			return c.word
		}
	}
	return err.Error()
}
