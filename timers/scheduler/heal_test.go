package scheduler_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers/scheduler"
)

// A server that lost power may have forgotten an edit which an owner had seen. The
// schedule goes on by what is there.
func TestLostEdit(t *testing.T) {
	bubble(t, func(w *world) {
		first := w.own("a", nil)
		w.apply(spec.Schedule{Name: "s", Every: spec.Duration(time.Second)})
		time.Sleep(10 * time.Second)
		first.stop()
		before := len(w.ticks("s"))
		cursor := must(scheduler.Cursors(w.pub, ns).Get(w.Context(), scheduler.Key("s")))(w)
		cursor.Value.Revision += 1000
		msg := nats.NewMsg("$KV." + ns.Bucket(streams.Cursor) + "." + scheduler.Key("s"))
		msg.Header = streams.Envelope{Type: "cursor", Version: 1}.Header()
		msg.Data = must(json.Marshal(cursor.Value))(w)
		must(w.pub.Publish(w.Context(), msg))(w)
		time.Sleep(10 * time.Second)

		second := w.own("b", nil)
		time.Sleep(5 * time.Second)
		if n := len(w.ticks("s")); n != before {
			w.Errorf("%d ticks after five seconds, want %d: the edit may be found yet", n, before)
		}
		time.Sleep(2 * time.Minute)
		jobs := w.ticks("s")
		for i, j := range jobs[1:] {
			if d := j.Tick.At.Sub(jobs[i].Tick.At); d != time.Second {
				w.Errorf("%s comes %v after the tick before", j.ID, d)
			}
		}
		if last := jobs[len(jobs)-1].Tick.At; time.Since(last) > time.Second {
			w.Errorf("the last tick is of %v, and it is %v", last, time.Now())
		}
		second.stop()
	})
}

// Who wants a turn is not forgotten if the leader cannot be asked just then.
func TestWantsAreAskedAgain(t *testing.T) {
	bubble(t, func(w *world) {
		reads := "$JS.API.STREAM.MSG.GET.KV_" + ns.Bucket(streams.Jobs)
		dead := false
		link := natstest.NewLink(w, w.srv, func(natstest.Write) natstest.Fault {
			if dead {
				return natstest.LoseAnswer
			}
			return natstest.Pass
		}, reads)
		w.ownBy("a", 10*time.Minute, link)
		w.apply(spec.Schedule{Name: "s", At: []time.Time{time.Now().Add(time.Hour)}, Overlap: spec.Overlap{Policy: spec.OverlapSkip}})
		time.Sleep(time.Second)
		j := wanting("s", machine.ByHand, time.Now())
		dead = true
		_, _, err := w.Submit(w.Context(), j)
		must(0, err)(w)
		time.Sleep(20 * time.Second)
		dead = false
		time.Sleep(30 * time.Second)
		if got := must(w.Get(w.Context(), j.ID))(w).Value; got.Wait == machine.WaitTurn {
			w.Errorf("%s waits for a turn that nobody else has: %+v", got.ID, got)
		}
	})
}

// Who triggers a job need not wait until a large backfill is over to hear that there
// is no turn for it.
func TestTriggeredBeforeBackfilled(t *testing.T) {
	bubble(t, func(w *world) {
		w.own("a", nil)
		w.apply(spec.Schedule{Name: "s", At: []time.Time{time.Now().Add(time.Hour)}, Overlap: spec.Overlap{Policy: spec.OverlapSkip}})
		for i := range 150 {
			_, _, err := w.Submit(w.Context(), wanting("s", machine.ByBackfill, time.Now().Add(time.Duration(i-1000)*time.Minute)))
			must(0, err)(w)
		}
		time.Sleep(time.Minute)
		j := wanting("s", machine.ByHand, time.Now())
		_, _, err := w.Submit(w.Context(), j)
		must(0, err)(w)
		time.Sleep(10 * time.Second)
		if got := must(w.Get(w.Context(), j.ID))(w).Value; got.State != machine.Skipped {
			w.Errorf("%s is %s, want skipped: another job goes on", j.ID, got.State)
		}
	})
}

// wanting returns a job that waits for a turn.
func wanting(schedule string, by machine.Maker, at time.Time) machine.Job {
	at = machine.Millisecond(at)
	return machine.Job{
		ID: fmt.Sprintf("q.%s=%d-%s", schedule, at.UnixMilli(), by), Kind: "q.k", MaxAttempts: 1, Created: time.Now(),
		State: machine.Scheduled, Wait: machine.WaitTurn, Due: machine.Millisecond(time.Now()),
		Tick: &machine.Tick{Schedule: schedule, At: at, By: by, Turn: true},
	}
}
