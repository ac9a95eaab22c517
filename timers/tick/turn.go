package tick

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
)

// decide decides the tick to come on its own: it is made, waits, or is declined.
func (w *work) decide() {
	d, c := w.d, &w.c
	if code, why := d.changedFor(c.ID, c.Next); code != "" {
		w.decline(code, why, c.Next)
		return
	}
	if _, err := d.template.Render(c.Next, c.Number); err != nil {
		w.decline(machine.SkipInput, err.Error(), c.Next)
		return
	}
	a := Act{Do: w.turn(c.ID, c.Next), ID: c.ID, At: c.Next, Number: c.Number}
	if a.Do == Decline {
		w.decline(machine.SkipOverlap, w.overlap(), c.Next)
		return
	}
	c.Made++
	if a.Do == Wait && w.mayStayUnmade() {
		c.Unmade = &a
	} else {
		w.make(a)
	}
	w.pass()
}

// mayStayUnmade reports whether the tick to come, which waits, needs no record yet. One
// by whose end the next is found does, and so does one that may have it.
func (w *work) mayStayUnmade() bool {
	d, c := w.d, w.c
	return d.Overlap.Policy == spec.OverlapCancelPrevious && w.isRolledUp(c.Next) && !d.fixedDelay() && !w.mayBeMade(c.ID, "")
}

// make makes a tick, which has a turn or waits for one.
func (w *work) make(a Act) {
	c := &w.c
	w.endRoll() // what is rolled up has nothing in between
	if w.do(a); a.Do == Wait {
		c.Queue = with(c.Queue, a.ID)
	} else if w.d.Overlap.Bounded() {
		c.Holders = with(c.Holders, a.ID)
	}
	if w.d.PauseAfterFailures > 0 {
		c.Open = with(c.Open[max(0, len(c.Open)+1-maxOpen):], a.ID)
	}
	c.LastAt, c.LastID, c.LastEnd = a.At, a.ID, time.Time{}
}

// makeUnmade makes the tick that has no record yet, if there is one.
func (w *work) makeUnmade(do Do) {
	if u := w.c.Unmade; u != nil {
		a := *u
		a.Do, w.c.Unmade = do, nil
		w.make(a)
	}
}

// turn finds a turn for a job that comes at a moment: it has one ([Make]), it waits
// ([Wait]), or there is none ([Decline]). By cancel-previous it waits for the end of
// those that go on, and whoever waited does not any more. A backfilled job was asked
// for and is not cancelled.
func (w *work) turn(id string, when time.Time) Do {
	c := &w.c
	most, wait := w.d.Overlap.Turns()
	switch {
	case most == 0:
		return Make
	case w.isFree():
		return Make
	case w.d.Overlap.Policy == spec.OverlapCancelPrevious:
		w.leaveOnly(0, when)
		for _, holder := range c.Holders {
			if !isBackfill(holder) {
				w.do(Act{Do: Cancel, ID: holder, Code: machine.SkipOverlap, Why: fmt.Sprintf("schedule %s cancels a job when the next one comes, which is %s", w.d.Name, id)})
			}
		}
	case len(c.Queue) >= wait:
		return Decline
	}
	return Wait
}

// isFree reports whether a job that comes now goes on at once.
func (w *work) isFree() bool {
	most, _ := w.d.Overlap.Turns()
	return len(w.c.Queue) == 0 && w.c.Unmade == nil && (most == 0 || len(w.c.Holders) < most)
}

// leaveOnly dismisses those who have waited longest, until so many are left, because
// another one came at a moment. A tick that is skipped is not one of the runs that are
// counted.
func (w *work) leaveOnly(n int, when time.Time) {
	c := &w.c
	why := fmt.Sprintf("a newer job of schedule %s came before its turn", w.d.Name)
	for len(c.Queue) > n {
		id := c.Queue[0]
		c.Queue = without(c.Queue, id)
		w.do(Act{Do: Dismiss, ID: id, Code: machine.SkipOverlap, Why: why})
		if w.d.isTick(id) {
			c.Made--
			w.burst(when)
			c.Burst.Count++
		}
	}
	if u := c.Unmade; u != nil && n == 0 { // nobody waits but that
		a := *u
		a.Do, a.Code, a.Why = Decline, machine.SkipOverlap, why
		c.Unmade = nil
		c.Made--
		w.record(a, when)
	}
}

// overlap says why there is no turn for a job.
func (w *work) overlap() string {
	most, wait := w.d.Overlap.Turns()
	went, may := "1 job", strconv.Itoa(most)
	if n := len(w.c.Holders); n != 1 {
		went = fmt.Sprintf("%d jobs", n)
	}
	why := fmt.Sprintf("%s of schedule %s went on", went, w.d.Name)
	if wait > 0 {
		why += fmt.Sprintf(" and %d waited", len(w.c.Queue))
		may += fmt.Sprintf(" and %d", wait)
	}
	why += fmt.Sprintf(", and no more than %s may", may)
	return why
}

// serveQueue gives turns to those who wait, in order.
func (w *work) serveQueue() {
	c := &w.c
	if w.d.Overlap.Policy == spec.OverlapCancelPrevious {
		w.leaveOnly(1, w.now)
	}
	most, _ := w.d.Overlap.Turns()
	for w.hasRoom() && len(c.Queue) > 0 && (most == 0 || len(c.Holders) < most) {
		id := c.Queue[0]
		c.Queue = without(c.Queue, id)
		w.admit(id)
	}
	if w.hasRoom() && len(c.Queue) == 0 && len(c.Holders) < most {
		w.makeUnmade(Make)
	}
}

func (w *work) admit(id string) {
	if w.d.Overlap.Bounded() {
		w.c.Holders = with(w.c.Holders, id)
	}
	w.do(Act{Do: Admit, ID: id})
}

// serveHands finds turns for jobs that somebody triggered, as for ticks.
func (w *work) serveHands(wants []Want) {
	for _, want := range w.inOrder(wants) {
		if !want.isByHand() || !w.hasRoom() {
			continue
		}
		switch w.turn(want.ID, w.now) {
		case Make:
			w.admit(want.ID)
		case Wait:
			w.c.Queue = with(w.c.Queue, want.ID)
		default:
			w.do(Act{Do: Dismiss, ID: want.ID, Code: machine.SkipOverlap, Why: w.overlap()})
		}
	}
}

// serveOthers gives turns that nobody else wants to those who wait without a limit:
// jobs that were redriven, and ticks of the past. A tick of an earlier life has none.
func (w *work) serveOthers(wants []Want) {
	code, why := w.d.madeAnew()
	for _, want := range w.inOrder(wants) {
		switch {
		case want.isByHand() || !w.hasRoom():
		case want.By == "" && !want.Redriven && !want.At.After(w.d.Created):
			w.do(Act{Do: Dismiss, ID: want.ID, Code: code, Why: why})
		case w.isFree():
			w.admit(want.ID)
		}
	}
}

// isByHand reports whether somebody triggered the job, and it has not run yet.
func (want Want) isByHand() bool { return want.By == machine.ByHand && !want.Redriven }

// inOrder returns those who want a turn and have no place yet, the oldest first.
func (w *work) inOrder(wants []Want) []Want {
	list := slices.DeleteFunc(slices.Clone(wants), func(want Want) bool {
		return slices.Contains(w.c.Queue, want.ID) || slices.Contains(w.c.Holders, want.ID)
	})
	slices.SortFunc(list, func(a, b Want) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	return list
}
