package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/engine/machine"
)

// Fate is what became of the outcome of an attempt.
type Fate string

// What can become of an outcome.
const (
	Accepted Fate = "accepted" // it is stored, and what it owes was carried out
	Stale    Fate = "stale"    // it was dropped: somebody else has the job
	Ended    Fate = "ended"    // it was dropped: the job has ended, or is gone
)

// Finish stores the outcome of the attempt that runs entry under token, and
// carries out what follows. The outcome is kept until it is decided, however
// often NATS goes away meanwhile: an error means that ctx ended first, or that
// the server refuses the write for good.
//
// The caller acknowledges the delivery if the fate is [Accepted] or [Ended].
// For one that is [Stale] it must not: the server would credit the delivery
// that drives the newer attempt.
//
// If the process dies before the outcome is stored, the job is taken over. If
// it dies afterwards, the item comes back and what is owed is carried out then.
func (s *Store) Finish(ctx context.Context, entry Entry, token string, ev machine.Event) (Entry, Fate, error) {
	for try := 0; ; try++ {
		stored, err := s.move(ctx, entry, ev)
		switch {
		case errors.Is(err, ErrNotFound):
			return stored, Ended, nil
		case err != nil && ctx.Err() != nil:
			return stored, Stale, fmt.Errorf("store: finish job %s: its outcome is not stored: %w", entry.Key, err)
		case err != nil:
			s.log.ErrorContext(ctx, "outcome is refused", "job", entry.Key, "err", err)
		case stored.Value.Held(token):
			entry = stored // the same attempt at a newer revision, or unchanged
		default:
			return s.conclude(ctx, stored, token)
		}
		if err := s.pause(ctx, try); err != nil {
			return entry, Stale, fmt.Errorf("store: finish job %s: its outcome is not stored: %w", entry.Key, err)
		}
	}
}

// conclude tells the fate of the outcome of an attempt that does not hold the
// job any more.
func (s *Store) conclude(ctx context.Context, stored Entry, token string) (Entry, Fate, error) {
	// Who takes a job over ends the attempt before as lost, token and all.
	if a, found := stored.Value.Ended(token); found && a.Outcome != machine.AttemptLost {
		for try := 0; ; try++ {
			err := s.Owe(ctx, stored)
			if err == nil {
				return stored, Accepted, nil
			}
			if ctx.Err() != nil {
				return stored, Accepted, err
			}
			s.log.WarnContext(ctx, "what a job owes is tried again", "job", stored.Key, "err", err)
			if err := s.pause(ctx, try); err != nil {
				return stored, Accepted, err
			}
		}
	}
	if stored.Value.State.Final() {
		return stored, Ended, nil
	}
	return stored, Stale, nil
}
