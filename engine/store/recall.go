package store

import (
	"context"
	"fmt"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
)

// recall cancels the children of a job that has ended. What it misses, since it was
// made late, is cancelled when it is claimed, or by [Store.Heal].
func (s *Store) recall(ctx context.Context, parent Entry) error {
	if complete(parent.Value) {
		return nil
	}
	err := s.eachChild(ctx, parent.Value, true, func(ctx context.Context, child Entry) error {
		if child.Value.State.Final() {
			return nil
		}
		_, err := s.stopChild(ctx, child, parent.Revision)
		return passOver(err)
	})
	if blobs.Gone(err) {
		return nil // Heal finds them
	}
	return err
}

// stopChild makes a child end for which nobody waits, as [Store.Cancel] does, and
// returns it as it is stored then. It may run on for a moment. A child that its
// parent waits for is left alone.
//
// A parent that has ended goes on if it is redriven, and the process may stand still
// in between. So the child is read first, then its parent, and it is stopped at the
// revision that was read: a parent is redriven only when its children have ended,
// and that is another revision. For the same reason the parent need not be read for a
// child that has not changed since its parent had ended, at a revision that the caller
// knows (0: it does not).
func (s *Store) stopChild(ctx context.Context, entry Entry, ended uint64) (Entry, error) {
	for try := 0; ; try++ {
		if entry.Value.State.Final() || stopped(entry.Value) {
			return entry, s.pay(ctx, entry, passing)
		}
		if entry.Revision > ended {
			if waits, err := s.awaited(ctx, entry.Value); err != nil || waits {
				return entry, err
			}
		}
		var err error
		before := entry.Revision
		if entry, err = s.move(ctx, entry, s.disowned(entry.Value)); err != nil {
			return entry, err
		}
		if entry.Revision == before {
			if err := s.pause(ctx, try); err != nil {
				return entry, err
			}
		}
	}
}

// disowned ends a child whose parent does not wait for it any more.
func (s *Store) disowned(child machine.Job) machine.Event {
	return machine.Stopped{Cause: fmt.Sprintf("job %s, of which it is a part, has ended", child.Parent.ID), At: s.Clock.Now()}
}

// eraseChildren removes the children of a job that is being removed, each with what
// it owns. Whoever dies in between leaves the parent, which still says so. A child
// that is made afterwards, by somebody who stood still, is found by [Store.Heal].
func (s *Store) eraseChildren(ctx context.Context, parent Entry) error {
	if parent.Value.Fan == nil {
		return nil
	}
	err := s.eachChild(ctx, parent.Value, false, func(ctx context.Context, child Entry) error {
		if !child.Value.State.Final() {
			var err error
			if child, err = s.stopChild(ctx, child, parent.Revision); err != nil {
				return passOver(err)
			}
		}
		if !child.Value.State.Final() {
			return fmt.Errorf("%w: its part %s is %s: wait until it has ended", ErrNotEnded, child.Value.Parent.Part, child.Value.State)
		}
		queue, local, err := name.SplitJobID(child.Key)
		if err != nil {
			return err
		}
		return s.erase(ctx, child, queue, local)
	})
	if blobs.Gone(err) { // whoever began has come that far, or they are lost: Heal finds them
		return nil
	}
	return err
}
