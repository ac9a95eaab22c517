package store

import (
	"context"
	"errors"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// Submit creates a job, pending, scheduled or skipped, and carries out what it owes. If
// there is a job of that ID already, it returns that one, with created false;
// whoever created it may have died before the job was offered, so that is made
// up for. One that is being removed is waited for. It returns an error that
// wraps [streams.ErrFull] if there is no room for more jobs.
//
// If the process dies after the record was created, the job is there and not
// offered: whoever submits it again offers it. One with children has some of them,
// or none: whoever submits it again makes the others, and so does the owner.
func (s *Store) Submit(ctx context.Context, j machine.Job) (entry Entry, created bool, err error) {
	return s.submit(ctx, j, false)
}

// Settle is Submit for a job whose SubmitAsync has failed with an error. It goes
// on while NATS is away, since the job may be there already.
func (s *Store) Settle(ctx context.Context, j machine.Job, failure error) (entry Entry, created bool, err error) {
	unsent := errors.Is(failure, kv.ErrConflict) || errors.Is(failure, streams.ErrFull) || errors.Is(failure, errAlone)
	return s.submit(ctx, j, !unsent)
}

func (s *Store) submit(ctx context.Context, j machine.Job, lost bool) (Entry, bool, error) {
	var entry Entry
	var created bool
	var err error
	if j.State.Final() {
		s.seal(&j, s.Limits.Shrink(ctx, s.kept(j)))
	}
	if j.Unique != nil {
		entry, created, err = s.submitUnique(ctx, j)
	} else {
		entry, created, err = s.createStowed(ctx, j, lost)
	}
	switch {
	case err != nil:
		return Entry{}, false, err
	case created:
		return entry, true, s.pay(ctx, entry, passing)
	}
	return entry, false, s.attach(ctx, entry)
}

// attach carries out what a job owes that was there before. One that waits and has
// its item owes nothing, since the item comes last: a job to which many attach
// while it waits would have as many items as it was submitted.
func (s *Store) attach(ctx context.Context, entry Entry) error {
	queue, local, err := name.SplitJobID(entry.Key)
	if err != nil {
		return err
	}
	if entry.Value.State == machine.Pending {
		if has, err := s.Work.OfferedAt(ctx, home(entry.Value), queue, local, entry.Revision); err == nil && has {
			return nil
		}
	}
	return s.pay(ctx, entry, passing)
}

// create creates a record or finds the one that is there. If an answer was lost,
// now or before, that one may be the caller's own, or may land later: only
// another create settles that, so it is sent however full storage is.
func (s *Store) create(ctx context.Context, j machine.Job, lost bool) (entry Entry, created bool, err error) {
	for try := 0; ; try++ {
		var full error
		if !lost {
			full = s.Limits.Check(ctx)
		}
		revision, err := uint64(0), full
		if full == nil {
			revision, err = s.jobs.Create(ctx, j.ID, j, keep(j))
		}
		if err == nil {
			s.moved(machine.Job{}, j)
			return Entry{Key: j.ID, Value: j, Revision: revision}, true, nil
		}
		lost = lost || errors.Is(err, publish.ErrUnknown)
		if full == nil && !errors.Is(err, kv.ErrExists) && !kv.Unknown(err) && (!lost || !errors.Is(err, publish.ErrUnsent)) {
			if !lost { // of a write whose answer was lost, a refusal of the next one says nothing
				err = streams.NoRoom(err)
			}
			return Entry{}, false, err
		}
		entry, err := s.Get(ctx, j.ID)
		switch {
		case err == nil && entry.Value.State == machine.Removing:
			err = s.Owe(ctx, entry) // then its ID is free
		case err == nil:
			return entry, lost && entry.Value.Created.Equal(j.Created), nil
		case full != nil:
			return Entry{}, false, full
		}
		if errors.Is(err, ErrUnreadable) || closed(err) {
			return Entry{}, false, err
		}
		// Not there, so the create may still be on its way: the next one
		// settles it. Or nobody answers.
		if err := s.pause(ctx, try); err != nil {
			return Entry{}, false, err
		}
	}
}

// Alone reports whether a job takes more than one write to create, so that
// [Store.SubmitAsync] refuses it: it has a unique key, a large input, or children; or
// whether it is one that few have: it has ended from the start.
func (s *Store) Alone(j machine.Job) bool {
	return j.Unique != nil || j.State.Final() || j.Fan != nil || len(j.Input) > s.inline()
}

var errAlone = errors.New("store: the job is not submitted along with others")

// SubmitAsync is Submit with everything in flight: done is called once, from a
// goroutine that it must not block. If its error is not nil the job may or may
// not be there, or may be another's: see [Store.Settle].
func (s *Store) SubmitAsync(j machine.Job, done func(Entry, error)) {
	if s.Alone(j) {
		done(Entry{Key: j.ID, Value: j}, errAlone)
		return
	}
	if err := s.Limits.Check(context.Background()); err != nil { //nolint:forbidigo // it bounds its time itself, and counts for all callers
		done(Entry{Key: j.ID, Value: j}, err)
		return
	}
	s.jobs.CreateAsync(j.ID, j, func(revision uint64, err error) {
		entry := Entry{Key: j.ID, Value: j, Revision: revision}
		if err != nil {
			done(entry, streams.NoRoom(err))
			return
		}
		s.moved(machine.Job{}, j)
		s.oweAsync(entry, func(err error) { done(entry, err) })
	})
}
