package scheduler_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/kv"
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

// Of many that tick at the same time, those come first whose jobs may start at once.
func TestUrgentFirst(t *testing.T) {
	bubble(t, func(w *world) {
		for i := range 400 {
			s := spec.Schedule{Name: fmt.Sprint("s", i), Every: spec.Duration(time.Minute)}
			if i%20 != 0 {
				s.Jitter = spec.Duration(30 * time.Second)
			}
			w.apply(s)
		}
		w.own("a", nil)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		at := time.Now().Truncate(time.Minute)
		jobs := must(w.jobs.ListStale(w.Context(), ">"))(w)
		jobs = slices.DeleteFunc(jobs, func(e kv.Entry[machine.Job]) bool { return !e.Value.Tick.At.Equal(at) })
		if len(jobs) != 400 {
			w.Fatalf("%d jobs of %v, want 400", len(jobs), at)
		}
		sum := 0
		for rank, e := range jobs { // by revision
			if e.Value.State == machine.Pending {
				sum += rank
			}
		}
		if mean := sum / 20; mean > 130 { // 128 are tended at once; at random it would be 200
			w.Errorf("those that may start at once were made as number %d on average", mean)
		}
	})
}
