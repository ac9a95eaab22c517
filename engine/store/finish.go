package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/bug"
)

// Fate is what became of the outcome of an attempt. It is stored if the record has it
// under the attempt's token. A take-over ends the attempt before as lost, which is not
// that.
type Fate string

// What can become of an outcome.
const (
	Accepted  Fate = "accepted"  // it is stored, and what it owes was carried out
	Overtaken Fate = "overtaken" // it is stored, and its item drives a newer attempt by now
	Stale     Fate = "stale"     // it was dropped: somebody else has the job
	Ended     Fate = "ended"     // it was dropped: the job has ended, or is gone
)

// Acknowledge reports whether the delivery that led to the attempt is to be
// acknowledged. If it drives a newer attempt by now it must not be: the server
// would credit the newer delivery.
func (f Fate) Acknowledge() bool { return f == Accepted || f == Ended }

// Finish stores the outcome of the attempt that runs entry under token, and
// carries out what follows. The outcome is kept until it is decided, however
// often NATS goes away meanwhile: an error means that ctx ended first, or that
// the server refuses the write for good.
//
// The caller acknowledges the delivery if [Fate.Acknowledge] says so and there
// is no error.
//
// If the process dies before the outcome is stored, the job is taken over. If
// it dies afterwards, the item comes back and what is owed is carried out then.
//
// A result that is too large for the record is stored before it, as a blob, again
// under another name if that fails. If the process dies before the record names it,
// it is swept; one whose outcome was dropped is deleted at once.
func (s *Store) Finish(ctx context.Context, entry Entry, token string, ev machine.Event) (Entry, Fate, error) {
	stored, fate, err := s.finish(ctx, entry, token, &ev)
	if err == nil {
		s.dropResult(ctx, ev, stored)
	}
	return stored, fate, err
}

func (s *Store) finish(ctx context.Context, entry Entry, token string, ev *machine.Event) (Entry, Fate, error) {
	level := slog.LevelError // once
	for try := 0; ; try++ {
		stored, err := s.storeOutcome(ctx, entry, ev)
		switch {
		case errors.Is(err, ErrNotFound):
			return stored, Ended, nil
		case errors.Is(err, ErrUnreadable), closed(err), err != nil && ctx.Err() != nil:
			return stored, Stale, fmt.Errorf("store: finish job %s: its outcome is not stored: %w", entry.Key, err)
		case errors.Is(err, nats.ErrMaxPayload):
			*ev = s.unstorable(token, "too_large", fmt.Errorf("%w: return less, or raise max_payload", err))
		case errors.Is(err, blobs.ErrDenied):
			*ev = s.unstorable(token, "denied", err)
		case err != nil:
			s.log.Log(ctx, level, "outcome is refused, and tried again", "job", entry.Key, "err", err)
			level = slog.LevelDebug
		case stored.Value.Held(token):
			entry = stored // the same attempt at a newer revision, or unchanged
		default:
			return s.conclude(ctx, entry, stored, token)
		}
		if err := s.pause(ctx, try); err != nil {
			return entry, Stale, fmt.Errorf("store: finish job %s: its outcome is not stored: %w", entry.Key, err)
		}
	}
}

// unstorable ends the attempt under token instead of an outcome that no server
// takes, however often it is tried.
func (s *Store) unstorable(token, code string, err error) machine.Event {
	return machine.Erred{
		Hold: machine.Hold{Token: token, At: s.Clock.Now()}, Final: true,
		Error: machine.Error{Code: code, Message: fmt.Sprintf("the outcome cannot be stored: %v", err)},
	}
}

// conclude carries out what follows from the outcome of the attempt in entry,
// which does not hold the job any more as it is stored, and tells its fate.
//
// If the job goes on it looks once more: the item may have come back meanwhile,
// and drive the next attempt.
func (s *Store) conclude(ctx context.Context, entry, stored Entry, token string) (Entry, Fate, error) {
	fate := fateOf(entry.Value, stored.Value, token)
	if !fate.Acknowledge() || bug.Forget {
		return stored, fate, nil
	}
	err := s.pay(ctx, stored, func(error) bool { return true })
	if err != nil || stored.Value.State.Final() {
		return stored, fate, err
	}
	now, err := s.read(ctx, entry.Key)
	if errors.Is(err, ErrNotFound) {
		return stored, Ended, nil
	}
	return stored, fateOf(entry.Value, now.Value, token), err
}

func fateOf(mine, now machine.Job, token string) Fate {
	attempt, ended := now.Ended(token)
	accepted := ended && attempt.Outcome != machine.AttemptLost // which a take-over writes
	switch {
	case accepted && now.Lease != nil && now.Lease.Driver == mine.Lease.Driver:
		return Overtaken
	case accepted:
		return Accepted
	case now.State.Final():
		return Ended
	}
	return Stale
}
