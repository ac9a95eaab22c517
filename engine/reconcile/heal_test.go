package reconcile_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
)

// A submitter dies between the record and what follows from it.
func TestSubmitterDies(t *testing.T) {
	bubble(t, func(w *world) {
		o := w.own("owner")
		time.Sleep(time.Minute)
		w.create(job("a"))
		scheduled := job("b")
		scheduled.State, scheduled.Due = machine.Scheduled, time.Now().Add(time.Hour)
		w.create(scheduled)
		time.Sleep(seen)
		if n := w.items("q.a", "q.b"); n != 1 {
			t.Errorf("%d jobs have items, want 1", n)
		}
		w.wantHealed(o, map[store.Lack]int{store.LackItem: 1, store.LackTimer: 1})
	})
}
