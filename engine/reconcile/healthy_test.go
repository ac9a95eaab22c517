package reconcile_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
)

// A busy system is not healed: jobs wait, run longer than the reader's lag, fail,
// are tried again, snooze, are handed back, have limits, and workers die. Only jobs
// of the dead one are freed, unless others were quicker to take them.
func TestHealthy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		o := w.own("owner")
		handle := func(ctx context.Context, entry store.Entry) machine.Event {
			takes := rand.N(2 * time.Second)
			if rand.N(20) == 0 {
				takes = rand.N(40 * time.Second)
			}
			done := succeed(takes)(ctx, entry)
			if done == nil {
				return nil
			}
			switch rand.N(10) {
			case 0, 1:
				return machine.Erred{Hold: hold(entry), Error: machine.Error{Message: "boom"}, Random: rand.Float64()}
			case 2:
				return machine.Erred{Hold: hold(entry), Error: machine.Error{Message: "boom"}, After: rand.N(30 * time.Second)}
			case 3:
				return machine.Returned{Hold: hold(entry), Reason: "snooze", Due: time.Now().Add(rand.N(30 * time.Second))}
			case 4:
				return machine.Returned{Hold: hold(entry), Reason: "drain"}
			}
			return done
		}
		w.work("a", handle)
		w.work("b", handle)
		dies := w.work("c", handle)
		var ids []string
		for i := range 8 {
			prefix := string(rune('a' + i))
			ids = append(ids, w.submit(150, prefix+"p", nil)...)
			ids = append(ids, w.submit(100, prefix+"s", func(j *machine.Job) {
				j.State, j.Due = machine.Scheduled, machine.Millisecond(time.Now().Add(rand.N(time.Minute)))
			})...)
			ids = append(ids, w.submit(50, prefix+"l", func(j *machine.Job) {
				j.StartBy = machine.Millisecond(time.Now().Add(rand.N(time.Minute)))
				j.Deadline = j.StartBy.Add(rand.N(time.Minute))
			})...)
			time.Sleep(rand.N(10 * time.Second))
		}
		dies.crash()
		w.within(time.Hour, "all jobs have ended", w.ended(ids, ""))
		time.Sleep(11 * time.Minute)
		healed := o.Healed()
		if n := healed[store.LackNode]; n > slots {
			t.Errorf("%d jobs were freed, and the dead worker had no more than %d", n, slots)
		}
		delete(healed, store.LackNode)
		if len(healed) > 0 {
			t.Errorf("healed %v", healed)
		}
	})
}
