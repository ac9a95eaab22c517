package tick

import (
	"time"

	"github.com/millrace/millrace/engine/machine"
)

// declineUntil declines the tick to come and all after it that are due, and not after a
// moment. The first hundred of a burst have records of their own, and so has one that may
// be made already; the others have one.
func (w *work) declineUntil(until time.Time, code, why string) {
	c := &w.c
	if until.After(w.now) {
		until = w.now
	}
	if c.Next.IsZero() || c.Next.After(until) {
		return
	}
	w.makeUnmade(Wait) // it is older
	for !c.Next.IsZero() && !c.Next.After(until) {
		if w.burst(until); w.c.Burst.Count < recorded || w.mayBeMade(w.c.ID, code) {
			w.decline(code, why, until)
			continue
		}
		w.endRoll()
		a := w.declined(code, why)
		if n, last := w.d.calendar.Count(c.Next, until); n > 0 {
			a.More = &machine.More{Count: n, Until: last}
			c.Number, c.Next = c.Number+n, last
		}
		w.do(a)
		w.missed()
	}
}

// decline declines the tick to come. When says to which burst that belongs.
func (w *work) decline(code, why string, when time.Time) {
	w.makeUnmade(Wait) // it is older
	w.record(w.declined(code, why), when)
	w.missed()
}

// record has a tick recorded that is declined, now or along with others.
func (w *work) record(a Act, when time.Time) {
	w.burst(when)
	b := w.c.Burst
	switch {
	case b.Count < recorded:
		b.Count++
		w.do(a)
	case w.mayBeMade(a.ID, a.Code):
		w.endRoll()
		w.do(a)
	case b.Roll != nil && b.Roll.Code == a.Code && a.At.Sub(b.Roll.At) < separate:
		roll, more := *b.Roll, machine.More{}
		if roll.More != nil {
			more = *roll.More
		}
		more.Count, more.Until = more.Count+1, a.At
		roll.More = &more
		b.Roll = &roll
	default:
		w.endRoll()
		a.Why = short(a.Why)
		w.c.Burst = &Burst{Count: b.Count, Last: b.Last, Roll: &a}
	}
}

// mayBeMade reports whether an owner may have made a tick by a plain step and
// died before it was stored. Then its record says that, and stands for no other tick. By
// the same definition that was to be made, and only the moment says otherwise.
func (w *work) mayBeMade(id, code string) bool {
	return id == w.was.ID && (code == machine.SkipMisfire || w.was.Revision != w.d.Revision)
}

func (w *work) declined(code, why string) Act {
	return Act{Do: Decline, ID: w.c.ID, At: w.c.Next, Number: w.c.Number, Code: code, Why: why}
}

// missed goes on to the next tick after one that was declined. A fixed delay begins
// anew.
func (w *work) missed() {
	if w.d.fixedDelay() {
		w.c.LastEnd = w.now
	}
	w.pass()
}

// burst goes on with the burst to which what is declined at a moment belongs, or
// begins one. It is not shared with the cursor as it was.
func (w *work) burst(when time.Time) {
	b := Burst{}
	if was := w.c.Burst; was != nil && when.Sub(was.Last) < separate {
		b = *was
	} else {
		w.endRoll()
	}
	b.Last = latest(b.Last, when)
	w.c.Burst = &b
}

// isRolledUp reports whether what is declined at a moment has no record of its own.
func (w *work) isRolledUp(when time.Time) bool {
	b := w.c.Burst
	return b != nil && b.Count >= recorded && when.Sub(b.Last) < separate
}

// endRoll has those recorded that were collected.
func (w *work) endRoll() {
	if b := w.c.Burst; b != nil && b.Roll != nil {
		w.do(*b.Roll)
		w.c.Burst = &Burst{Count: b.Count, Last: b.Last}
	}
}
