package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// A job that nobody runs ends as cancelled, its item goes and its end is
// announced, whatever happens to the write.
func TestCancelFaults(t *testing.T) {
	for _, fault := range append(faults, natstest.Pass) {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				p.submit(job("1"))
				heard := w.heard("q.1")
				p.fail(jobWrites, fault)
				entry, err := p.Cancel(t.Context(), "q.1", "asked")
				if err != nil || entry.Value.State != machine.Cancelled {
					t.Errorf("got %s, %v", entry.Value.State, err)
				}
				p.link.Release()
				w.want("q.1", machine.Cancelled, 0, 0)
				w.wantItems("q.1", 0)
				if n := heard(); n != 1 {
					t.Errorf("the end was announced %d times, want once", n)
				}
				if d := p.takeWithin(lease); d != nil {
					t.Errorf("item %d is still there", d.Sequence)
				}
			})
		})
	}
}

// While a stream has no leader, what the end of a job owes waits: those who wait for
// the job hear of it as soon as there is one.
func TestCancelWithoutLeader(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(fan("1", strangers(2)...))
		heard := w.heard("q.1")
		if err := w.js.DeleteStream(t.Context(), ns.TimerStream()); err != nil {
			t.Fatal(err)
		}
		wait := w.meanwhile(func() {
			if _, err := p.Cancel(t.Context(), "q.1", "asked"); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(3 * time.Second)
		must(streams.Ensure(t.Context(), ns, w.pub, streams.Options{Lease: lease, Logger: quiet}))(t)
		wait()
		w.wantTimers("q.1", "expiry")
		w.wantParts(map[string]machine.State{"n0": machine.Cancelled, "n1": machine.Cancelled})
		if n := heard(); n != 1 {
			t.Errorf("the end was announced %d times, want once", n)
		}
	})
}

// A job that waits for its due time ends as cancelled, and its timers go,
// whatever happens to a write.
func TestCancelDelayed(t *testing.T) {
	for _, filter := range []string{jobWrites, timerDeletes, workDeletes} {
		for _, fault := range append(faults, natstest.Pass) {
			t.Run(filter+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.serve()
					p := w.process("a")
					j := later("1", time.Minute)
					j.Deadline = machine.Millisecond(j.Due.Add(time.Minute))
					p.submit(j)
					p.again(w.get("q.1")) // it is not always that simple
					w.wantTimers("q.1", "deadline", "due")
					p.fail(filter, fault)
					entry, err := p.Cancel(t.Context(), "q.1", "asked")
					if err != nil || entry.Value.State != machine.Cancelled {
						t.Errorf("got %s, %v", entry.Value.State, err)
					}
					p.link.Release()
					w.wantItems("q.1", 0)
					time.Sleep(2 * time.Minute)
					p.settle() // what a lost answer leaves
					w.want("q.1", machine.Cancelled, 0, 0)
					w.wantItems("q.1", 0)
					w.wantTimers("q.1")
				})
			})
		}
	}
}

// A job that waits for its next attempt is cancelled like one that waits for its
// first. What was under way starts nothing.
func TestCancelRetrying(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		p := w.process("a")
		p.submit(job("1"))
		entry, d := p.start("t1")
		p.finish(entry, "t1", erred("t1"), d)
		time.Sleep(2 * soon)
		w.wantItems("q.1", 1)
		d = p.take()
		must(p.Cancel(t.Context(), "q.1", "asked"))(t)
		if _, ok := p.deliver(d, "t2"); ok {
			t.Error("a cancelled job runs")
		}
		w.want("q.1", machine.Cancelled, 1, 1)
		w.wantItems("q.1", 0)
		w.wantTimers("q.1")
	})
}

// An item that a worker has in its hands when the job is cancelled starts
// nothing.
func TestCancelDelivered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		d := p.take()
		must(p.Cancel(t.Context(), "q.1", "asked"))(t)
		if _, ok := p.deliver(d, "t1"); ok {
			t.Error("a cancelled job runs")
		}
		w.want("q.1", machine.Cancelled, 0, 0)
	})
}

// What cannot be cancelled says why in one line; what is cancelled already
// stays as it is.
func TestCancelRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		var moved *machine.MoveError
		if _, err := p.Cancel(t.Context(), "q.1", "asked"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("no job: got %v", err)
		}
		p.submit(job("1"))
		entry, d := p.start("t1")
		p.finish(entry, "t1", done("t1"), d)
		if _, err := p.Cancel(t.Context(), "q.1", "asked"); !errors.As(err, &moved) || moved.From != machine.Succeeded {
			t.Errorf("succeeded: got %v", err)
		}
		p.submit(job("2"))
		first := must(p.Cancel(t.Context(), "q.2", "asked"))(t)
		again := must(p.Cancel(t.Context(), "q.2", "asked once more"))(t)
		if first.Revision != again.Revision || again.Value.Error.Message != "asked" {
			t.Errorf("cancelled: got %+v, want it unchanged", again.Value)
		}
	})
}

// A job that has left the states that were meant goes on.
func TestCancelOnlyFrom(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		entry, d := p.start("t1")
		var moved *machine.MoveError
		if _, err := p.Cancel(t.Context(), "q.1", "asked", machine.Pending, machine.Retrying); !errors.As(err, &moved) || moved.From != machine.Running {
			t.Errorf("got %v", err)
		}
		p.finish(entry, "t1", done("t1"), d)
		w.want("q.1", machine.Succeeded, 1, 0)
		p.submit(job("2"))
		if entry := must(p.Cancel(t.Context(), "q.2", "asked", machine.Pending))(t); entry.Value.State != machine.Cancelled {
			t.Errorf("a pending job is %s", entry.Value.State)
		}
	})
}

// A job that runs is told to end, whatever happens to the write. Unless it
// succeeds all the same, it ends as cancelled.
func TestCancelRunning(t *testing.T) {
	for _, fault := range append(faults, natstest.Pass) {
		for want, outcome := range map[machine.State]machine.Event{
			machine.Succeeded: done("t1"), machine.Cancelled: erred("t1"),
		} {
			t.Run(fmt.Sprintf("%s %s", fault, want), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.process("a"), w.process("b")
					a.submit(job("1"))
					entry, d := a.start("t1")
					b.fail(jobWrites, fault)
					told, err := b.Cancel(t.Context(), "q.1", "asked")
					if err != nil || told.Value.State != machine.Running || told.Value.Cancel == nil {
						t.Errorf("got %+v, %v", told.Value, err)
					}
					b.link.Release()
					if !a.toldToEnd("q.1", "t1") {
						t.Error("the node was not told")
					}
					again := must(b.Cancel(t.Context(), "q.1", "asked again"))(t)
					if again.Value.Cancel.Cause != "asked" {
						t.Errorf("the cause is %q now", again.Value.Cancel.Cause)
					}
					a.finish(entry, "t1", outcome, d)
					w.want("q.1", want, 1, 0)
					w.wantItems("q.1", 0)
				})
			})
		}
	}
}

// A cancel that lands while the job is claimed is told to whoever claimed it.
func TestCancelMeetsClaim(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		b.fail(jobWrites, natstest.Hold)
		cancelled := w.meanwhile(func() {
			if _, err := b.Cancel(t.Context(), "q.1", "asked"); err != nil {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		entry, d := a.start("t1")
		b.link.Release()
		cancelled()
		w.want("q.1", machine.Running, 1, 0)
		if !a.toldToEnd("q.1", "t1") {
			t.Error("the node was not told")
		}
		a.finish(entry, "t1", done("t1"), d)
		w.want("q.1", machine.Succeeded, 1, 0)
	})
}

// The process dies between the write and what it owes: the job is cancelled,
// and whoever meets its item settles it.
func TestCancelThenDeath(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		heard := w.heard("q.1")
		a.fail(jobWrites, natstest.DownAfter)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.Cancel(ctx, "q.1", "asked"); err == nil {
			t.Error("a process without a server was told that the job is cancelled")
		}
		w.want("q.1", machine.Cancelled, 0, 0)
		w.wantItems("q.1", 1)
		b.settle()
		w.wantItems("q.1", 0)
		if n := heard(); n != 1 {
			t.Errorf("the end was announced %d times, want once", n)
		}
	})
}
