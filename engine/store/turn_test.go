package store_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// ticked makes a job one that the clock made for a schedule.
func ticked(j machine.Job) machine.Job {
	j.Tick = &machine.Tick{Schedule: "nightly", At: machine.Millisecond(j.Created), Number: 7, Revision: 3}
	return j
}

// turned is a job that waits for a turn of its schedule.
func turned(local string) machine.Job {
	j := ticked(job(local))
	j.Tick.Turn = true
	j.State, j.Wait, j.Due = machine.Scheduled, machine.WaitTurn, j.Tick.At
	return j
}

// owns returns the lease of an owner, until the test ends.
func (w *world) owns(key string) *kv.Lease {
	w.Helper()
	held := kv.Open(w.pub, ns.Bucket(streams.Leases), kv.JSON[kv.Held]())
	l := must(kv.Take(w.Context(), held, "test-"+key, key, kv.LeaseOptions{TTL: lease, Logger: quiet}))(w)
	w.loop(func(ctx context.Context) error {
		if err := l.Keep(ctx); !errors.Is(err, kv.ErrLeaseLost) {
			return err
		}
		return nil
	})
	return l
}

// signals returns what the owner is told of the jobs of schedules from now on.
func (w *world) signals() (list func() []store.Signal) {
	return listen(w, store.SignalSubject(ns), store.ReadSignal)
}

// wantSignals fails the test unless the owner was told that q.1 is in these states, of
// each so often or more often.
func (w *world) wantSignals(got []store.Signal, states ...machine.State) {
	w.Helper()
	var want []store.Signal
	for _, s := range states {
		want = append(want, store.Signal{Schedule: "nightly", ID: "q.1", State: s})
	}
	if diff := cmp.Diff(slices.Compact(slices.Clone(want)), slices.Compact(slices.Clone(got))); diff != "" || len(got) < len(want) {
		w.Errorf("%d signals, want %d (-want +got):\n%s", len(got), len(want), diff)
	}
}

// A job that waits for a turn has nothing that could start it, until it is admitted. It
// waits for another one when it is redriven.
func TestTurn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p, told := w.serve(), w.signals()
		l := w.owns("a")
		p.submit(turned("1"))
		w.wantSignals(told(), machine.Scheduled)
		w.wantTimers("q.1")
		p.heals("q.1")
		p.again(w.get("q.1"))
		if entry, ok := p.deliver(p.take(), "t0"); ok {
			t.Errorf("an item starts it: %+v", entry.Value)
		}
		w.wantSignals(told(), machine.Scheduled)
		w.wantItems("q.1", 0)

		entry := must(p.Admit(t.Context(), "q.1", l))(t)
		if entry.Value.Wait != machine.WaitDelay || entry.Value.Due.Before(entry.Value.Tick.At) {
			t.Errorf("admitted, it waits for %s at %v", entry.Value.Wait, entry.Value.Due)
		}
		if again := must(p.Admit(t.Context(), "q.1", l))(t); again.Revision != entry.Revision {
			t.Error("it is admitted twice")
		}
		p.runOnce("t1")
		w.want("q.1", machine.Succeeded, 1, 0)
		if again := must(p.Admit(t.Context(), "q.1", l))(t); again.Value.State != machine.Succeeded {
			t.Errorf("what has ended is admitted: %+v", again.Value)
		}
		w.wantSignals(told(), machine.Succeeded, machine.Succeeded)

		entry = must(p.Redrive(t.Context(), "q.1"))(t)
		if entry.Value.Wait != machine.WaitTurn {
			t.Errorf("redriven, it waits for %s", entry.Value.Wait)
		}
		if _, err := p.Redrive(t.Context(), "q.1"); !errors.Is(err, store.ErrNotEnded) {
			t.Errorf("redriven twice: %v", err)
		}
		w.wantSignals(told(), machine.Scheduled, machine.Scheduled)
		must(p.Admit(t.Context(), "q.1", l))(t)
		p.runOnce("t2")
		w.want("q.1", machine.Succeeded, 2, 0)
	})
}

// A job is admitted once, and starts, whatever happens to a write.
func TestAdmitFaults(t *testing.T) {
	for _, filter := range []string{jobWrites, timerWrites} {
		for _, fault := range append(faults, natstest.Pass) {
			t.Run(filter+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.serve()
					p, l := w.process("a"), w.owns("a")
					p.submit(turned("1"))
					p.fail(filter, fault)
					if _, err := p.Admit(t.Context(), "q.1", l); err != nil {
						t.Error(err)
					}
					p.link.Release()
					p.runOnce("t1")
					w.want("q.1", machine.Succeeded, 1, 0)
				})
			})
		}
	}
}

// Who admits dies at one of the writes: the next owner does it, and the job starts once.
func TestAdmitDies(t *testing.T) {
	for _, filter := range []string{jobWrites, timerWrites} {
		for _, fault := range deaths {
			t.Run(filter+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.serve()
					a, b, l, next := w.process("a"), w.process("b"), w.owns("a"), w.owns("b")
					b.submit(turned("1"))
					a.fail(filter, fault)
					a.die(func(ctx context.Context) { _, _ = a.Admit(ctx, "q.1", l) })
					must(b.Admit(t.Context(), "q.1", next))(t)
					b.runOnce("t1")
					w.want("q.1", machine.Succeeded, 1, 0)
				})
			})
		}
	}
}

// An owner stands still with a job in hand. When it goes on the job has had that turn,
// and waits for another one: it is not admitted.
func TestAdmitTooLate(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.Hold, natstest.Pass} {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.serve()
				a, b, l, next := w.process("a"), w.process("b"), w.owns("a"), w.owns("b")
				b.submit(turned("1"))
				late := func() {
					if _, err := a.Admit(t.Context(), "q.1", l); !errors.Is(err, kv.ErrLeaseLost) {
						t.Errorf("got %v, want that the lease is lost", err)
					}
				}
				wait := func() {}
				if fault == natstest.Hold {
					a.fail(jobWrites, fault)
					wait = w.meanwhile(late)
					synctest.Wait()
				}
				if err := l.Release(t.Context()); err != nil {
					t.Fatal(err)
				}
				must(b.Admit(t.Context(), "q.1", next))(t)
				entry, d := b.begin("t1")
				b.finish(entry, "t1", done("t1"), d)
				must(b.Redrive(t.Context(), "q.1"))(t)
				a.link.Release()
				if fault == natstest.Pass {
					late()
				}
				wait()
				if got := w.get("q.1").Value.Wait; got != machine.WaitTurn {
					t.Errorf("it waits for %q, want its turn", got)
				}
			})
		})
	}
}

// What has not begun can be declined, once.
func TestDecline(t *testing.T) {
	why := machine.Declined{Code: machine.SkipOverlap, Why: "a newer one waits"}
	for what, j := range map[string]machine.Job{"waits": turned("1"), "pending": ticked(job("1")), "delayed": ticked(later("1", time.Hour))} {
		for _, fault := range append(faults, natstest.Pass) {
			t.Run(what+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p, l := w.process("a"), w.owns("a")
					j.Created = time.Now().UTC()
					p.submit(j)
					heard, told := w.heard("q.1"), w.signals()
					p.fail(jobWrites, fault)
					entry := must(p.Decline(t.Context(), "q.1", why, l))(t)
					p.link.Release()
					now := w.get("q.1")
					if e := now.Value.Error; entry.Revision != now.Revision || now.Value.State != machine.Skipped || e == nil || e.Code != why.Code || e.Message != why.Why {
						t.Errorf("got revision %d, and %+v is stored", entry.Revision, now)
					}
					if kept := now.Value.Expires.Sub(now.Value.Finished); kept != 14*24*time.Hour || !w.expires(now) {
						t.Errorf("it is kept for %v", kept)
					}
					if n := heard(); n == 0 {
						t.Error("its end was not announced")
					}
					if n := len(told()); (n > 0) != (what == "waits") {
						t.Errorf("the owner was told %d times", n)
					}
					if again := must(p.Decline(t.Context(), "q.1", why, l))(t); again.Revision != now.Revision {
						t.Error("it was declined twice")
					}
				})
			})
		}
	}
}

// What has begun is not declined, and neither is what is not there, or by who is not the
// owner any more.
func TestDeclineRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p, l := w.process("a"), w.owns("a")
		why := machine.Declined{Code: machine.SkipOverlap, Why: "a newer one waits"}
		if _, err := p.Decline(t.Context(), "q.1", why, l); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("declined nothing: %v", err)
		}
		p.submit(ticked(job("1")))
		entry, d := p.start("t1")
		var refused *machine.MoveError
		if _, err := p.Decline(t.Context(), "q.1", why, l); !errors.As(err, &refused) {
			t.Errorf("declined while it runs: %v", err)
		}
		p.finish(entry, "t1", done("t1"), d)
		if got := must(p.Decline(t.Context(), "q.1", why, l))(t); got.Value.State != machine.Succeeded {
			t.Errorf("declined after its end: %+v", got.Value)
		}
		p.submit(turned("2"))
		if err := l.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Decline(t.Context(), "q.2", why, l); !errors.Is(err, kv.ErrLeaseLost) {
			t.Errorf("declined without the lease: %v", err)
		}
		w.want("q.2", machine.Scheduled, 0, 0)
	})
}
