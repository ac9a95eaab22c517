package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/timers/tick"
)

// carry carries out what is to be done for a schedule, in its order. Each act does
// nothing the second time, so whoever dies amid them leaves them to the next owner.
// The lease is looked at before each: while it is held nobody else has gone on, and
// the records of those that were carried out before are still there.
func (s *Scheduler) carry(ctx context.Context, c *course) error {
	m := c.mind
	watched := m.watch()
	for ; len(m.todo) > 0; m.todo = m.todo[1:] {
		if !s.opts.Owner.Valid() {
			return kv.ErrLeaseLost
		}
		act := m.todo[0]
		entry, err := s.act(ctx, m, act)
		if err != nil {
			return fmt.Errorf("scheduler: %s job %s: %w", act.Do, act.ID, err)
		}
		if _, found := slices.BinarySearch(watched, act.ID); found {
			m.note(entry)
		}
		if act.Do == tick.Admit || act.Do == tick.Dismiss {
			c.wants = c.wants.without(func(id string) bool { return id == act.ID })
		}
	}
	return nil
}

// act carries out one act and returns the job as it is then, which may have ended long
// ago; one that is not there has only a key. A job that is made says by which
// definition that was decided: there may be another one by now, and whoever is about to
// run the job is to compare it with that.
func (s *Scheduler) act(ctx context.Context, m *mind, a tick.Act) (entry store.Entry, err error) {
	switch a.Do {
	case tick.Make, tick.Wait, tick.Decline:
		j := m.def.Job(a, s.opts.Clock.Now())
		j.Tick.Revision = m.cursor.Revision
		entry, _, err = s.opts.Store.Submit(ctx, j)
		return entry, err
	case tick.Admit:
		entry, err = s.opts.Store.Admit(ctx, a.ID, s.opts.Owner)
	case tick.Dismiss:
		entry, err = s.opts.Store.Decline(ctx, a.ID, machine.Declined{Code: a.Code, Why: a.Why}, s.opts.Owner)
	case tick.Cancel:
		entry, err = s.opts.Store.Cancel(ctx, a.ID, a.Why)
	default:
		return entry, errors.New("this build does not know how: upgrade this process")
	}
	return entry, passOver(a.ID, &entry, err)
}

// passOver forgives that a job is not there, or goes on or has ended in a way that
// leaves nothing to be done.
func passOver(id string, entry *store.Entry, err error) error {
	var refused *machine.MoveError
	switch {
	case errors.Is(err, store.ErrNotFound):
		*entry = store.Entry{Key: id}
		return nil
	case errors.Is(err, store.ErrUnreadable): // a newer build sees to it
		*entry = store.Entry{Key: id, Value: machine.Job{ID: id}}
		return nil
	case errors.As(err, &refused):
		return nil
	}
	return err
}

// forget ends what is left of a schedule that was deleted: who waits for a turn of it
// is declined, and its cursor goes.
//
// If the process dies before the cursor is gone, the next owner finds it without a
// definition. If somebody defines the schedule again meanwhile, another owner may have
// moved the cursor, which then stays; otherwise its next life begins without one.
func (s *Scheduler) forget(ctx context.Context, c *course) error {
	entry, err := s.cursors.Get(ctx, Key(c.name))
	there := err == nil
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	ids := slices.Clone(entry.Value.Cursor.Queue)
	for _, w := range c.wants {
		ids = append(ids, w.ID)
	}
	for _, id := range ids {
		if err := s.dismiss(ctx, c.name, id); err != nil {
			return err
		}
	}
	c.wants = nil
	if there {
		return s.cursors.Delete(ctx, entry.Key, entry.Revision)
	}
	return nil
}

// dismiss declines a job that waits for a turn of a schedule that was deleted. One
// that has run before is admitted instead: nothing bounds it any more.
func (s *Scheduler) dismiss(ctx context.Context, schedule, id string) error {
	var deleted *tick.Definition
	code, why := deleted.Declines(machine.Job{ID: id, Tick: &machine.Tick{Schedule: schedule}})
	_, err := s.opts.Store.Decline(ctx, id, machine.Declined{Code: code, Why: why}, s.opts.Owner)
	var refused *machine.MoveError
	if errors.As(err, &refused) {
		_, err = s.opts.Store.Admit(ctx, id, s.opts.Owner)
	}
	return passOver(id, &store.Entry{}, err)
}
