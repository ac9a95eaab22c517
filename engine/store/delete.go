package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/machine"
)

// ErrNotEnded is returned by [Store.Delete] and [Store.Redrive] for a job that has not ended.
var ErrNotEnded = errors.New("store: the job has not ended")

// errRevived says that a job was redriven before it could be removed.
var errRevived = fmt.Errorf("%w: it was redriven meanwhile", ErrNotEnded)

// Delete removes a job that has ended, with what it owns. One that has not, or whose
// children have not, is refused with [ErrNotEnded], and a child whose parent is there
// with [ErrParent]: it goes with that.
//
// If the process dies after the first write, the job is in state removing, and
// the reconciler, or whoever submits its ID again, goes on.
func (s *Store) Delete(ctx context.Context, id string) error {
	entry, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	if !entry.Value.State.Final() {
		return fmt.Errorf("%w: %s is %s: cancel it first", ErrNotEnded, id, entry.Value.State)
	}
	if err := s.belongs(ctx, entry.Value); err != nil {
		return err
	}
	if entry.Value.State != machine.Removing {
		if err := s.closedFamily(ctx, entry.Value, true); err != nil {
			return err
		}
	}
	return s.remove(ctx, entry)
}

// belongs returns an error that wraps [ErrParent] if a job is a child that goes with
// its parent.
func (s *Store) belongs(ctx context.Context, j machine.Job) error {
	if j.Parent == nil {
		return nil
	}
	gone, err := s.orphaned(ctx, j)
	if err == nil && !gone {
		err = fmt.Errorf("%w: %s is a part of %s, and goes with it (%w)", ErrParent, j.ID, j.Parent.ID, &machine.MoveError{ID: j.ID, From: j.State, Move: machine.Remove})
	}
	return err
}

// remove makes a job that has ended removing, and carries that out.
func (s *Store) remove(ctx context.Context, entry Entry) error {
	for try := 0; entry.Value.State.Final(); try++ {
		var err error
		if entry.Value.State != machine.Removing {
			entry, err = s.move(ctx, entry, machine.Removed{At: s.Clock.Now()})
			if refusal := new(jetstream.APIError); errors.As(err, &refusal) {
				// Storage may be full, and deleting jobs is the way out, so it
				// goes without notice. A redrive meanwhile is another revision,
				// and stays.
				return s.eraseAtOnce(ctx, entry)
			}
		}
		if err == nil && entry.Value.State == machine.Removing {
			err = s.pay(ctx, entry, passing)
		}
		if err == nil && entry.Value.State == machine.Removing || errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.pause(ctx, try); err != nil {
			return err
		}
	}
	if !entry.Value.Redriven.IsZero() {
		return fmt.Errorf("%w: %s is %s", errRevived, entry.Key, entry.Value.State)
	}
	return nil // it was removed, and submitted again
}

// eraseAtOnce erases a job that has ended without making it removing. What its record
// names goes after the record, since the job may be redriven until then. If the
// process dies in between, that is swept.
func (s *Store) eraseAtOnce(ctx context.Context, entry Entry) error {
	if err := s.eraseChildren(ctx, entry); err != nil {
		return err
	}
	bare := entry
	bare.Value.InputBlob, bare.Value.ResultBlob, bare.Value.Fan = nil, nil, nil
	if err := s.carryOut(ctx, machine.Erase, bare); err != nil {
		return err
	}
	now, err := s.Get(ctx, entry.Key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	for _, b := range owned(entry.Value) {
		if !names(now.Value, b.Name) {
			s.drop(ctx, b)
		}
	}
	return nil
}
