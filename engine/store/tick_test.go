package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
)

// skipped is a job that its schedule declined from the start.
func skipped(local string) machine.Job {
	j := ticked(job(local))
	j.Tick.Watched = true
	j.State, j.Finished = machine.Skipped, j.Created
	j.Error = &machine.Error{Code: machine.SkipMisfire, Message: "it was found 3h late"}
	return j
}

// A tick that is declined from the start has a record that expires, and runs when
// somebody wants it after all.
func TestSubmitSkipped(t *testing.T) {
	for _, fault := range append(faults, natstest.Pass) {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				heard, told := w.heard("q.1"), w.signals()
				p.fail(jobWrites, fault)
				j := skipped("1")
				entry := p.submit(j)
				p.link.Release()
				w.want("q.1", machine.Skipped, 0, 0)
				if now := w.get("q.1"); !w.expires(now) || now.Value.Expires.Sub(j.Finished) != 14*24*time.Hour || !entry.Value.Expires.Equal(now.Value.Expires) {
					t.Errorf("it expires at %v, and %v was returned", now.Value.Expires, entry.Value.Expires)
				}
				if n := heard(); n == 0 {
					t.Error("its end was not announced")
				}
				w.wantSignals(told(), machine.Skipped)
				if again, created, err := p.Submit(t.Context(), j); created || err != nil || again.Revision != entry.Revision {
					t.Errorf("submitted again: created %v, %v", created, err)
				}
				w.wantItems("q.1", 0)
				must(p.Redrive(t.Context(), "q.1"))(t)
				p.runOnce("t1")
				w.want("q.1", machine.Succeeded, 1, 0)
			})
		})
	}
}

// One with a large input goes with that, when its retention is over.
func TestSubmitSkippedLarge(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		j := skipped("1")
		j.Input = text(store.Inline + 1)
		p.submit(j)
		expiry := p.timer("q.1", "expiry")
		if got := expiry.At.Sub(j.Finished); got < 14*24*time.Hour || got > 14*24*time.Hour+time.Second {
			t.Errorf("it goes after %v", got)
		}
		if err := p.Fire(t.Context(), expiry); err != nil {
			t.Error(err)
		}
		w.wantNothing()
	})
}

// A tick by the clock is compared with its schedule before its first claim, and
// declined if that says so: the item is gone. What somebody wanted is not.
func TestClaimAsksTheSchedule(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		asked := 0
		p.declines = func(machine.Job) (*machine.Declined, error) {
			asked++
			return &machine.Declined{Code: machine.SkipPaused, Why: "nightly is paused"}, nil
		}
		p.submit(ticked(job("1")))
		if entry, ok := p.deliver(p.take(), "t1"); ok || entry.Value.State != machine.Skipped || entry.Value.Error.Code != machine.SkipPaused {
			t.Errorf("got %+v", entry.Value)
		}
		if now := w.get("q.1"); now.Value.State != machine.Skipped || !w.expires(now) {
			t.Errorf("stored is %+v", now.Value)
		}
		w.wantItems("q.1", 0)
		must(p.Redrive(t.Context(), "q.1"))(t)
		p.runOnce("t2")
		w.want("q.1", machine.Succeeded, 1, 0)

		byHand := ticked(job("2"))
		byHand.Tick.By = machine.ByHand
		p.submit(byHand)
		p.runOnce("t3")
		p.submit(job("3"))
		p.runOnce("t4")
		if asked != 1 {
			t.Errorf("the schedule was asked %d times, want once", asked)
		}
	})
}

// While nobody knows what the schedule says, the item comes back. What was claimed once
// is not compared again.
func TestClaimWaitsForTheSchedule(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		p := w.process("a")
		unknown := errors.New("no leader")
		p.declines = func(machine.Job) (*machine.Declined, error) { return nil, unknown }
		p.submit(ticked(job("1")))
		if _, ok, err := p.Deliver(t.Context(), p.take(), "t1", p); ok || !errors.Is(err, unknown) {
			t.Errorf("runs %v, %v", ok, err)
		}
		if p.Runs("q.1", "t1") {
			t.Error("the node answers for a job that it does not run")
		}
		p.declines = nil
		entry, d := p.begin("t2")
		p.finish(entry, "t2", erred("t2"), d)
		p.declines = func(machine.Job) (*machine.Declined, error) { return &machine.Declined{Code: machine.SkipChanged}, nil }
		p.runOnce("t3")
		w.want("q.1", machine.Succeeded, 2, 1)
	})
}

// A broadcast is compared when it is dispatched. When it is redriven it waits for a turn
// and goes to the nodes that it had.
func TestOutsetAsksTheSchedule(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p, l := w.serve(), w.owns("a")
		p.finds(strangers(2), nil)
		p.declines = func(machine.Job) (*machine.Declined, error) {
			return &machine.Declined{Code: machine.SkipChanged, Why: "nightly was deleted"}, nil
		}
		j := ticked(delayedFan("1", time.Second))
		j.Tick.Turn, j.Wait = true, machine.WaitTurn
		p.submit(j)
		w.wantTimers("q.1")
		p.heals("q.1")
		must(p.Admit(t.Context(), "q.1", l))(t)
		time.Sleep(3 * time.Second)
		w.want("q.1", machine.Skipped, 0, 0)

		must(p.Redrive(t.Context(), "q.1"))(t)
		must(p.Admit(t.Context(), "q.1", l))(t)
		time.Sleep(3 * time.Second)
		w.wantParts(map[string]machine.State{"n0": machine.Pending, "n1": machine.Pending})
		for _, of := range []string{"n0", "n1"} {
			must(p.Cancel(t.Context(), part(of), "asked"))(t)
		}
		p.conclude(machine.Concluded{Tally: machine.Tally{Cancelled: 2}, Error: &machine.Error{Message: "0 of 2"}})

		p.finds(strangers(3), nil)
		entry := must(p.Redrive(t.Context(), "q.1"))(t)
		if entry.Value.Wait != machine.WaitTurn || entry.Value.Fan.Total != 2 {
			t.Errorf("redriven, it is %+v", entry.Value)
		}
		time.Sleep(time.Minute)
		w.wantParts(map[string]machine.State{"n0": machine.Cancelled, "n1": machine.Cancelled})
		must(p.Admit(t.Context(), "q.1", l))(t)
		time.Sleep(3 * time.Second)
		w.wantParts(map[string]machine.State{"n0": machine.Pending, "n1": machine.Pending})
	})
}

// A timer of the past dispatches nothing that waits for its turn.
func TestOutsetBeforeTheTurn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p, l := w.process("a"), w.owns("a")
		p.finds(strangers(1), nil)
		j := ticked(delayedFan("1", time.Second))
		j.Tick.Turn, j.Wait = true, machine.WaitTurn
		p.submit(j)
		must(p.Admit(t.Context(), "q.1", l))(t)
		timer := p.timer("q.1", "outset")
		must(p.Cancel(t.Context(), "q.1", "asked"))(t)
		must(p.Redrive(t.Context(), "q.1"))(t)
		time.Sleep(time.Minute)
		if err := p.Fire(t.Context(), timer); err != nil {
			t.Error(err)
		}
		if got := w.get("q.1").Value; got.Wait != machine.WaitTurn {
			t.Errorf("it is %+v", got)
		}
	})
}

// The headers of what waits for a turn say for whose, and its limits are looked after.
func TestTurnHeaders(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p, l := w.process("a"), w.owns("a")
		j := turned("1")
		j.Deadline = machine.Millisecond(j.Created.Add(time.Hour))
		p.submit(j)
		glance := func() store.Glance {
			stream := must(w.js.Stream(t.Context(), "KV_mr_default_jobs"))(t)
			return store.LookAt(nats.Header(must(stream.GetMsg(t.Context(), w.get("q.1").Revision))(t).Header))
		}
		if got := glance(); got.Turn != "nightly" || got.Due != 0 || got.Deadline != j.Deadline.UnixMilli() {
			t.Errorf("waiting, it looks like %+v", got)
		}
		p.cancelTimer(p.timer("q.1", "deadline"))
		p.heals("q.1", store.LackTimer)
		entry := must(p.Admit(t.Context(), "q.1", l))(t)
		if got := glance(); got.Turn != "" || got.Due != entry.Value.Due.UnixMilli() {
			t.Errorf("admitted, it looks like %+v", got)
		}
		p.cancelTimer(p.timer("q.1", "due"))
		p.heals("q.1", store.LackTimer)
	})
}

// Ticks can be submitted many at a time. The owner is told of those that wait; what was
// declined is submitted by itself.
func TestSubmitTicksAsync(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p, told := w.process("a"), w.signals()
		outcome := make(chan error, 1)
		p.SubmitAsync(turned("1"), func(_ store.Entry, err error) { outcome <- err })
		if err := <-outcome; err != nil {
			t.Error(err)
		}
		w.wantSignals(told(), machine.Scheduled)
		p.SubmitAsync(skipped("2"), func(_ store.Entry, err error) { outcome <- err })
		err := <-outcome
		if err == nil {
			t.Error("what has ended is submitted along with others")
		}
		if entry, created, err := p.Settle(t.Context(), skipped("2"), err); err != nil || !created || !w.expires(entry) {
			t.Errorf("settled: created %v, %v", created, err)
		}
	})
}
