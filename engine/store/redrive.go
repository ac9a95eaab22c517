package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/engine/machine"
)

// Redrive makes a job that has ended pending once more, and offers it: its
// failures, limits and time to live are forgotten, its attempts are not. The moment of
// the redrive is in the record, and by it that write is recognised. It takes only a job
// in one of the states given, or in any if there are none: one that ended
// otherwise is a [*machine.MoveError], one that has not ended is refused with
// [ErrNotEnded]. If there is no room for more jobs the error wraps
// [streams.ErrFull].
//
// A job with children waits for them again: those that did not succeed are redriven.
// It is refused while one of them has not ended, so that none is of two minds. A
// child by itself is redriven only while its parent waits, and is refused with
// [ErrParent] otherwise.
//
// If the process dies after the write, the job is pending and not offered: the
// reconciler offers it, and so does whoever redrives it again. A large result of the
// life before is swept then, when the job has ended once more.
func (s *Store) Redrive(ctx context.Context, id string, from ...machine.State) (Entry, error) {
	if err := s.Limits.Check(ctx); err != nil {
		return Entry{}, err
	}
	wish := machine.Redriven{At: s.Clock.Now()}
	var result *machine.Blob // of the life that has ended
	for try, sent := 0, false; ; try++ {
		entry, err := s.Get(ctx, id)
		if err != nil {
			return Entry{}, err
		}
		if !sent || !entry.Value.Redriven.Equal(wish.At) { // else the answer was lost
			if err := s.redrivable(ctx, entry, from); err != nil {
				return entry, err
			}
			if wish.At, err = s.wishFor(ctx, entry.Value, wish.At); err != nil {
				return entry, err
			}
			sent, result = true, entry.Value.ResultBlob
			if entry, err = s.move(ctx, entry, wish); err != nil {
				return entry, err
			}
		}
		if entry.Value.Redriven.Equal(wish.At) {
			if result != nil && !names(entry.Value, result.Name) {
				s.drop(ctx, result)
			}
			return entry, s.pay(ctx, entry, passing)
		}
		if err := s.pause(ctx, try); err != nil {
			return Entry{}, err
		}
	}
}

// redrivable returns why a job cannot be redriven. What one owes that is pending
// is made up for: whoever redrove it may have died.
func (s *Store) redrivable(ctx context.Context, entry Entry, from []machine.State) error {
	j := entry.Value
	switch {
	case !j.Redriven.IsZero() && (j.State == machine.Pending || j.Wait == machine.WaitTurn || j.Fan != nil && !j.State.Final()):
		if err := s.pay(ctx, entry, passing); err != nil {
			return err
		}
	case j.State.Final() && len(from) > 0 && !slices.Contains(from, j.State):
		return &machine.MoveError{ID: entry.Key, From: j.State, Move: machine.Redrive}
	case j.State.Final():
		return s.closedFamily(ctx, j, false)
	}
	return fmt.Errorf("%w: %s is %s", ErrNotEnded, entry.Key, j.State)
}

// wishFor returns the time of the redrive of a job. That of a child is not before its
// parent's, by which it would be redriven once more; if its parent does not wait, it
// is an error.
func (s *Store) wishFor(ctx context.Context, j machine.Job, at time.Time) (time.Time, error) {
	if j.Parent == nil {
		return at, nil
	}
	parent, err := s.Get(ctx, j.Parent.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return at, err
	}
	if err != nil || !j.Parent.Is(parent.Value) || parent.Value.State != machine.Waiting {
		refusal := &machine.MoveError{ID: j.ID, From: j.State, Move: machine.Redrive}
		return at, fmt.Errorf("%w: %s is a part of %s, which has ended: retry that (%w)", ErrParent, j.ID, j.Parent.ID, refusal)
	}
	if at.Before(parent.Value.Redriven) {
		at = parent.Value.Redriven
	}
	return at, nil
}
