package scheduler_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/engine/spec"
)

// A schedule ticks on time.
func TestTicks(t *testing.T) {
	bubble(t, func(w *world) {
		w.own("a", nil)
		w.apply(spec.Schedule{Name: "s", Every: spec.Duration(time.Second)})
		time.Sleep(61 * time.Second)
		jobs := w.ticks("s")
		if len(jobs) != 61 {
			t.Errorf("%d jobs, want 61", len(jobs))
		}
		for i, j := range jobs {
			if late := j.Created.Sub(j.Tick.At); late < 0 || late > time.Millisecond {
				t.Errorf("%s was made %v late", j.ID, late)
			}
			if i > 0 && j.Tick.Number != int64(i+1) {
				t.Errorf("%s has number %d, want %d", j.ID, j.Tick.Number, i+1)
			}
		}
	})
}
