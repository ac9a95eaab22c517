package tick

import (
	"testing"
	"time"

	"github.com/millrace/millrace/engine/spec"
)

// Who had a turn before the limit was lifted for a while has it afterwards.
func TestLimitLiftedForAWhile(t *testing.T) {
	t.Parallel()
	now, c := worldStart, Cursor{}
	advance := func(revision uint64, o spec.Overlap) Step {
		place := stored(worldStart)
		place.Revision, place.Stored = revision, now
		step := compile(t, spec.Schedule{Every: spec.Duration(time.Minute), Overlap: o}, place).Advance(c, Facts{Now: now})
		c, now = step.Cursor, now.Add(time.Second)
		return step
	}
	skip := spec.Overlap{Policy: spec.OverlapSkip}
	advance(1, skip)
	now = now.Add(time.Minute)
	if step := advance(1, skip); len(step.Acts) != 1 || step.Acts[0].Do != Make {
		t.Fatalf("the first tick leads to %+v, want one job", step.Acts)
	}
	advance(2, spec.Overlap{})
	advance(3, skip)
	now = now.Add(time.Minute)
	if step := advance(3, skip); len(step.Acts) != 1 || step.Acts[0].Do != Decline {
		t.Errorf("while the first job goes on the second tick leads to %+v, want none", step.Acts)
	}
}

// A tick that waits is not overtaken by itself, if an owner decided it who did not know
// that the schedule had been paused and resumed before.
func TestResumedBeforeATickThatWaits(t *testing.T) {
	t.Parallel()
	s := spec.Schedule{Every: spec.Duration(100 * time.Millisecond), Overlap: spec.Overlap{Policy: spec.OverlapCancelPrevious}}
	for _, ticks := range []int{2, 5, 150} {
		place, now, c := stored(worldStart), worldStart, Cursor{}
		for range ticks {
			c = compile(t, s, place).Advance(c, Facts{Now: now}).Cursor
			now = now.Add(100 * time.Millisecond)
		}
		was := c
		now = now.Add(-10 * time.Millisecond)
		place.Revision, place.Stored = 2, was.Past.Add(-time.Millisecond)
		place.Since = place.Stored
		step := compile(t, s, place).Advance(c, Facts{Now: now})
		c = step.Cursor
		for _, a := range step.Acts {
			if a.Do == Dismiss || a.Do == Decline && a.At.Equal(was.Past) {
				t.Errorf("%d ticks: what was decided is decided again: %+v", ticks, a)
			}
		}
		if c.Number != was.Number || c.Made != was.Made || !c.Next.Equal(was.Next) {
			t.Errorf("%d ticks: number %d, %d made, next %v; want %d, %d, %v", ticks, c.Number, c.Made, c.Next, was.Number, was.Made, was.Next)
		}
	}
}

// No turn is free while a tick waits, even if it has no record.
func TestUnmadeComesFirst(t *testing.T) {
	t.Parallel()
	s := spec.Schedule{Every: spec.Duration(time.Minute), Overlap: spec.Overlap{Policy: spec.OverlapCancelPrevious}}
	w := &work{d: compile(t, s, stored(worldStart)), c: Cursor{Unmade: &Act{Do: Wait, ID: "r.s=1"}}}
	if w.isFree() {
		t.Error("a turn is free, and a tick waits for it")
	}
	if w.c.Unmade = nil; !w.isFree() {
		t.Error("no turn is free, and nobody waits or goes on")
	}
}
