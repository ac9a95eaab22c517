package tick

import (
	"cmp"
	"reflect"
	"slices"
	"time"

	"github.com/millrace/millrace/engine/machine"
)

// Advance returns what follows from a cursor. See the package comment for what it
// takes for granted, and for what is to be done with it.
//
// Its work is bounded: a step decides some hundred ticks one by one, and any number of
// them that are declined together. If more are due, [Step.Due] says so.
func (d *Definition) Advance(c Cursor, f Facts) Step {
	now := latest(plain(f.Now), d.Stored)
	if c.Revision > d.Revision { // there is a newer definition: nothing is decided by this one
		return Step{Cursor: c, Due: now.Add(promptly)}
	}
	w := &work{d: d, was: c, c: c, now: now}
	w.c.Doing = nil
	w.hear(f)
	w.follow()
	w.serveQueue()
	w.serveHands(f.Wants)
	for w.hasRoom() && w.isDue() {
		w.tick()
	}
	w.serveOthers(f.Wants)
	w.settle()
	return w.step()
}

// Watch returns the jobs whose ends matter.
func (d *Definition) Watch(c Cursor) []string {
	ids := slices.Concat(c.Holders, c.Queue, c.Open)
	if c.awaitsEnd() && d.fixedDelay() {
		ids = append(ids, c.LastID)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// awaitsEnd reports whether the last job is not known to have ended.
func (c Cursor) awaitsEnd() bool { return c.LastID != "" && c.LastEnd.IsZero() }

// work is a step that is being made. Lists that the cursor came with are replaced and
// not changed.
type work struct {
	d    *Definition
	was  Cursor // as it is stored
	c    Cursor
	now  time.Time
	acts []Act
	late bool // a tick was found too late
}

func (w *work) do(a Act) {
	a.Why = short(a.Why)
	w.acts = append(w.acts, a)
}

func (w *work) hasRoom() bool { return len(w.acts) < maxActs }

func (w *work) isDue() bool {
	return !w.c.Next.IsZero() && !w.c.Next.After(w.now) && !w.exhausted()
}

// exhausted reports whether there have been as many jobs as there may be.
func (w *work) exhausted() bool { return w.d.MaxRuns > 0 && w.c.Made >= w.d.MaxRuns }

// hear takes up which jobs have ended, oldest first. One that waits for a turn, and
// has one, has ended and was redriven.
func (w *work) hear(f Facts) {
	ended := slices.Clone(f.Ended)
	slices.SortStableFunc(ended, func(a, b End) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	for _, e := range ended {
		w.hearEnd(e)
	}
	for _, want := range f.Wants {
		if want.Redriven {
			w.c.Holders = without(w.c.Holders, want.ID)
		}
	}
}

func (w *work) hearEnd(e End) {
	d, c := w.d, &w.c
	c.Holders, c.Queue = without(c.Holders, e.ID), without(c.Queue, e.ID)
	if slices.Contains(c.Open, e.ID) {
		c.Open = without(c.Open, e.ID)
		w.count(e.State)
	}
	if e.ID == c.LastID && c.LastEnd.IsZero() && d.fixedDelay() {
		c.LastEnd = plain(e.At)
		if e.At.IsZero() || e.At.Sub(w.now) > punctual { // no clock of a server says so
			c.LastEnd = w.now
		}
		w.plan(c.LastEnd)
	}
}

// count counts failures in a row, and halts the schedule if they are too many.
func (w *work) count(s machine.State) {
	c := &w.c
	failed := s == machine.Failed || s == machine.Lost
	if failed {
		c.Failures++
	} else if s == machine.Succeeded {
		c.Failures = 0
	}
	if most := w.d.PauseAfterFailures; most > 0 && c.Failures >= most && c.Halted == nil {
		c.Halted = &Halted{At: w.now, Revision: c.Revision, Failures: c.Failures}
	}
}

// plan finds the tick to come, after a moment.
func (w *work) plan(after time.Time) {
	c := &w.c
	c.Next, c.ID = w.d.calendar.Next(after), ""
	if w.d.fixedDelay() {
		c.Next = w.delayed(after)
	}
	if !c.Next.IsZero() {
		c.ID = w.d.ID(c.Next, "")
	}
}

// delayed returns the first tick of a fixed delay after a moment; zero while its last
// job is not known to have ended.
func (w *work) delayed(after time.Time) time.Time {
	d, c := w.d, w.c
	if c.awaitsEnd() {
		return time.Time{}
	}
	from := latest(latest(d.Since, d.Start), c.LastEnd).Add(time.Duration(d.After))
	return d.calendar.Open(latest(from, latest(after, c.Past).Add(time.Millisecond)))
}

// pass goes on to the next tick.
func (w *work) pass() {
	w.c.Past = w.c.Next
	w.c.Number++
	w.plan(w.c.Past)
}

// settle clears what is over.
func (w *work) settle() {
	c := &w.c
	switch {
	case w.d.IsPaused() || c.Halted != nil || w.exhausted():
		c.Next, c.ID = time.Time{}, ""
	case c.Next.IsZero(): // the calendar is over, unless one run more is left than there was
		if w.plan(latest(w.now, c.Past)); !c.Next.IsZero() {
			w.endRoll() // what came before it was not due
		}
	}
	if c.Next.IsZero() || c.Late != nil && !c.Next.Before(c.Late.Until) {
		c.Late = nil
	}
	if b := c.Burst; b != nil && b.Roll != nil && !w.now.Before(b.Roll.At.Add(separate)) {
		w.endRoll()
	}
}

// step returns what was made of a cursor.
func (w *work) step() Step {
	s := Step{Acts: w.acts, Plain: w.isPlain()}
	if !s.Plain {
		w.c.Doing = w.acts
	}
	s.Changed = !reflect.DeepEqual(w.was, w.c)
	if b := w.c.Burst; s.Changed && b != nil && b.Roll == nil && w.now.Sub(b.Last) >= separate {
		w.c.Burst = nil
	}
	s.Cursor, s.Due = w.c, w.due()
	return s
}

// isPlain reports whether the step follows from the cursor as it was, and from the
// definition that it was made with, whoever makes it and whenever. So nothing counts
// that the moment decides: turns, failures, runs that are left, lateness.
func (w *work) isPlain() bool {
	d, was := w.d, w.was
	return len(w.acts) == 1 && w.acts[0].Do == Make && w.acts[0].ID == was.ID && was.Revision == d.Revision &&
		was.Late == nil && !w.late && !d.Overlap.Bounded() && d.MaxRuns == 0 && d.PauseAfterFailures == 0
}

// due returns when to look again.
func (w *work) due() time.Time {
	c := w.c
	due := c.Next
	sooner := func(t time.Time) {
		if due.IsZero() || t.Before(due) {
			due = t
		}
	}
	if c.Burst != nil && c.Burst.Roll != nil {
		sooner(c.Burst.Roll.At.Add(separate))
	}
	if len(c.Doing) > 0 {
		sooner(w.now.Add(promptly))
	}
	if !w.hasRoom() {
		sooner(w.now)
	}
	return due
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// without returns a list without an entry: nil if nothing is left.
func without(list []string, id string) []string {
	i := slices.Index(list, id)
	switch {
	case i < 0:
		return list
	case len(list) == 1:
		return nil
	}
	return slices.Concat(list[:i], list[i+1:])
}

// with returns a list with one more entry.
func with(list []string, id string) []string { return append(slices.Clip(list), id) }

// maxWhy bounds a reason, in bytes.
const maxWhy = 300

// short returns text, or its beginning if it is long.
func short(text string) string {
	if len(text) <= maxWhy {
		return text
	}
	end := 0
	for i := range text {
		if i > maxWhy {
			break
		}
		end = i
	}
	return text[:end] + "…"
}
