package tick

import (
	"cmp"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/spec"
)

// isMisfire reports whether the tick to come was found too late. That of a fixed
// delay is the only one there is, and never is.
func (w *work) isMisfire() bool { return !w.d.fixedDelay() && w.now.Sub(w.c.Next) > punctual }

// find decides which ticks run of those that were found too late.
func (w *work) find() *Late {
	until := w.now.Add(-punctual)
	late := &Late{Until: until, Run: until}
	switch d, first := w.d, w.c.Next; d.Misfire.Policy {
	case spec.MisfireSkip:
	case spec.MisfireAll:
		if window := time.Duration(d.Misfire.Window); window > 0 {
			first = latest(first, w.now.Add(-window))
		}
		late.Run = d.lastOf(first, until, int64(cmp.Or(d.Misfire.Limit, spec.DefaultMisfireLimit)))
	default:
		late.Run = d.lastOf(first, until, 1)
	}
	return late
}

// neverMakesUpFor reports whether a misfire does not run that was found so late,
// whatever came after it.
func (d *Definition) neverMakesUpFor(late time.Duration) bool {
	m := d.Misfire
	return m.Policy == spec.MisfireSkip || m.Policy == spec.MisfireAll && m.Window > 0 && late > time.Duration(m.Window)
}

// lastOf returns a moment, not before first, so that there are at most so many ticks
// from it on and before until.
func (d *Definition) lastOf(first, until time.Time, most int64) time.Time {
	if !first.Before(until) {
		return until
	}
	count := func(from time.Time) (int64, time.Time) {
		return d.calendar.Count(from.Add(-time.Millisecond), until.Add(-1))
	}
	n, last := count(first)
	switch {
	case n <= most:
		return first
	case most == 1:
		return last
	}
	few := last // from few on there are few enough ticks, from first on too many
	for few.Sub(first) > time.Millisecond {
		half := first.Add(few.Sub(first) / 2).Truncate(time.Millisecond)
		if n, _ = count(half); n > most {
			first = half
		} else {
			few = half
		}
		if n == most {
			break
		}
	}
	return few
}

// misfire says why a tick that was found too late does not run.
func (w *work) misfire() string {
	made := "the last such tick only"
	switch m := w.d.Misfire; m.Policy {
	case spec.MisfireSkip:
		made = "no such tick"
	case spec.MisfireAll:
		made = fmt.Sprintf("the last %d such ticks", cmp.Or(m.Limit, spec.DefaultMisfireLimit))
		if m.Window > 0 {
			made += fmt.Sprintf(" of %v", m.Window)
		}
	}
	return fmt.Sprintf("it was found more than %v late: schedule %s makes up for %s", spec.Duration(punctual), w.d.Name, made)
}
