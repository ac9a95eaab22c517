package schedules

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/timers/scheduler"
)

// ErrConflict is what a [*ConflictError] is.
var ErrConflict = errors.New("the schedule is at another revision")

// ConflictError is returned by an edit that was to replace a revision which is not
// the current one: somebody else has edited the schedule since it was read.
type ConflictError struct {
	// Schedule is its name, and Expected the revision that was to be replaced.
	Schedule string
	Expected uint64
	// Current is the definition as it is now, with its revision; nil if there is
	// none any more, or none that can be read.
	Current *spec.Schedule
	// Revision is the current one, 0 if there is no definition.
	Revision uint64
}

// Error says which revision is there.
func (e *ConflictError) Error() string {
	if e.Revision == 0 {
		return fmt.Sprintf("it is not there, and revision %d was expected: leave the revision out to create it", e.Expected)
	}
	return fmt.Sprintf("it is at revision %d, and %d was expected: look at what has changed, and edit that", e.Revision, e.Expected)
}

// Is makes it an [ErrConflict].
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// Apply puts a definition in the place of the one of its name: of the revision that
// it says, if it says one. Whether the schedule is paused stays as it is, and why,
// unless the definition says. One that says what is stored is left alone, whatever
// the revision.
//
// Ticks until then are not due if the schedule was not there, was paused, or ticked
// at other times; otherwise the new definition goes on where the old one was.
//
// If the process dies before the write, nothing has happened; after it, all has. A
// lost answer is settled by reading; where that cannot be, because others wrote
// meanwhile, the error says so.
func (s *Schedules) Apply(ctx context.Context, doc spec.Schedule, dryRun bool) (spec.Applied, error) {
	if err := doc.Validate(); err != nil {
		return spec.Applied{}, err
	}
	expected := doc.Revision
	doc.Revision = 0
	e := &edit{Schedules: s, schedule: doc.Name, expected: expected, dryRun: dryRun, defines: true}
	e.change = func(was spec.Schedule) spec.Schedule {
		next := doc
		if next.Paused == nil && was.Paused != nil {
			next.Paused = was.Paused
			if next.Note == "" && was.IsPaused() {
				next.Note = was.Note
			}
		}
		return next
	}
	if err := e.make(ctx); err != nil {
		return spec.Applied{}, failed("apply", doc.Name, err)
	}
	a := spec.Applied{Key: doc.Key(), Action: spec.Changed, Changes: spec.Diff(e.before, e.after), Revision: e.revision}
	switch {
	case !e.existed:
		a.Action, a.Changes = spec.Created, nil
	case !e.changed:
		a.Action = spec.Unchanged
	}
	return a, nil
}

// EditOptions says more about an edit. The zero value of a field means its default.
type EditOptions struct {
	// Revision is the one that is to be edited: if another one is there, nothing
	// is changed, and the error is a [*ConflictError]. Default: whichever is there.
	Revision uint64
	// Note says why, for people. Default: nothing is noted.
	Note string
}

// Pause keeps a schedule from ticking, and keeps those jobs from starting that it
// has made and that nobody has begun. It returns what is stored then.
func (s *Schedules) Pause(ctx context.Context, schedule string, opts EditOptions) (spec.Schedule, error) {
	return s.edit(ctx, "pause", &edit{schedule: schedule, expected: opts.Revision, change: func(was spec.Schedule) spec.Schedule {
		was.Paused = new(true)
		if opts.Note != "" {
			was.Note = opts.Note
		}
		return was
	}})
}

// Resume lets a schedule tick again, with the first tick that is after the write,
// also one that has halted by itself. What was not due meanwhile is not made up
// for: see [Schedules.Backfill]. A note goes unless there is another one.
func (s *Schedules) Resume(ctx context.Context, schedule string, opts EditOptions) (spec.Schedule, error) {
	return s.edit(ctx, "resume", &edit{schedule: schedule, expected: opts.Revision, always: true, change: func(was spec.Schedule) spec.Schedule {
		if was.IsPaused() {
			was.Note = ""
		}
		was.Paused = nil // a document that says nothing of it leaves a later pause alone
		if opts.Note != "" {
			was.Note = opts.Note
		}
		return was
	}})
}

func (s *Schedules) edit(ctx context.Context, verb string, e *edit) (spec.Schedule, error) {
	if err := check(verb, e.schedule); err != nil {
		return spec.Schedule{}, err
	}
	e.Schedules = s
	if err := e.make(ctx); err != nil {
		return spec.Schedule{}, failed(verb, e.schedule, err)
	}
	e.after.Revision = e.revision
	return e.after, nil
}

// Delete ends a schedule. Its jobs stay, but those of ticks that nobody has begun
// are skipped. It returns [ErrNotFound] for one that is not there.
func (s *Schedules) Delete(ctx context.Context, schedule string, opts EditOptions) error {
	if err := check("delete", schedule); err != nil {
		return err
	}
	err := s.stored.Drop(ctx, scheduler.Key(schedule), func(was kv.Entry[scheduler.Stored]) error {
		return expect(opts.Revision, schedule, was)
	})
	if errors.Is(err, kv.ErrNotFound) {
		err = ErrNotFound
	}
	if err != nil {
		return failed("delete", schedule, err)
	}
	return nil
}

// edit is one change of a definition.
type edit struct {
	*Schedules
	schedule string
	expected uint64                            // revision; 0: any
	change   func(spec.Schedule) spec.Schedule // says the same however often it is asked
	defines  bool                              // also what is not there, or cannot be read
	always   bool                              // write, also if it changes nothing
	dryRun   bool

	before, after spec.Schedule
	revision      uint64 // after the edit
	existed       bool   // something was there
	changed       bool
}

// errDry ends a change that is not to be made.
var errDry = errors.New("dry run")

// make writes the definition, in one write: a create where nothing is, and otherwise
// a replacement of the revision that was read.
func (e *edit) make(ctx context.Context) error {
	entry, err := e.stored.Put(ctx, scheduler.Key(e.schedule), e.next)
	if errors.Is(err, errDry) {
		return nil
	}
	e.revision = entry.Revision
	return err
}

// next is what is to be stored, given what is. The life of the name goes on if it
// has one; so does the time since which ticks are due, unless the schedule begins to
// tick anew.
func (e *edit) next(was kv.Entry[scheduler.Stored]) (scheduler.Stored, error) {
	e.existed, e.before, e.revision = was.Revision != 0, spec.Schedule{Name: e.schedule}, was.Revision
	problem := problemOf(was)
	switch {
	case !e.existed && !e.defines:
		return was.Value, ErrNotFound
	case e.existed && problem != nil && !e.defines:
		return was.Value, fmt.Errorf("%w: %w", ErrUnusable, problem)
	case e.existed && problem == nil:
		e.before = was.Value.Schedule
	}
	e.after = e.change(e.before)
	e.changed = !e.existed || problem != nil || e.always || len(spec.Diff(e.before, e.after)) > 0
	if !e.changed {
		return was.Value, kv.ErrKeep
	}
	if err := expect(e.expected, e.schedule, was); err != nil {
		return was.Value, err
	}
	if e.dryRun {
		return was.Value, errDry
	}
	next := scheduler.Stored{Schedule: e.after}
	if e.existed {
		next.Created = or(was.Value.Created, was.Stored)
		if problem == nil && !e.always && e.before.SameCalendar(e.after) && (e.after.IsPaused() || !e.before.IsPaused()) {
			next.Since = or(was.Value.Since, was.Stored)
		}
	}
	return next, nil
}

// problemOf returns why what is stored cannot be used, or nil.
func problemOf(was kv.Entry[scheduler.Stored]) error {
	_, err := scheduler.Compile(was)
	return err
}

// expect refuses to change another revision than the one that is expected, if one is.
func expect(revision uint64, schedule string, was kv.Entry[scheduler.Stored]) error {
	if revision == 0 || revision == was.Revision {
		return nil
	}
	e := &ConflictError{Schedule: schedule, Expected: revision, Revision: was.Revision}
	if was.Revision != 0 && problemOf(was) == nil {
		current := was.Value.Schedule
		current.Revision = was.Revision
		e.Current = &current
	}
	return e
}

// or returns a time, or another one if there is none.
func or(t, other time.Time) time.Time {
	if t.IsZero() {
		return other
	}
	return t
}
