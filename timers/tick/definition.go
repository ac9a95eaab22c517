package tick

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/timers/calendar"
)

// Definition is a schedule as somebody stored it, compiled. It does not change, and
// any number of goroutines may use it.
type Definition struct {
	spec.Schedule
	// Revision, Stored, Created and Since are those of its [Place].
	Revision               uint64
	Stored, Created, Since time.Time

	calendar *calendar.Calendar
	template *spec.Template
}

// Place says where in time a definition stands.
type Place struct {
	// Revision is that under which it was stored, and Stored when, by the server.
	Revision uint64
	Stored   time.Time
	// Created is when this life of the schedule's name began: one that is deleted and
	// made anew has another life. Ticks at or before it are not of this life.
	Created time.Time
	// Since is the time after which its ticks are due. It begins anew when the
	// schedule is created or resumed, and when its calendar changes.
	Since time.Time
}

// Compile returns the definition of s. It fails with what is wrong with s.
func Compile(s spec.Schedule, p Place) (*Definition, error) {
	t, err := s.Template()
	if err != nil {
		return nil, err
	}
	c, err := calendar.Compile(s.Rule())
	if err != nil {
		return nil, fmt.Errorf("schedule %s: %w", s.Name, err)
	}
	return &Definition{
		Schedule: s, Revision: p.Revision, Stored: plain(p.Stored), Created: plain(p.Created), Since: plain(p.Since),
		calendar: c, template: t,
	}, nil
}

// plain returns t as it is after it was stored.
func plain(t time.Time) time.Time { return t.UTC().Round(0) }

// backfilled ends the ID of a job by which the tick of the past is made up for, and
// manual that of one which somebody triggered.
const (
	backfilled = "-backfill"
	manual     = "-manual"
)

// ID returns the ID of the job of a tick, or of one that by makes for that time.
func (d *Definition) ID(at time.Time, by machine.Maker) string {
	local := d.Name + "=" + strconv.FormatInt(at.UnixMilli(), 10)
	switch by {
	case machine.ByHand:
		local += manual
	case machine.ByBackfill:
		local += backfilled
	}
	return name.JobID(d.TargetQueue(), local)
}

// isBackfill reports whether somebody wanted a tick of the past by a job of that ID.
func isBackfill(id string) bool {
	return strings.HasSuffix(id, backfilled) && strings.Contains(id, "=")
}

// isTick reports whether the clock made the job of that ID.
func (d *Definition) isTick(id string) bool {
	_, local, _ := strings.Cut(id, ".")
	ms, ok := strings.CutPrefix(local, d.Name+"=")
	return ok && !strings.ContainsRune(ms, '-')
}

// fixedDelay reports whether each tick depends on the end of the job before.
func (d *Definition) fixedDelay() bool { return d.After > 0 }

// JitterOf returns how much later than its tick a job may start.
func (d *Definition) JitterOf(at time.Time) time.Duration {
	return calendar.Jitter(d.Name, at, time.Duration(d.Jitter))
}

// Next returns the first tick after a moment by the calendar alone, whether the
// schedule is paused or not; zero if there is none. A fixed delay has none.
func (d *Definition) Next(after time.Time) time.Time { return d.calendar.Next(after) }

// Declines returns why the schedule does not let a tick run that nobody has begun,
// by its definition as it is now, or "" if it does. A nil definition is that of a
// schedule that was deleted.
func (d *Definition) Declines(j machine.Job) (code, why string) {
	switch {
	case j.Tick == nil:
		return "", ""
	case d == nil:
		return machine.SkipChanged, fmt.Sprintf("schedule %s was deleted", j.Tick.Schedule)
	case !j.Tick.At.After(d.Created):
		return d.madeAnew()
	case d.IsPaused():
		return d.pausedBy()
	}
	return d.changedFor(j.ID, j.Tick.At)
}

// madeAnew is why a job of an earlier life does not run.
func (d *Definition) madeAnew() (code, why string) {
	return machine.SkipChanged, fmt.Sprintf("schedule %s was deleted, and made anew", d.Name)
}

// pausedBy is why no job runs while somebody has paused the schedule.
func (d *Definition) pausedBy() (code, why string) {
	why = fmt.Sprintf("schedule %s is paused", d.Name)
	if d.Note != "" {
		why += ": " + d.Note
	}
	return machine.SkipPaused, why
}

// changedFor returns why the job of a tick is none that the definition would make.
func (d *Definition) changedFor(id string, at time.Time) (code, why string) {
	queue, _, _ := strings.Cut(id, ".")
	switch {
	case queue != d.TargetQueue():
		return machine.SkipChanged, fmt.Sprintf("schedule %s makes its jobs in queue %s now", d.Name, d.TargetQueue())
	case !d.calendar.Has(at):
		return machine.SkipChanged, fmt.Sprintf("schedule %s has no tick at %s any more", d.Name, at.UTC().Format(time.RFC3339Nano))
	}
	return "", ""
}
