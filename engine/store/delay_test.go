package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// later returns the record of a job that is due after a delay.
func later(local string, delay time.Duration) machine.Job {
	j := job(local)
	j.State, j.Due, j.Wait = machine.Scheduled, machine.Millisecond(j.Created.Add(delay)), machine.WaitDelay
	return j
}

// limited returns the record of a job that has to start, and to end, in time.
func limited(local string) machine.Job {
	j := job(local)
	j.StartBy = machine.Millisecond(j.Created.Add(time.Minute))
	j.Deadline = machine.Millisecond(j.Created.Add(time.Hour))
	return j
}

// A delayed job starts when it is due, once, whatever happens to the write of
// its record, of its timer or of its item.
func TestDelayFaults(t *testing.T) {
	for _, filter := range []string{jobWrites, timerWrites, workWrites} {
		for _, fault := range append(faults, natstest.Pass) {
			t.Run(filter+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					owner, p := w.serve(), w.process("a")
					p.fail(filter, fault)
					owner.fail(filter, fault)
					j := later("1", time.Minute)
					p.submit(j)
					p.link.Release()
					w.want("q.1", machine.Scheduled, 0, 0)
					w.wantTimers("q.1", "due")
					time.Sleep(time.Until(j.Due) - time.Millisecond)
					w.wantItems("q.1", 0)
					time.AfterFunc(lease, owner.link.Release)
					p.runOnce("t1")
					w.want("q.1", machine.Succeeded, 1, 0)
				})
			})
		}
	}
}

// The submitter dies between the record and the timer. Whoever submits the job
// again sets it.
func TestDelayThenDeath(t *testing.T) {
	for _, fault := range deaths {
		t.Run(fault.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.serve()
				a, b := w.process("a"), w.process("b")
				a.fail(timerWrites, fault)
				a.die(func(ctx context.Context) { _, _, _ = a.Submit(ctx, later("1", 30*time.Second)) }) // sooner than take loses patience
				w.want("q.1", machine.Scheduled, 0, 0)
				if entry, created, err := b.Submit(t.Context(), later("1", time.Second)); err != nil || created || time.Until(entry.Value.Due) < time.Second {
					t.Errorf("got %+v, created %v, %v, want the job that is there", entry.Value, created, err)
				}
				w.wantTimers("q.1", "due")
				b.runOnce("t1")
			})
		})
	}
}

// An item that comes before the job is due sets the timer again.
func TestDeliverOfDelayed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		entry := w.create(later("1", time.Hour))
		p.again(entry)
		if _, ok := p.deliver(p.take(), "t1"); ok {
			t.Error("the job runs an hour early")
		}
		w.want("q.1", machine.Scheduled, 0, 0)
		w.wantTimers("q.1", "due")
		w.wantItems("q.1", 0)

		p.again(entry)
		time.Sleep(time.Hour)
		p.start("t2") // its timer is not needed
		w.want("q.1", machine.Running, 1, 0)
	})
}

// What an item says of a job that waits is not believed.
func TestDeliverOfDelayedInThePast(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		past := w.create(later("1", time.Hour))
		w.change("q.1", claimed("b", 1, "t"), machine.Returned{Hold: hold("t")})
		p.again(past)
		p.start("t1")
		w.wantTimers("q.1")
	})
}

// A job with limits has their timers before it is offered. Those that are left
// when it ends are cleared.
func TestLimits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(limited("1"))
		w.wantTimers("q.1", "deadline", "queued")
		entry, d := p.start("t1")
		p.finish(entry, "t1", erred("t1"), d)
		w.wantTimers("q.1", "deadline", "due", "queued")
		due := p.timer("q.1", "due")
		if err := p.Fire(t.Context(), due); err != nil {
			t.Fatal(err)
		}
		p.cancelTimer(due)
		entry, d = p.start("t2")
		p.finish(entry, "t2", done("t2"), d)
		w.wantTimers("q.1")

		last := len(p.writes(timerWrites))
		p.submit(limited("2"))
		if got := p.writes(">"); !strings.HasPrefix(got[len(got)-1].Subject, "mr.default.work.") || len(p.writes(timerWrites)) != last+2 {
			t.Error("the job was offered before its timers were set")
		}
	})
}

// Many jobs at once: each has what it owes when it is told to be there.
func TestSubmitAsync(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		for _, j := range []machine.Job{job("now"), later("later", time.Hour), limited("limited")} {
			outcome := make(chan error)
			p.SubmitAsync(j, func(_ store.Entry, err error) { outcome <- err })
			if err := <-outcome; err != nil {
				t.Errorf("%s: %v", j.ID, err)
			}
		}
		w.wantItems("q.now", 1)
		w.wantTimers("q.now")
		w.wantItems("q.later", 0)
		w.wantTimers("q.later", "due")
		w.wantItems("q.limited", 1)
		w.wantTimers("q.limited", "deadline", "queued")

		p.fail(timerWrites, natstest.CutBefore)
		outcome := make(chan error)
		p.SubmitAsync(limited("lost"), func(_ store.Entry, err error) { outcome <- err })
		err := <-outcome
		if err == nil {
			t.Error("a job whose timer is not set was told to be there")
		}
		w.wantItems("q.lost", 0)
		if _, created, err := p.Settle(t.Context(), limited("lost"), err); err != nil || !created {
			t.Errorf("created %v, %v", created, err)
		}
		w.wantItems("q.lost", 1)
		w.wantTimers("q.lost", "deadline", "queued")
	})
}

// A namespace that is nearly full takes no jobs, and says so also while NATS is
// away. Those that are there are found, and go on.
func TestFull(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		w.limit(1)
		full := func(err error) {
			t.Helper()
			if !errors.Is(err, streams.ErrFull) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line that says that it is full", err)
			}
			if _, err := w.jobs.Get(t.Context(), "q.2"); !errors.Is(err, kv.ErrNotFound) {
				t.Errorf("the record reads %v", err)
			}
		}
		submit := func() error {
			_, _, err := p.Submit(t.Context(), job("2"))
			return err
		}
		full(submit())
		p.SubmitAsync(job("2"), func(_ store.Entry, err error) { full(err) })
		_, _, err := p.Settle(t.Context(), job("2"), streams.ErrFull)
		full(err)
		if entry, created, err := p.Submit(t.Context(), job("1")); err != nil || created || entry.Value.State != machine.Pending {
			t.Errorf("the job that is there: created %v, %v", created, err)
		}
		p.link.Down()
		began := time.Now()
		full(submit())
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v to say so", took)
		}
		p.link.Up()
		time.Sleep(time.Second)
		p.runOnce("t1")
		w.want("q.1", machine.Succeeded, 1, 0)

		w.limit(100)
		time.Sleep(time.Second)
		if err := submit(); err != nil {
			t.Errorf("when there is room: %v", err)
		}
	})
}

// A create whose answer was lost is settled although the namespace is full by
// then: it may still land.
func TestFullThenSettled(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		for i := range 8 {
			w.create(job(fmt.Sprint("there", i)))
		}
		w.limit(10)
		p.fail(jobWrites, natstest.Hold)
		submitted := w.meanwhile(func() { p.submit(job("1")) })
		time.Sleep(time.Second)
		w.create(job("ninth"))
		submitted()
		p.link.Release()
		w.want("q.1", machine.Pending, 0, 0)
		w.wantItems("q.1", 1)
	})
}

// limit lets the namespace hold so many jobs.
func (w *world) limit(jobs int64) {
	w.Helper()
	stream := must(w.js.Stream(w.Context(), "KV_"+ns.Bucket(streams.Jobs)))(w)
	config := stream.CachedInfo().Config
	config.MaxMsgs, config.Discard = jobs, jetstream.DiscardNew
	must(w.js.UpdateStream(w.Context(), config))(w)
	time.Sleep(time.Second) // what was measured before is old
}
