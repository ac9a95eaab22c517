package tick

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/machine"
)

// follow takes up that the definition is another one.
//
// The tick to come may be made already, by an owner that died before it could store
// its cursor. If it was due when the definition was stored, it stays what it was to
// be, and its record is found there. If it was not, it is one of the new definition;
// should somebody who did not know of that make the old one as well, it is declined
// before its first claim.
func (w *work) follow() {
	d, c := w.d, &w.c
	if !c.Life.Equal(d.Created) {
		w.begin()
	}
	if c.Revision == d.Revision {
		return
	}
	w.makeUnmade(Wait)
	w.endRoll() // what comes next may not be the next tick
	fresh := c.Revision == 0
	moved := !c.Since.Equal(d.Since)
	c.Revision, c.Since = d.Revision, d.Since
	if c.Halted != nil {
		c.Halted, c.Failures = nil, 0
	}
	if d.PauseAfterFailures == 0 {
		c.Open, c.Failures = nil, 0
	}
	if moved {
		c.Late = nil
	}
	switch due := !c.Next.IsZero(); {
	case fresh, moved && !due:
		w.plan(latest(d.Since, c.Past))
	case moved && c.Past.After(d.Since) && w.goesOn(): // who did not know has decided what was due since
	case moved && c.Next.After(d.Since): // who did not know may have gone on by the old calendar: what was made stays
		w.plan(d.Since)
	case !due: // nothing was before somebody wrote this
		w.plan(latest(latest(d.Since, d.Stored), c.Past))
	case moved && !d.IsPaused():
		w.overtaken()
	case c.Next.After(d.Stored):
		c.ID = d.ID(c.Next, "")
	}
	if d.IsPaused() {
		code, why := d.pausedBy()
		w.declineUntil(d.Stored, code, why)
		c.Next = time.Time{}
	}
}

// goesOn reports whether the ticks around the last one that was decided are the same by
// the new definition, as they are if it was resumed.
func (w *work) goesOn() bool {
	d, c := w.d, w.c
	return d.calendar.Has(c.Past) && d.calendar.Next(c.Past).Equal(c.Next) && d.ID(c.Next, "") == c.ID
}

// begin begins another life. Whoever waits belongs to the one that is over.
func (w *work) begin() {
	w.endRoll()
	code, why := w.d.madeAnew()
	for _, id := range w.c.Queue {
		w.do(Act{Do: Dismiss, ID: id, Code: code, Why: why})
	}
	if u := w.c.Unmade; u != nil {
		a := *u
		a.Do, a.Code, a.Why = Decline, code, why
		w.do(a)
	}
	w.c = Cursor{Life: w.d.Created, Number: 1}
}

// overtaken decides the tick to come if it was due before its schedule was resumed or
// its calendar was edited, and nobody knew: it is made, if there still is such a tick.
// What was due after it is declined.
func (w *work) overtaken() {
	d, c := w.d, &w.c
	code, why := d.changedFor(c.ID, c.Next)
	if late := w.now.Sub(c.Next); code == "" && w.isMisfire() && d.neverMakesUpFor(late) {
		code, why = machine.SkipMisfire, w.misfire()
	}
	if code == "" {
		w.decide()
	} else {
		w.decline(code, why, c.Next)
	}
	w.declineUntil(d.Since, machine.SkipPaused, fmt.Sprintf("nobody had seen to it when schedule %s was edited or resumed", d.Name))
}

// tick decides the tick to come, which is due, and those along with it that are
// declined for the same reason.
func (w *work) tick() {
	c := &w.c
	if c.Halted != nil {
		w.declineUntil(c.Halted.At, machine.SkipPaused, fmt.Sprintf("schedule %s has halted: %d jobs failed in a row", w.d.Name, c.Halted.Failures))
		c.Next = time.Time{}
		return
	}
	if c.Late == nil && w.isMisfire() {
		c.Late, w.late = w.find(), true
	}
	switch late := c.Late; {
	case late == nil || !c.Next.Before(late.Run) && c.Next.Before(late.Until):
		w.decide()
	case c.Next.Before(late.Run):
		w.declineUntil(late.Run.Add(-1), machine.SkipMisfire, w.misfire())
	default:
		c.Late = nil
	}
}
