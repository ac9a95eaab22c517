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

// failed makes a job that failed for good in its first attempt.
func (p *process) failed(j machine.Job) store.Entry {
	p.w.Helper()
	p.submit(j)
	entry, d := p.start("t1")
	p.finish(entry, "t1", machine.Erred{Hold: hold("t1"), Error: machine.Error{Message: "boom"}, Final: true}, d)
	p.w.want(j.ID, machine.Failed, 1, 1)
	p.w.wantItems(j.ID, 0)
	return p.w.get(j.ID)
}

// A job that has ended is offered once more, under a larger fence and without
// its failures, whatever happens to a write. It is redriven once.
func TestRedriveFaults(t *testing.T) {
	for _, filter := range []string{jobWrites, workWrites} {
		for _, fault := range append(faults, natstest.Pass) {
			t.Run(filter+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p := w.process("a")
					was := p.failed(job("1"))
					p.fail(filter, fault)
					entry, err := p.Redrive(t.Context(), "q.1")
					if err != nil || entry.Value.State != machine.Pending || entry.Value.Error != nil {
						t.Errorf("got %+v, %v", entry.Value, err)
					}
					p.link.Release()
					w.want("q.1", machine.Pending, 1, 0)
					p.runOnce("t2")
					w.want("q.1", machine.Succeeded, 2, 0)
					w.wantOutcomes("q.1", machine.AttemptFailed, machine.AttemptSucceeded)
					if now := w.get("q.1").Value; now.Fence <= was.Value.Fence {
						t.Errorf("the fence was %d, and is %d", was.Value.Fence, now.Fence)
					}
				})
			})
		}
	}
}

// The answer to a redrive is lost, and the job has ended again before anybody
// looks: it is not redriven twice.
func TestRedriveOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.failed(job("1"))
		a.fail(jobWrites, natstest.LoseAnswer)
		redriven := w.meanwhile(func() {
			if entry, err := a.Redrive(t.Context(), "q.1"); err != nil || entry.Value.Attempt != 2 {
				t.Errorf("got %+v, %v", entry.Value, err)
			}
		})
		synctest.Wait()
		b.again(w.get("q.1"))
		b.runOnce("t2")
		redriven()
		w.want("q.1", machine.Succeeded, 2, 0)
		w.wantItems("q.1", 0)
	})
}

// The record of a job that has ended expires. That of one that was redriven does
// not, and has no timer left, until it ends again.
func TestRedriveOutlivesRetention(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		wantExpires := func(want bool) {
			t.Helper()
			jobs := must(w.js.Stream(t.Context(), "KV_mr_default_jobs"))(t)
			msg := must(jobs.GetLastMsgForSubject(t.Context(), "$KV.mr_default_jobs.q.1"))(t)
			if got := store.LookAt(msg.Header); got.Expires != want || got.Deadline != 0 || got.StartBy != 0 {
				t.Errorf("got %+v, want expires %v and no limits", got, want)
			}
		}
		p.failed(limited("1"))
		wantExpires(true)
		must(p.Redrive(t.Context(), "q.1"))(t)
		wantExpires(false)
		expiry := streams.Timer{Purpose: streams.PurposeExpiry, At: time.Now().Add(365 * 24 * time.Hour), Queue: "q", Local: "1"}
		if err := p.Fire(t.Context(), expiry); err != nil {
			t.Error(err)
		}
		w.want("q.1", machine.Pending, 1, 0)
		p.runOnce("t2")
		wantExpires(true)
	})
}

// The process dies at any write. The reconciler offers the job, and so does
// whoever redrives it again.
func TestRedriveThenDeath(t *testing.T) {
	goOn := map[string]func(w *world, p *process){
		"heal": func(w *world, p *process) {
			must(p.Heal(w.Context(), "q.1"))(w)
		},
		"redrive": func(w *world, p *process) {
			if _, err := p.Redrive(w.Context(), "q.1"); err != nil && !errors.Is(err, store.ErrNotEnded) {
				w.Error(err)
			}
		},
	}
	for _, filter := range []string{jobWrites, workWrites} {
		for _, fault := range deaths {
			for how, f := range goOn {
				t.Run(fmt.Sprint(filter, " ", fault, " ", how), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) {
						a, b := w.process("a"), w.process("b")
						a.failed(job("1"))
						a.fail(filter, fault)
						a.die(func(ctx context.Context) { _, _ = a.Redrive(ctx, "q.1") })
						if filter == jobWrites && fault == natstest.DownBefore {
							must(b.Redrive(t.Context(), "q.1"))(t) // nothing has happened yet
						}
						f(w, b)
						b.runOnce("t2")
						w.want("q.1", machine.Succeeded, 2, 0)
					})
				})
			}
		}
	}
}

// Timers and items of the earlier life, and whoever withdraws them late, leave
// the next one alone.
func TestRedriveMeetsThePast(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(limited("1"))
		old := w.get("q.1")
		queued, deadline := a.timer("q.1", "queued"), a.timer("q.1", "deadline")
		a.fail(workDeletes, natstest.Hold)
		cancelled := w.meanwhile(func() {
			if _, err := a.Cancel(t.Context(), "q.1", "asked"); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		second := must(b.Redrive(t.Context(), "q.1"))(t)
		a.link.Release()
		cancelled()
		w.wantItems("q.1", 1)
		time.Sleep(3 * time.Hour)
		if err := errors.Join(b.Fire(t.Context(), queued), b.Fire(t.Context(), deadline)); err != nil {
			t.Error(err)
		}
		if now := w.get("q.1"); now.Revision != second.Revision {
			t.Errorf("the job is %s, want it left alone", now.Value.State)
		}
		b.again(old) // drives it like any other
		b.runOnce("t1")
		w.want("q.1", machine.Succeeded, 1, 0)
	})
}

// Somebody deletes a job that is redriven at the same time: it stays, and they
// are told.
func TestRedriveMeetsDelete(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.failed(job("1"))
		a.fail(jobWrites, natstest.Hold)
		deleted := w.meanwhile(func() {
			if err := a.Delete(t.Context(), "q.1"); !errors.Is(err, store.ErrNotEnded) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		must(b.Redrive(t.Context(), "q.1"))(t)
		a.link.Release()
		deleted()
		b.runOnce("t2")
		w.want("q.1", machine.Succeeded, 2, 0)
	})
}

// What cannot be redriven says why, and is not written to.
func TestRedriveRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		if _, err := p.Redrive(t.Context(), "q.1"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("no job: got %v", err)
		}
		p.submit(job("1"))
		refused := func(want error, from ...machine.State) {
			t.Helper()
			before := w.get("q.1")
			_, err := p.Redrive(t.Context(), "q.1", from...)
			if !errors.Is(err, want) {
				t.Errorf("%s: got %v", before.Value.State, err)
			}
			if after := w.get("q.1"); after.Revision != before.Revision {
				t.Errorf("%s was written to", before.Value.State)
			}
		}
		refused(store.ErrNotEnded)
		entry, d := p.start("t1")
		refused(store.ErrNotEnded)
		p.finish(entry, "t1", done("t1"), d)
		_, err := p.Redrive(t.Context(), "q.1", machine.Failed)
		var moved *machine.MoveError
		if !errors.As(err, &moved) || moved.From != machine.Succeeded {
			t.Errorf("succeeded: got %v", err)
		}
		must(p.Redrive(t.Context(), "q.1", machine.Succeeded))(t)
		w.wantItems("q.1", 1)
		refused(store.ErrNotEnded) // and offered again, which does no harm
		p.runOnce("t2")
		w.change("q.1", machine.Removed{At: time.Now()})
		if _, err := p.Redrive(t.Context(), "q.1"); !errors.As(err, &moved) || moved.From != machine.Removing {
			t.Errorf("removing: got %v", err)
		}
	})
}
