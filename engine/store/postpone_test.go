package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/natstest"
)

// A worker without the kind lets the job wait, shortly at first and then longer,
// without an attempt, until a worker has it, whatever happens to the write.
func TestPostponeFaults(t *testing.T) {
	for _, fault := range append(faults, natstest.Pass) {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.serve()
				p := w.process("a")
				delete(p.kinds, "q.k")
				p.submit(job("1"))
				p.fail(jobWrites, fault)
				d, began := p.take(), time.Now()
				if _, ok := p.deliver(d, "t1"); ok {
					t.Error("a job runs without a handler")
				}
				p.link.Release()
				w.want("q.1", machine.Scheduled, 0, 0)
				w.wantItems("q.1", 0)
				d = p.take()
				if wait := d.Due.Sub(began); wait < 900*time.Millisecond {
					t.Errorf("the first wait is %v", wait)
				}
				p.deliver(d, "t2")
				if wait := time.Until(w.get("q.1").Value.Due); wait < 20*time.Second || wait > 40*time.Second {
					t.Errorf("the second wait is %v", wait)
				}
				p.kinds["q.k"] = 0
				p.runOnce("t3")
				w.want("q.1", machine.Succeeded, 1, 0)
			})
		})
	}
}

// A timer that is not set for sure keeps the item, which brings another one.
func TestPostponeTimerFaults(t *testing.T) {
	for _, fault := range faults {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.serve()
				p := w.process("a")
				delete(p.kinds, "q.k")
				p.submit(job("1"))
				p.fail(timerWrites, fault)
				if _, ok, err := p.Deliver(t.Context(), p.take(), "t1", p); ok || err == nil {
					t.Errorf("runs %v, %v, want an error", ok, err)
				}
				p.link.Release()
				time.Sleep(time.Second) // the connection is there again
				p.kinds["q.k"] = 0
				p.runOnce("t2")
				w.want("q.1", machine.Succeeded, 1, 0)
			})
		})
	}
}

// From whatever row would let the worker claim the job: a retry that is due, and
// an attempt of a node that is dead, which is a failure, or that does not know of
// it, which is none.
func TestPostponeRows(t *testing.T) {
	for name, c := range map[string]struct {
		before   func(w *world, a *process)
		state    machine.State
		attempt  int
		failures int
	}{
		"retrying": {func(w *world, a *process) {
			entry, d := a.start("t1")
			a.finish(entry, "t1", erred("t1"), d)
		}, machine.Scheduled, 1, 1},
		"dead": {func(w *world, a *process) {
			a.start("t1")
			a.crash()
			time.Sleep(longGone)
		}, machine.Scheduled, 1, 1},
		"unaware": {func(w *world, a *process) {
			a.start("t1")
			a.forget("t1")
		}, machine.Scheduled, 1, 0},
		"last failure": {func(w *world, a *process) {
			a.kinds["q.k"] = 1
			a.start("t1")
			a.crash()
			time.Sleep(longGone)
		}, machine.Failed, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.serve()
				a, b := w.process("a"), w.process("b")
				delete(b.kinds, "q.k")
				a.submit(job("1"))
				c.before(w, a)
				for w.get("q.1").Value.State != c.state {
					b.deliver(b.take(), "t2")
				}
				w.want("q.1", c.state, c.attempt, c.failures)
				if c.state == machine.Scheduled {
					w.wantTimers("q.1", "due")
				}
				w.wantItems("q.1", 0)
				if b.Runs("q.1", "t2") {
					t.Error("the node answers for a job that it does not run")
				}
			})
		})
	}
}

// My own claim, whose answer was lost, is no failure either.
func TestPostponeOfLostClaim(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		p.start("t1")
		p.forget("t1")
		delete(p.kinds, "q.k")
		p.deliver(p.take(), "t2")
		w.want("q.1", machine.Scheduled, 1, 0)
		w.wantOutcomes("q.1", machine.AttemptLost)
	})
}

// The process dies between the record and the timer: the item comes back and
// brings it.
func TestPostponeThenDeath(t *testing.T) {
	for _, fault := range deaths {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.serve()
				a, b := w.process("a"), w.process("b")
				delete(a.kinds, "q.k")
				a.submit(job("1"))
				d := a.take()
				a.fail(timerWrites, fault)
				a.die(func(ctx context.Context) { _, _, _ = a.Deliver(ctx, d, "t1", a) })
				w.want("q.1", machine.Scheduled, 0, 0)
				b.begin("t2")
				w.want("q.1", machine.Running, 1, 0)
			})
		})
	}
}

// An item of the past postpones nothing: the job runs elsewhere by now.
func TestPostponeOfStaleItem(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		delete(b.kinds, "q.k")
		submitted := a.submit(job("1"))
		running, _ := a.start("t1")
		a.again(submitted)
		b.deliver(b.take(), "t2")
		if now := w.get("q.1"); now.Revision != running.Revision {
			t.Errorf("the job is %s, want it left alone", now.Value.State)
		}
		w.wantItems("q.1", 1)
	})
}
