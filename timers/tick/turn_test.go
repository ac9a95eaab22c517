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
