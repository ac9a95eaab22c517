package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// A job that no worker starts in time fails, its item goes, and its end is
// announced, whatever happens to the write.
func TestQueuedTimeOutFaults(t *testing.T) {
	for _, fault := range append(faults, natstest.Pass) {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				owner, p := w.serve(), w.process("a")
				j := limited("1")
				p.submit(j)
				heard := w.heard("q.1")
				time.Sleep(time.Until(j.StartBy) - time.Millisecond)
				w.want("q.1", machine.Pending, 0, 0)
				owner.fail(jobWrites, fault)
				time.Sleep(longGone)
				owner.link.Release()
				w.want("q.1", machine.Failed, 0, 0)
				w.wantError("q.1", "queue_timeout")
				w.wantItems("q.1", 0)
				w.wantTimers("q.1")
				if n := heard(); n != 1 {
					t.Errorf("the end was announced %d times, want once", n)
				}
			})
		})
	}
}

// A job that has not ended in time fails, wherever it stands. One that runs is
// told to end, and fails then, unless it succeeds all the same.
func TestDeadline(t *testing.T) {
	for local, c := range map[string]struct {
		outcome func() machine.Event
		want    machine.State
	}{
		"pending":   {nil, machine.Failed},
		"retrying":  {func() machine.Event { return machine.Erred{Hold: hold("t1"), After: time.Hour} }, machine.Failed},
		"scheduled": {func() machine.Event { return machine.Returned{Hold: hold("t1"), Due: time.Now().Add(time.Hour)} }, machine.Failed},
		"erred":     {func() machine.Event { return erred("t1") }, machine.Failed},
		"done":      {func() machine.Event { return done("t1") }, machine.Succeeded},
	} {
		t.Run(local, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				j := job("1")
				j.Deadline = machine.Millisecond(time.Now().Add(time.Minute))
				p.submit(j)
				deadline := p.timer("q.1", "deadline")
				var entry store.Entry
				var d *streams.Delivery
				runs := local == "erred" || local == "done"
				if local != "pending" {
					entry, d = p.start("t1")
				}
				if local != "pending" && !runs {
					p.finish(entry, "t1", c.outcome(), d)
				}
				heard := w.heard("q.1")
				time.Sleep(time.Minute)
				for range 2 { // the timer may fire twice
					if err := p.Fire(t.Context(), deadline); err != nil {
						t.Error(err)
					}
				}
				if told := p.toldToEnd("q.1", "t1"); told != runs {
					t.Errorf("told to end: %v, want %v", told, runs)
				}
				if runs {
					w.want("q.1", machine.Running, 1, 0)
					p.finish(entry, "t1", c.outcome(), d)
				}
				if now := w.get("q.1").Value; now.State != c.want {
					t.Errorf("the job is %s, want %s", now.State, c.want)
				}
				if c.want == machine.Failed {
					w.wantError("q.1", "deadline")
				}
				w.wantItems("q.1", 0)
				w.wantTimers("q.1")
				if heard() == 0 {
					t.Error("the end was not announced")
				}
			})
		})
	}
}

// The owner dies between the record and what follows. The timer fires again, and
// the next owner carries that out.
func TestTimeOutThenDeath(t *testing.T) {
	for _, filter := range []string{timerDeletes, workDeletes} {
		for _, fault := range deaths {
			t.Run(fmt.Sprint(filter, " ", fault), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.process("a"), w.process("b")
					a.submit(limited("1"))
					queued := a.timer("q.1", "queued")
					heard := w.heard("q.1")
					time.Sleep(time.Minute)
					a.fail(filter, fault)
					a.die(func(ctx context.Context) { _ = a.Fire(ctx, queued) })
					w.want("q.1", machine.Failed, 0, 0)
					if err := b.Fire(t.Context(), queued); err != nil {
						t.Error(err)
					}
					w.wantItems("q.1", 0)
					w.wantTimers("q.1")
					if heard() == 0 {
						t.Error("the end was not announced")
					}
				})
			})
		}
	}
}

// A timer that is not concerned changes nothing: the job has started, or ended,
// or has another limit by now, or is gone.
func TestFireStale(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("unlimited"))
		p.submit(limited("running"))
		p.submit(limited("done"))
		w.change("q.running", claimed("b", 1, "t"))
		w.change("q.done", claimed("b", 1, "t"), done("t"))
		extended := limited("extended")
		extended.StartBy = extended.StartBy.Add(time.Hour)
		extended.Deadline = extended.Deadline.Add(time.Hour)
		p.submit(extended)
		created := time.Now()
		time.Sleep(time.Minute)
		for _, local := range []string{"unlimited", "running", "done", "extended", "gone"} {
			for purpose, at := range map[streams.Purpose]time.Duration{
				streams.PurposeQueued: time.Minute, streams.PurposeDeadline: 59 * time.Second, streams.PurposeExpiry: time.Minute,
			} {
				before, _ := w.jobs.Get(t.Context(), "q."+local)
				stale := streams.Timer{Purpose: purpose, At: created.Add(at), Queue: "q", Local: local}
				if err := p.Fire(t.Context(), stale); err != nil {
					t.Errorf("%s of %s: %v", purpose, local, err)
				}
				if after, _ := w.jobs.Get(t.Context(), "q."+local); after.Revision != before.Revision {
					t.Errorf("%s: %s made it %s", local, purpose, after.Value.State)
				}
			}
		}
	})
}

// A job whose retention is over is removed, and nothing of it is left.
func TestExpiry(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		j := limited("1")
		p.submit(j)
		w.change("q.1", machine.Stopped{At: time.Now()})
		lacks, err := p.HealExpiry(t.Context(), "q.1")
		if err != nil || len(lacks) != 1 || lacks[0] != store.LackExpiry {
			t.Errorf("lacks %v, %v", lacks, err)
		}
		w.wantTimers("q.1", "deadline", "expiry", "queued")
		if lacks, err := p.HealExpiry(t.Context(), "q.1"); err != nil || len(lacks) > 0 {
			t.Errorf("lacks %v, %v, with its timer set", lacks, err)
		}
		expiry := p.timer("q.1", "expiry")
		if after := expiry.At.Sub(w.get("q.1").Value.Finished); after != 14*24*time.Hour {
			t.Errorf("it expires after %v", after)
		}
		if err := p.Fire(t.Context(), expiry); err != nil {
			t.Error(err)
		}
		p.cancelTimer(expiry)
		if _, err := w.jobs.Get(t.Context(), "q.1"); !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("the record reads %v", err)
		}
		w.wantItems("q.1", 0)
		w.wantTimers("q.1")
	})
}

// What only a newer build understands is left for it, and the log says so in one
// line.
func TestFireOfNewer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		raw := kv.Open(w.pub, ns.Bucket(streams.Jobs), kv.JSON[string]())
		must(raw.Create(t.Context(), "q.foreign", "of a newer build"))(t)
		newer := limited("newer")
		newer.State = "hibernating"
		w.create(newer)
		time.Sleep(time.Minute)
		fires := func(purpose streams.Purpose, id, want string) {
			t.Helper()
			queue, local, _ := name.SplitJobID(id)
			err := p.Fire(t.Context(), streams.Timer{Purpose: purpose, At: time.Now(), Queue: queue, Local: local})
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s of %s: got %v, want %s", purpose, id, err, want)
			}
		}
		fires("hibernation", "q.newer", "newer build")
		for _, purpose := range []streams.Purpose{streams.PurposeQueued, streams.PurposeDeadline, streams.PurposeExpiry} {
			fires(purpose, "q.newer", "newer build")
			fires(purpose, "q.foreign", "cannot be read")
		}
	})
}

// wantError fails the test unless a job failed with an error of a code.
func (w *world) wantError(id, code string) {
	w.Helper()
	if e := w.get(id).Value.Error; e == nil || e.Code != code {
		w.Errorf("the error of %s is %+v, want %s", id, e, code)
	}
}

// A job ends and is deleted while its time runs out: there is nothing left to do.
func TestTimeOutMeetsDelete(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(limited("1"))
		queued := a.timer("q.1", "queued")
		time.Sleep(time.Minute)
		b.fail(jobWrites, natstest.Hold)
		fired := w.meanwhile(func() {
			if err := b.Fire(t.Context(), queued); err != nil {
				t.Errorf("the timer would fire again: %v", err)
			}
		})
		synctest.Wait()
		must(a.Cancel(t.Context(), "q.1", "asked"))(t)
		if err := a.Delete(t.Context(), "q.1"); err != nil {
			t.Fatal(err)
		}
		b.link.Release()
		fired()
		w.wantItems("q.1", 0)
		w.wantTimers("q.1")
	})
}
