package store

import (
	"context"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/kv"
)

// Admit gives a job the turn that it waits for, and carries out what it owes then. A
// job that waits for none, since it has its turn or has ended, stays as it is.
//
// The owner decided so by what it has stored, and it may have stood still since: others
// may have carried that out, the job may have ended, and may wait for another turn by
// now. So the lease is looked at between reading the job and writing it: while it is
// held nobody else has decided anything, and what happens to the job afterwards is
// another revision. If the lease is over the error is [kv.ErrLeaseLost].
//
// If the process dies before the write, the next owner admits the job. If it dies
// afterwards, so it does, and finds the job admitted: it pays what that owes.
func (s *Store) Admit(ctx context.Context, id string, owner *kv.Lease) (Entry, error) {
	return s.rule(ctx, id, owner, machine.Admitted{At: s.Clock.Now()})
}

// Decline makes a job skipped that its schedule does not let run, unless it has begun:
// see [Store.Admit] for what is the same. The time is that of the server if ev has none.
// A job that has begun and goes on is refused with a [*machine.MoveError].
func (s *Store) Decline(ctx context.Context, id string, ev machine.Declined, owner *kv.Lease) (Entry, error) {
	if ev.At.IsZero() {
		ev.At = s.Clock.Now()
	}
	return s.rule(ctx, id, owner, ev)
}

// rule applies what the owner has decided about a job of a schedule, unless that is
// so already.
func (s *Store) rule(ctx context.Context, id string, owner *kv.Lease, ev machine.Event) (Entry, error) {
	_, admits := ev.(machine.Admitted)
	entry, err := s.read(ctx, id)
	for try := 0; err == nil; try++ {
		_, refusal := entry.Value.Apply(ev)
		switch {
		case entry.Value.State.Final() || refusal != nil && admits:
			return entry, s.pay(ctx, entry, passing)
		case refusal != nil:
			return entry, refusal
		case !owner.Valid():
			return entry, kv.ErrLeaseLost
		}
		before := entry.Revision
		if entry, err = s.move(ctx, entry, ev); err == nil && entry.Revision == before {
			err = s.pause(ctx, try)
		}
	}
	return entry, err
}

// unwanted returns what is to be stored in the place of the first claim of a job, or
// its dispatch, if it is a tick that its schedule does not let run any more.
//
// If the schedule is changed between that and the claim, the job runs: it began when
// that was not known yet.
func (s *Store) unwanted(ctx context.Context, j machine.Job) (machine.Event, error) {
	if !j.Unchecked() {
		return nil, nil
	}
	declined, err := s.declines(ctx, j)
	if err != nil || declined == nil {
		return nil, err
	}
	ev := *declined
	if ev.At.IsZero() {
		ev.At = s.Clock.Now()
	}
	return ev, nil
}
