package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/bug"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/timers/tick"
)

const (
	// rounds bounds how often a schedule is decided about before others have their
	// turn.
	rounds = 16
	// maxWants is how many of the jobs that wait for a turn are weighed at a time.
	maxWants = 100
	// firstPoll and rarestPoll are how long after the last time the jobs are read
	// whose ends matter: after something has happened, and after nothing has for long.
	firstPoll, rarestPoll = 2 * time.Second, 30 * time.Second
	// pollEach is the least of that for each of them.
	pollEach = 100 * time.Millisecond
	// patience is how many tries a schedule waits for a definition that its cursor
	// knows: for half a minute.
	patience = 8
)

// step does what there is to do for a schedule now, and returns when to look again,
// zero for never. After an error everything is read anew.
//
// What is decided is a pure function of the stored cursor and of facts
// ([tick.Definition.Advance]); here it is stored and carried out. There are two ways:
//
//	plain      the act follows from the stored cursor alone: carry it out, then store
//	           the next cursor by its revision
//	otherwise  store the cursor with what was decided, carry that out, and store that
//	           it is done along with the next decision, promptly
//
// If the process dies, or an answer is lost:
//
//   - before or after the act of the plain way: the next owner reads the same cursor,
//     and makes the same job under the same ID. If it is there it stays as it is.
//   - before the cursor was stored: on the plain way likewise. Otherwise nothing has
//     happened, and the next owner decides by its own moment. The write may still land,
//     late, if it is the first on that revision: whoever writes second reads it, and
//     carries out what it says.
//   - after the cursor was stored with its acts, or amid these: the next owner finds
//     them there and carries them out. Each does nothing the second time.
//
// A process that stood still at any place has lost its lease by then, and looks at
// that before each act. What it had sent changes nothing, or is the same again.
func (s *Scheduler) step(ctx context.Context, c *course, n *news) (due time.Time, err error) {
	if !s.opts.Owner.Valid() {
		return time.Time{}, kv.ErrLeaseLost
	}
	if err := s.ask(ctx, c, n); err != nil {
		return time.Time{}, err
	}
	if c.mind == nil || n.changed {
		if err := s.open(ctx, c, n); err != nil || c.mind == nil {
			return time.Time{}, err
		}
	}
	if err := s.carry(ctx, c); err != nil {
		return time.Time{}, err
	}
	if err := s.look(ctx, c, n); err != nil {
		return time.Time{}, err
	}
	for range rounds {
		due, done, err := s.advance(ctx, c)
		if done || err != nil {
			return due, err
		}
	}
	return s.opts.Clock.Now(), nil
}

// advance decides once, stores that and carries it out. It is done if there was
// nothing to decide, and returns when there may be.
func (s *Scheduler) advance(ctx context.Context, c *course) (due time.Time, done bool, err error) {
	m, now := c.mind, s.opts.Clock.Now()
	next := m.def.Advance(m.cursor, tick.Facts{Now: now, Ended: m.ended, Wants: c.wants.first(maxWants)})
	m.ended = nil
	if !next.Changed {
		return s.dueOf(m, next.Due), true, nil
	}
	m.soon(now)
	if next.Plain && !bug.SaveFirst {
		m.todo = next.Acts
		if err := s.carry(ctx, c); err != nil {
			return time.Time{}, false, err
		}
	}
	if moved, err := s.put(ctx, c, next); moved || err != nil {
		return time.Time{}, false, err
	}
	if next.Plain && bug.SaveFirst {
		m.todo = next.Acts
	}
	return time.Time{}, false, s.carry(ctx, c)
}

// dueOf returns when to look at a schedule again that has to be looked at when it is
// due, or when its jobs are to be read.
func (s *Scheduler) dueOf(m *mind, due time.Time) time.Time {
	if len(m.watch()) == 0 {
		m.pollAt = time.Time{}
		return due
	}
	if due.IsZero() || m.pollAt.Before(due) {
		return m.pollAt
	}
	return due
}

// look reads those jobs whose ends matter, as far as they are said to have ended, or
// all if it is time for that.
func (s *Scheduler) look(ctx context.Context, c *course, n *news) error {
	said := func(id string) bool { _, ok := n.ended[id]; return ok }
	c.wants = c.wants.without(said) // one that waits again says so
	m, now := c.mind, s.opts.Clock.Now()
	ids := m.watch()
	if n.missed || !now.Before(m.pollAt) {
		m.wait = min(max(2*m.wait, firstPoll), rarestPoll)
		m.pollAt = now.Add(m.interval())
	} else {
		ids = slices.DeleteFunc(ids, func(id string) bool { return !said(id) })
	}
	if err := s.readJobs(ctx, ids, m.note); err != nil {
		return err
	}
	c.wants = c.wants.without(m.hasEnded) // or it would be given a turn
	return nil
}

// hasEnded reports whether a job is known to have ended though the cursor says
// otherwise.
func (m *mind) hasEnded(id string) bool {
	return slices.ContainsFunc(m.ended, func(e tick.End) bool { return e.ID == id })
}

// note takes in how a job is.
func (m *mind) note(entry store.Entry) {
	switch j := entry.Value; {
	case j.ID == "": // it was deleted
		m.ended = append(m.ended, tick.End{ID: entry.Key})
	case j.State.Final():
		m.ended = append(m.ended, tick.End{ID: entry.Key, State: j.State, At: j.Finished})
	}
}

// open reads a schedule from the leader: its definition, and its cursor unless that
// is known. If there is no definition, or none that can be used, nothing is known
// afterwards.
func (s *Scheduler) open(ctx context.Context, c *course, n *news) error {
	m := c.mind
	if c.mind = nil; m == nil {
		m = &mind{}
	}
	for fresh, try := m.revision == 0, 0; ; try++ {
		def, err := s.definitions.Load(ctx, c.name)
		switch {
		case errors.Is(err, ErrNoSchedule):
			n.gone = true
			return s.forget(ctx, c)
		case errors.Is(err, errUnusable):
			s.opts.Logger.WarnContext(ctx, "schedule passed over", "schedule", c.name, "err", err)
			return nil
		case err != nil:
			return err
		}
		if fresh {
			if err := s.reread(ctx, c.name, m); err != nil {
				return err
			}
			fresh = false
		}
		switch {
		case m.cursor.Revision <= def.Revision:
		case try == 0: // it was edited in between
			continue
		case c.tries < patience: // the answer may be that of a leader which is none any more
			return errMoved
		default: // what was edited is lost, as after a loss of power: what is there counts
			s.opts.Logger.WarnContext(ctx, "a schedule is older than it was: the server has lost an edit, look at it and apply it again", "schedule", c.name, "revision", def.Revision, "lost", m.cursor.Revision)
			m.cursor.Revision = 0
		}
		m.def, c.mind = def, m
		return nil
	}
}

// reread reads a cursor from the leader.
func (s *Scheduler) reread(ctx context.Context, schedule string, m *mind) error {
	entry, err := s.cursors.Get(ctx, Key(schedule))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return fmt.Errorf("scheduler: read the cursor of schedule %s: %w", schedule, err)
	}
	m.take(entry.Value.Cursor, entry.Revision)
	return nil
}

// put stores a cursor in the place of the one that is known, whose acts become those
// that are to be carried out. If somebody else has stored another one, that is known
// afterwards, and moved is set.
//
// Where an answer was lost the same write is made again until that is settled: as long
// as it may still land nothing else may be decided. It has landed if the revision has
// moved, or is another owner's; both are taken as they are.
func (s *Scheduler) put(ctx context.Context, c *course, step tick.Step) (moved bool, err error) {
	m, key := c.mind, Key(c.name)
	next := written{Cursor: step.Cursor}
	if m.rests(next.Cursor) {
		next.due = cmp.Or(milliseconds(step.Due), never)
	}
	for try := 0; ; try++ {
		if !s.opts.Owner.Valid() {
			return false, kv.ErrLeaseLost
		}
		var revision uint64
		if m.revision == 0 {
			revision, err = s.cursors.Create(ctx, key, next)
		} else {
			revision, err = s.cursors.Update(ctx, key, next, m.revision)
		}
		switch {
		case err == nil:
			m.cursor, m.revision, m.todo = next.Cursor, revision, next.Doing
			return false, nil
		case !kv.Unknown(err) && !errors.Is(err, kv.ErrExists) && (try == 0 || !errors.Is(err, publish.ErrUnsent)):
			return false, err
		}
		before := m.revision
		var now mind
		if err := s.reread(ctx, c.name, &now); err != nil {
			return false, err
		}
		if now.revision != before {
			m.take(now.cursor, now.revision)
			return true, s.adopt(ctx, c)
		}
		if err := pause(ctx, try); err != nil {
			return false, err
		}
	}
}

// adopt goes on with a cursor of somebody else, or one of ours whose answer was lost.
// What is known of jobs may be older than that, and so may the definition.
func (s *Scheduler) adopt(ctx context.Context, c *course) error {
	if c.mind.cursor.Revision > c.mind.def.Revision || c.mind.revision == 0 {
		return errMoved
	}
	if err := s.carry(ctx, c); err != nil {
		return err
	}
	c.doubt()
	n := &news{missed: true}
	if err := s.ask(ctx, c, n); err != nil {
		return err
	}
	return s.look(ctx, c, n)
}

// errMoved says that everything has to be read anew.
var errMoved = fmt.Errorf("the schedule has changed: %w", kv.ErrConflict)

func pause(ctx context.Context, try int) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(min(10*time.Millisecond<<min(try, 10), time.Second)):
		return nil
	}
}
