package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/streams"
)

// Fire does what a timer is for: it offers the item, or applies the event. A
// timer is a hint and the record decides, so one that is stale, or that fires
// twice, does nothing.
//
// If the process dies before the timer is deleted, it fires again.
func (s *Store) Fire(ctx context.Context, t streams.Timer) error {
	purpose := machine.Purpose(t.Purpose)
	switch purpose {
	case machine.Due:
		if t.Item.Node == "" && homeless(t.Item.Record) {
			return nil // it is offered, or its timer set, by whoever finds a place for it
		}
		return s.Work.Offer(ctx, t.Item)
	case machine.Outset:
		return s.dispatch(ctx, name.JobID(t.Queue, t.Local), s.since(t))
	case machine.QueuedTimeout, machine.Deadline:
		return s.timeOut(ctx, name.JobID(t.Queue, t.Local), purpose, s.since(t))
	case machine.Expiry:
		return s.expire(ctx, name.JobID(t.Queue, t.Local), s.since(t))
	}
	return fmt.Errorf("store: fire timer %s: its purpose is unknown: %w", t.Purpose, errNewer)
}

// homeless reports whether an item, which is for no node, is of a job that has no
// place yet: any worker could have it, and none may.
func homeless(record []byte) bool {
	if !bytes.Contains(record, []byte(`"pin":`)) {
		return false
	}
	j, err := decodeBody(record)
	return err == nil && j.Homeless()
}

// errNewer says that a timer is to be left to another process. It fires again
// later.
var errNewer = errors.New("a newer build wrote it, so let a newer build fire it: upgrade this process")

// since returns the time, which is not before the timer's: it was due when it
// fired, whatever the clock was found to be meanwhile.
func (s *Store) since(t streams.Timer) time.Time {
	if now := s.Clock.Now(); now.After(t.At) {
		return now
	}
	return t.At
}

// timeOut ends a job whose time is over, or notes that in the record of one that
// runs.
func (s *Store) timeOut(ctx context.Context, id string, purpose machine.Purpose, now time.Time) error {
	for try := 0; ; try++ {
		entry, err := s.readKnown(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil
		case err != nil:
			return err
		case stopped(entry.Value) || entry.Value.State.Final():
			return s.pay(ctx, entry, passing) // whoever ended it may have died then
		}
		entry, err = s.move(ctx, entry, machine.TimedOut{Purpose: purpose, At: now})
		var refused *machine.MoveError
		switch {
		case errors.As(err, &refused):
			return nil // the limit is another by now
		case errors.Is(err, ErrNotFound):
			return nil // it has ended meanwhile, and was deleted
		case err != nil:
			return err
		}
		if err := s.pause(ctx, try); err != nil {
			return err
		}
	}
}

// expire removes a job whose retention is over. One whose children have not all ended
// stays until then: its timer fires again.
func (s *Store) expire(ctx context.Context, id string, now time.Time) error {
	entry, err := s.readKnown(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	if !entry.Value.State.Final() || now.Before(s.expires(entry.Value)) {
		return nil
	}
	if err := s.closedFamily(ctx, entry.Value, true); err != nil {
		return errors.Join(err, s.recall(ctx, entry))
	}
	if err := s.remove(ctx, entry); !errors.Is(err, errRevived) {
		return err
	}
	return nil
}

// readKnown reads a job for a timer. One that this build does not understand is
// an error.
func (s *Store) readKnown(ctx context.Context, id string) (Entry, error) {
	entry, err := s.read(ctx, id)
	if err == nil && !entry.Value.State.Known() {
		err = fmt.Errorf("store: job %s is %s: %w", id, entry.Value.State, errNewer)
	}
	return entry, err
}
