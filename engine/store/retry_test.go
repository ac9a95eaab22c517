package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
)

// A failure with attempts left leads to the next attempt, not before it is due,
// whatever happens to one write: the outcome, the timer, the item that the timer
// offers, and the end of the timer.
func TestRetryFaults(t *testing.T) {
	for _, filter := range []string{jobWrites, timerWrites, workWrites, timerDeletes} {
		for _, fault := range faults {
			t.Run(filter+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					owner, p := w.serve(), w.process("a")
					p.submit(job("1"))
					entry, d := p.start("t1")
					p.fail(filter, fault)
					owner.fail(filter, fault)
					if fate := p.finish(entry, "t1", erred("t1"), d); fate != store.Accepted {
						t.Errorf("the outcome is %s, want accepted", fate)
					}
					w.want("q.1", machine.Retrying, 1, 1)
					due := w.get("q.1").Value.Due
					second, d := p.begin("t2")
					if time.Now().Before(due) {
						t.Errorf("attempt 2 begins %v early", time.Until(due))
					}
					p.finish(second, "t2", done("t2"), d)
					p.link.Release()
					owner.link.Release()
					time.Sleep(longGone)
					p.settle()
					w.want("q.1", machine.Succeeded, 2, 1)
					w.wantOutcomes("q.1", machine.AttemptFailed, machine.AttemptSucceeded)
					w.wantItems("q.1", 0)
					w.wantTimers("q.1")
				})
			})
		}
	}
}

// deaths are the ways to die at one write.
var deaths = []natstest.Fault{natstest.DownBefore, natstest.DownAfter}

// The process dies at any point between the outcome and the acknowledgement. If
// the outcome is not stored, its death is the failure.
func TestRetryThenDeath(t *testing.T) {
	for _, c := range []struct {
		filter  string
		fault   natstest.Fault
		outcome machine.Outcome
	}{
		{jobWrites, natstest.DownBefore, machine.AttemptLost},
		{jobWrites, natstest.DownAfter, machine.AttemptFailed},
		{timerWrites, natstest.DownBefore, machine.AttemptFailed},
		{timerWrites, natstest.DownAfter, machine.AttemptFailed},
		{answers, natstest.DownBefore, machine.AttemptFailed},
	} {
		t.Run(fmt.Sprint(c.filter, " ", c.fault), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.serve()
				a, b := w.process("a"), w.process("b")
				a.submit(job("1"))
				entry, d := a.start("t1")
				a.fail(c.filter, c.fault)
				a.die(func(ctx context.Context) {
					if _, _, err := a.Finish(ctx, entry, "t1", erred("t1")); err == nil {
						_ = d.Ack()
					}
				})
				b.runOnce("t2")
				w.want("q.1", machine.Succeeded, 2, 1)
				w.wantOutcomes("q.1", c.outcome, machine.AttemptSucceeded)
			})
		})
	}
}

// The owner dies while it fires the timer. The next one fires it.
func TestRetryThenDeathOfOwner(t *testing.T) {
	for _, filter := range []string{workWrites, timerDeletes} {
		for _, fault := range deaths {
			t.Run(filter+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					owner, p := w.serve(), w.process("a")
					p.submit(job("1"))
					entry, d := p.start("t1")
					owner.fail(filter, fault)
					p.finish(entry, "t1", erred("t1"), d)
					time.Sleep(2 * soon)
					owner.leave()
					w.serveAs("heir")
					p.runOnce("t2")
					w.want("q.1", machine.Succeeded, 2, 1)
				})
			})
		}
	}
}

// While the timer is being set the item comes back, and drives the next attempt:
// acknowledging it would take that attempt's item away.
func TestRetryDrivenByOldItem(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		entry, d := a.start("t1")
		time.Sleep(lease / 2)
		a.fail(timerWrites, natstest.Hold)
		finished := w.meanwhile(func() {
			if fate := a.finish(entry, "t1", erred("t1"), d); fate != store.Overtaken {
				t.Errorf("the outcome is %s, want overtaken", fate)
			}
		})
		second, redelivered := b.start("t2")
		if redelivered.Sequence != d.Sequence || second.Value.Attempt != 2 {
			t.Fatalf("item %d leads to attempt %d, want %d and 2", redelivered.Sequence, second.Value.Attempt, d.Sequence)
		}
		finished()
		w.wantItems("q.1", 1)
		b.finish(second, "t2", done("t2"), redelivered)
		w.want("q.1", machine.Succeeded, 2, 1)
	})
}

// A snooze waits as a retry does, and is no failure.
func TestSnooze(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		p := w.process("a")
		p.submit(job("1"))
		entry, d := p.start("t1")
		due := machine.Millisecond(time.Now().Add(time.Minute))
		p.finish(entry, "t1", machine.Returned{Hold: hold("t1"), Due: due}, d)
		w.want("q.1", machine.Scheduled, 1, 0)
		w.wantItems("q.1", 0)
		w.wantTimers("q.1", "due")
		time.Sleep(time.Until(due) - time.Second)
		w.wantItems("q.1", 0)
		p.start("t2")
		if late := time.Since(due); late < 0 || late > time.Second {
			t.Errorf("attempt 2 begins %v late", late)
		}
		w.want("q.1", machine.Running, 2, 0)
	})
}

// The item of a retry finds a job that has moved on, and starts nothing.
func TestRetryTimerIsStale(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		entry, d := p.start("t1")
		p.finish(entry, "t1", erred("t1"), d)
		stale := p.timer("q.1", "due")
		for _, c := range []struct {
			state  machine.State
			events []machine.Event
			timers []string
		}{
			{machine.Running, []machine.Event{p.claims("t2")}, nil},
			{machine.Retrying, []machine.Event{machine.Erred{Hold: hold("t2"), After: time.Hour}}, []string{"due"}},
			{machine.Cancelled, []machine.Event{machine.Stopped{At: time.Now()}}, nil},
		} {
			p.cancelTimer(stale)
			moved := w.change("q.1", c.events...)
			if err := p.Fire(t.Context(), stale); err != nil {
				t.Errorf("%s: %v", c.state, err)
			}
			w.wantItems("q.1", 1)
			p.settle()
			w.wantItems("q.1", 0)
			w.wantTimers("q.1", c.timers...) // the one that was not set is set
			if now := w.get("q.1"); now.Value.State != c.state || now.Revision != moved.Revision {
				t.Errorf("%s: the job is %s, at revision %d, want %d", c.state, now.Value.State, now.Revision, moved.Revision)
			}
		}
	})
}
