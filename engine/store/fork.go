package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/direct"
	"github.com/millrace/millrace/streams"
)

// birth is a child that is to be made.
type birth struct {
	child machine.Job
	entry Entry
	made  bool // by this process, now
	err   error
}

// Fork makes some of the children of a waiting job: it creates those that are
// missing and offers them to their nodes, and redrives those that are to run once
// more. The others stay as they are; one that waits and has no item is offered
// again. Everything is in flight at once, and what failed is settled one by one.
//
// Children are made however full storage is: their parent was admitted with them,
// and cannot end without them. The error wraps [streams.ErrFull] if the server has
// no room left.
//
// Any number of processes may do so at once, at any time, and die at any line:
//
//   - A child is created under an ID that follows from its parent's, so that one
//     of them creates it, and the others find it. A lost answer is settled by
//     another create. What is not made is made by the owner, which counts.
//   - A child that was created and not offered is offered by whoever comes next:
//     the reconciler, or another Fork.
//   - Whoever stood still and goes on when the parent has ended, or is gone, makes
//     children that nobody waits for: each reads its parent when it is claimed, so
//     none of them starts. The parent is read once more at the end, and what was
//     made too late is taken back. If the process dies before, [Store.Heal] does
//     that.
//   - A child of an earlier life of the parent's ID may be in the way. It is
//     cancelled and removed, if the parent that is there is the caller's: if not,
//     it is the caller that comes too late.
func (s *Store) Fork(ctx context.Context, parent Entry, shares []machine.Share, which []int) error {
	births, err := s.bear(ctx, parent.Value, shares, which)
	if err == nil {
		settling, ctx := errgroup.WithContext(ctx)
		settling.SetLimit(atOnce)
		for n := range births {
			if b := &births[n]; b.err != nil {
				settling.Go(func() error { return s.settle(ctx, parent.Value, b) })
			}
		}
		err = settling.Wait()
	}
	err = errors.Join(err, s.retract(ctx, parent.Value, births))
	if err != nil {
		return fmt.Errorf("store: make the children of job %s: %w", parent.Key, err)
	}
	return nil
}

// bear creates and offers children, with everything in flight. It returns what
// became of each of them.
func (s *Store) bear(ctx context.Context, parent machine.Job, shares []machine.Share, which []int) ([]birth, error) {
	births := make([]birth, len(which))
	var flight sync.WaitGroup
	defer flight.Wait()
	for n, i := range which {
		if err := s.pub.Room(ctx); err != nil {
			return births, err
		}
		b := &births[n]
		b.child = s.child(parent, shares, i)
		flight.Add(1)
		s.jobs.CreateAsync(b.child.ID, b.child, func(revision uint64, err error) {
			if err != nil {
				b.err = err
				flight.Done()
				return
			}
			b.made, b.entry = true, Entry{Key: b.child.ID, Value: b.child, Revision: revision}
			s.moved(machine.Job{}, b.child)
			s.oweAsync(b.entry, func(err error) {
				b.err = err
				flight.Done()
			})
		})
	}
	return births, nil
}

// settle makes a child of which it is not known whether it is there, or whether
// what it owes was carried out.
func (s *Store) settle(ctx context.Context, parent machine.Job, b *birth) error {
	for try := 0; ; try++ {
		entry, created, err := s.create(ctx, b.child, true)
		switch {
		case err != nil:
			return streams.NoRoom(err)
		case entry.Value.ChildOf(parent) && created && !entry.Value.RunsAgain(parent): // not one of the same moment that has ended
			b.made, b.entry = true, entry
			return s.pay(ctx, entry, passing)
		case entry.Value.ChildOf(parent):
			return s.resume(ctx, parent, entry, b)
		}
		waits, err := s.awaited(ctx, b.child)
		if err != nil || !waits {
			return err // it is this family that is of the past
		}
		if err := s.makeWay(ctx, entry); err != nil {
			return err
		}
		if err := s.pause(ctx, try); err != nil {
			return err
		}
	}
}

// resume carries on with a child that is there: it is redriven if its parent was
// since it ended, and offered if it waits for that.
func (s *Store) resume(ctx context.Context, parent machine.Job, entry Entry, b *birth) error {
	for try := 0; entry.Value.RunsAgain(parent); try++ {
		if entry.Value.State == machine.Removing {
			return fmt.Errorf("%w: its part %s is being removed", ErrNotEnded, entry.Value.Parent.Part)
		}
		var err error
		if entry, err = s.move(ctx, entry, machine.Redriven{At: parent.Redriven}); err != nil {
			return err
		}
		if b.made = !entry.Value.RunsAgain(parent); b.made {
			b.entry = entry
			break
		}
		if err := s.pause(ctx, try); err != nil {
			return err
		}
	}
	if entry.Value.State.Final() {
		return nil
	}
	return s.attach(ctx, entry)
}

// makeWay removes a child of an earlier life of its parent's ID.
func (s *Store) makeWay(ctx context.Context, entry Entry) error {
	if entry.Value.Parent == nil {
		return fmt.Errorf("store: job %s is not one that the engine made: delete it", entry.Key)
	}
	entry, err := s.stopChild(ctx, entry, 0)
	switch {
	case err != nil:
		return passOver(err)
	case !entry.Value.State.Final():
		return fmt.Errorf("%w: part %s of an earlier job with this ID is %s: wait until it has ended", ErrNotEnded, entry.Value.Parent.Part, entry.Value.State)
	}
	return s.remove(ctx, entry)
}

// retract takes back the children that were made although their parent has ended,
// or is gone.
func (s *Store) retract(ctx context.Context, parent machine.Job, births []birth) error {
	made := births[:0:0]
	for _, b := range births {
		if b.made {
			made = append(made, b)
		}
	}
	if len(made) == 0 {
		return nil
	}
	waits, err := s.awaited(ctx, made[0].child)
	if err != nil || waits {
		return err
	}
	retracting, ctx := errgroup.WithContext(ctx)
	retracting.SetLimit(atOnce)
	for _, b := range made {
		retracting.Go(func() error {
			entry, err := s.stopChild(ctx, b.entry, 0)
			if err != nil || !entry.Value.State.Final() {
				return passOver(err)
			}
			gone, err := s.orphaned(ctx, entry.Value)
			if err != nil || !gone {
				return err
			}
			return s.remove(ctx, entry)
		})
	}
	return retracting.Wait()
}

// forkFirst carries out what a waiting job owes: all its children, or the first of
// them if only so many may be there at a time. Of those the owner makes the next
// when one has ended, so if there is one already, the rest is left to it.
func (s *Store) forkFirst(ctx context.Context, parent Entry) error {
	shares, err := s.Shares(ctx, parent.Value)
	if err != nil {
		return err
	}
	which := make([]int, len(shares))
	for i := range which {
		which[i] = i
	}
	children, err := s.Children(ctx, parent, shares, which)
	if err != nil {
		return err
	}
	var missing []int
	for i, child := range children {
		if child.Key == "" {
			missing = append(missing, i)
		}
	}
	idle, err := s.unoffered(ctx, children)
	if err != nil {
		return err
	}
	if most := parent.Value.Fan.MaxParallel; most > 0 {
		if len(missing) < len(shares) {
			missing = nil
		}
		missing = missing[:min(most, len(missing))]
	}
	if err := s.Fork(ctx, parent, shares, append(missing, idle...)); err != nil {
		return err
	}
	return s.tellOwner(Ending{Parent: parent.Key})
}

// unoffered returns which of some children wait for a node that was not told: whoever
// made them died, or is about to tell it.
func (s *Store) unoffered(ctx context.Context, children []Entry) (which []int, err error) {
	var refs []streams.Ref
	var at []int
	for i, child := range children {
		if child.Value.State == machine.Pending && !child.Value.Homeless() {
			refs, at = append(refs, streams.Ref{ID: child.Key, Node: child.Value.Pin.Node}), append(at, i)
		}
	}
	for len(refs) > 0 {
		n := min(len(refs), direct.Max)
		has, err := s.Work.Has(ctx, refs[:n])
		if err != nil {
			return nil, err
		}
		for k, ref := range refs[:n] {
			if !has[ref.ID] {
				which = append(which, at[k])
			}
		}
		refs, at = refs[n:], at[n:]
	}
	return which, nil
}
