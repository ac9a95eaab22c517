package store

import (
	"context"
	"slices"

	"github.com/millrace/millrace/engine/machine"
)

// Cancel makes a job end. For one that nobody runs that is one write, →
// cancelled, and its items and timers are withdrawn. For one that runs it is
// noted in the record, and its node is told: the job ends when the attempt does,
// or when its node is found dead. A job that was cancelled stays as it is; one
// that ended otherwise is a [*machine.MoveError].
//
// If the process dies after the write, the reconciler tells the node, and items
// and timers that are left start nothing.
func (s *Store) Cancel(ctx context.Context, id, cause string, from ...machine.State) (Entry, error) {
	for try := 0; ; try++ {
		entry, err := s.Get(ctx, id)
		if err != nil {
			return Entry{}, err
		}
		if state := entry.Value.State; !stopped(entry.Value) {
			if len(from) > 0 && !slices.Contains(from, state) {
				return entry, &machine.MoveError{ID: id, From: state, Move: machine.Stop}
			}
			entry, err = s.move(ctx, entry, machine.Stopped{Cause: cause, At: s.Clock.Now()})
			if err != nil {
				return entry, err
			}
		}
		if stopped(entry.Value) {
			return entry, s.pay(ctx, entry, passing)
		}
		if err := s.pause(ctx, try); err != nil {
			return Entry{}, err
		}
	}
}

// stopped reports whether somebody wanted j to end and that is stored.
func stopped(j machine.Job) bool {
	return j.State == machine.Cancelled || j.State == machine.Running && j.Cancel != nil
}
