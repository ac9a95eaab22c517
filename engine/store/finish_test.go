package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// The branches of Finish, by the fate of the outcome.

// An outcome is stored once, announced and acknowledged, whatever happens to
// its write: the answer is lost, it never leaves, it lands late.
func TestFinishFaults(t *testing.T) {
	for _, fault := range append(faults, natstest.Pass) {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				p.submit(job("1"))
				entry, d := p.start("t1")
				heard := w.heard("q.1")
				p.fail(jobWrites, fault)
				if fate := p.finish(entry, "t1", done("t1"), d); fate != store.Accepted {
					t.Errorf("the outcome is %s, want accepted", fate)
				}
				p.link.Release() // what was held lands now
				w.want("q.1", machine.Succeeded, 1, 0)
				w.wantOutcomes("q.1", machine.AttemptSucceeded)
				w.wantItems("q.1", 0)
				if n := heard(); n != 1 {
					t.Errorf("the end was announced %d times, want once", n)
				}
			})
		})
	}
}

// A job that is handed back is offered again before the old item is
// acknowledged, whatever happens to the write of the outcome or of the item.
func TestHandBackFaults(t *testing.T) {
	for _, filter := range []string{jobWrites, workWrites} {
		for _, fault := range faults {
			t.Run(filter+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p := w.process("a")
					p.submit(job("1"))
					entry, d := p.start("t1")
					p.fail(filter, fault)
					if fate := p.finish(entry, "t1", machine.Returned{Hold: hold("t1")}, d); fate != store.Accepted {
						t.Errorf("the outcome is %s, want accepted", fate)
					}
					w.want("q.1", machine.Pending, 1, 0)
					second, d := p.start("t2")
					if second.Value.Attempt != 2 {
						t.Errorf("attempt %d runs, want 2", second.Value.Attempt)
					}
					p.link.Release()
					p.finish(second, "t2", done("t2"), d)
					p.settle()
					w.want("q.1", machine.Succeeded, 2, 0)
					w.wantOutcomes("q.1", machine.AttemptReturned, machine.AttemptSucceeded)
					w.wantItems("q.1", 0)
				})
			})
		}
	}
}

// The token is still mine at a newer revision, because somebody set cancel
// meanwhile: success is accepted, anything else ends the job as cancelled.
func TestFinishAfterCancel(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		for local, c := range map[string]struct {
			outcome machine.Event
			state   machine.State
			attempt machine.Outcome
		}{
			"done":  {done("t"), machine.Succeeded, machine.AttemptSucceeded},
			"erred": {erred("t"), machine.Cancelled, machine.AttemptCancelled},
			"back":  {machine.Returned{Hold: hold("t")}, machine.Cancelled, machine.AttemptCancelled},
		} {
			id := "q." + local
			p.submit(job(local))
			entry, d := p.start("t")
			w.change(id, machine.Stopped{Cause: "asked", At: time.Now()})
			if fate := p.finish(entry, "t", c.outcome, d); fate != store.Accepted {
				t.Errorf("%s: the outcome is %s, want accepted", id, fate)
			}
			w.want(id, c.state, 1, 0)
			w.wantOutcomes(id, c.attempt)
			w.wantItems(id, 0)
		}
	})
}

// The job was taken over: the outcome is dropped, and nothing is acknowledged,
// since the server would credit the delivery that drives the newer attempt.
func TestFinishStale(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		entry, d := a.start("t1")
		a.crash()
		time.Sleep(longGone)
		second, driver := b.start("t2")
		a.link.Up()
		if fate := a.finish(entry, "t1", done("t1"), d); fate != store.Stale {
			t.Errorf("the outcome is %s, want stale", fate)
		}
		w.wantItems("q.1", 1)
		if stored := w.get("q.1"); stored.Revision != second.Revision {
			t.Error("a stale outcome changed the job")
		}
		b.finish(second, "t2", done("t2"), driver)
		w.want("q.1", machine.Succeeded, 2, 1)
		w.wantOutcomes("q.1", machine.AttemptLost, machine.AttemptSucceeded)
		w.wantItems("q.1", 0)
	})
}

// The job was taken over and waits for its next attempt: stale, and what leads
// there stays.
func TestFinishStaleOfRetrying(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		entry, d := a.start("t1")
		a.forget("t1")
		second, driver := b.start("t2")
		b.finish(second, "t2", erred("t2"), driver)
		if fate := a.finish(entry, "t1", done("t1"), d); fate != store.Stale {
			t.Errorf("the outcome is %s, want stale", fate)
		}
		w.want("q.1", machine.Retrying, 2, 1)
		w.wantTimers("q.1", "due")
	})
}

// The job was taken over and has ended: the outcome is dropped, what the end
// owes is carried out again, and the item is acknowledged.
func TestFinishEnded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		entry, d := a.start("t1")
		a.forget("t1")
		b.start("t2")
		w.change("q.1", done("t2")) // b dies before it announces that
		heard := w.heard("q.1")
		if fate := a.finish(entry, "t1", erred("t1"), d); fate != store.Ended {
			t.Errorf("the outcome is %s, want ended", fate)
		}
		if n := heard(); n != 1 {
			t.Errorf("the end was announced %d times, want once", n)
		}
		w.want("q.1", machine.Succeeded, 2, 0)
		w.wantItems("q.1", 0)
	})
}

// The record is gone: the item is acknowledged.
func TestFinishGone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		entry, d := p.start("t1")
		w.remove("q.1")
		if fate := p.finish(entry, "t1", done("t1"), d); fate != store.Ended {
			t.Errorf("the outcome is %s, want ended", fate)
		}
		w.wantItems("q.1", 0)
		if _, err := w.jobs.Get(t.Context(), "q.1"); !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("the record reads %v", err)
		}
	})
}

// My outcome is there, and the job has moved on since, driven by the very item
// that drove me: acknowledging it would take the newer attempt's item away.
func TestFinishOvertaken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		entry, d := a.start("t1")
		time.Sleep(lease / 2)
		a.fail(jobWrites, natstest.LoseAnswer)
		finished := w.meanwhile(func() {
			if fate := a.finish(entry, "t1", erred("t1"), d); fate != store.Overtaken {
				t.Errorf("the outcome is %s, want overtaken", fate)
			}
		})
		redelivered := b.take() // after the acknowledgement wait, while a waits for its answer
		second, ok := b.deliver(redelivered, "t2")
		if !ok || second.Value.Attempt != 2 {
			t.Fatalf("got %+v, runs %v, want attempt 2", second.Value, ok)
		}
		finished()
		w.wantItems("q.1", 1)
		b.finish(second, "t2", done("t2"), redelivered)
		w.want("q.1", machine.Succeeded, 2, 1)
	})
}

// NATS is away when the handler returns: the outcome is kept, however long that
// takes, and accepted.
func TestFinishWhileAway(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		entry, d := p.start("t1")
		p.link.Down()
		time.AfterFunc(5*time.Minute, p.link.Up)
		if fate := p.finish(entry, "t1", done("t1"), d); fate != store.Accepted {
			t.Errorf("the outcome is %s, want accepted", fate)
		}
		w.want("q.1", machine.Succeeded, 1, 0)
		w.wantItems("q.1", 0)
	})
}

// The context ends first: the outcome is not stored, and the job is left to
// others.
func TestFinishAbandoned(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		entry, _ := a.start("t1")
		a.link.Down()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, fate, err := a.Finish(ctx, entry, "t1", done("t1"))
		if err == nil || fate != store.Stale || strings.Contains(err.Error(), "\n") {
			t.Errorf("the outcome is %s, %v; want an error in one line", fate, err)
		}
		w.want("q.1", machine.Running, 1, 0)
		w.wantItems("q.1", 1)
		a.forget("t1")
		a.link.Up()
		time.Sleep(time.Minute)
		b.start("t2")
		w.want("q.1", machine.Running, 2, 1)
	})
}

// The record is one that this build cannot read: it is left alone.
func TestFinishUnreadable(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		entry, _ := p.start("t1")
		raw := kv.Open(w.pub, ns.Bucket(streams.Jobs), kv.JSON[string]())
		must(raw.Update(t.Context(), "q.1", "of a newer build", entry.Revision))(t)
		_, fate, err := p.Finish(t.Context(), entry, "t1", done("t1"))
		if !errors.Is(err, store.ErrUnreadable) || fate != store.Stale {
			t.Errorf("the outcome is %s, %v, want an error", fate, err)
		}
		w.wantItems("q.1", 1)
	})
}

// An outcome that no server takes ends the job, instead of being tried for ever.
func TestFinishTooLarge(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		entry, d := p.start("t1")
		large := machine.Erred{Hold: hold("t1"), Error: machine.Error{Message: strings.Repeat("x", 2<<20)}}
		if fate := p.finish(entry, "t1", large, d); fate != store.Accepted {
			t.Errorf("the outcome is %s, want accepted", fate)
		}
		w.want("q.1", machine.Failed, 1, 1)
		if e := w.get("q.1").Value.Error; e == nil || !strings.Contains(e.Message, "maximum payload") {
			t.Errorf("the error is %+v", e)
		}
		w.wantItems("q.1", 0)
	})
}

// settle lets everything that lies in the queue be settled.
func (p *process) settle() {
	p.w.Helper()
	synctest.Wait()
	for d := p.takeWithin(time.Second); d != nil; d = p.takeWithin(time.Second) {
		if entry, ok := p.deliver(d, "settle"); ok {
			p.w.Errorf("%s runs once more", entry.Key)
		}
	}
}
