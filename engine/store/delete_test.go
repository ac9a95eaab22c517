package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
)

// removal is every write of a delete.
var removal = []string{jobWrites, workDeletes, timerDeletes, jobDeletes}

// wreck makes a job that was cancelled by somebody who died then: its item and
// its timers are still there.
func (p *process) wreck(local string) {
	p.w.Helper()
	p.submit(limited(local))
	p.w.change("q."+local, machine.Stopped{Cause: "asked", At: time.Now()})
}

// wantGone fails the test unless nothing is left of a job.
func (w *world) wantGone(id string) {
	w.Helper()
	if entry, err := w.jobs.Get(w.Context(), id); !errors.Is(err, kv.ErrNotFound) {
		w.Errorf("%s is %s, %v, want it gone", id, entry.Value.State, err)
	}
	w.wantItems(id, 0)
	w.wantTimers(id)
}

// A job goes with all that it owns, whatever happens to a write.
func TestDeleteFaults(t *testing.T) {
	for _, filter := range removal {
		for _, fault := range append(faults, natstest.Pass) {
			t.Run(filter+" "+fault.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p := w.process("a")
					p.wreck("1")
					p.fail(filter, fault)
					if err := p.Delete(t.Context(), "q.1"); err != nil {
						t.Error(err)
					}
					p.link.Release()
					w.wantGone("q.1")
					if err := p.Delete(t.Context(), "q.1"); !errors.Is(err, store.ErrNotFound) {
						t.Errorf("once more: %v", err)
					}
				})
			})
		}
	}
}

// The process dies at any write. Whoever deletes the job again goes on, and so do
// the reconciler, a worker that meets its item, and a submitter of the same ID.
func TestDeleteThenDeath(t *testing.T) {
	goOn := map[string]func(w *world, p *process){
		"delete": func(w *world, p *process) {
			if err := p.Delete(w.Context(), "q.1"); err != nil && !errors.Is(err, store.ErrNotFound) {
				w.Error(err)
			}
		},
		"heal": func(w *world, p *process) {
			lacks, err := p.Heal(w.Context(), "q.1")
			if err != nil || len(lacks) > 0 && !slices.Equal(lacks, []store.Lack{store.LackRemoval}) {
				w.Errorf("lacks %v, %v", lacks, err)
			}
		},
		"submit": func(w *world, p *process) {
			p.submit(job("1"))
			w.want("q.1", machine.Pending, 0, 0)
			w.wantTimers("q.1")
			p.runOnce("t1")
			if err := p.Delete(w.Context(), "q.1"); err != nil {
				w.Error(err)
			}
		},
	}
	for _, filter := range removal {
		for _, fault := range deaths {
			for how, f := range goOn {
				t.Run(fmt.Sprint(filter, " ", fault, " ", how), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) {
						a, b := w.process("a"), w.process("b")
						a.wreck("1")
						a.fail(filter, fault)
						a.die(func(ctx context.Context) { _ = a.Delete(ctx, "q.1") })
						if filter == jobWrites && fault == natstest.DownBefore {
							if err := b.Delete(t.Context(), "q.1"); err != nil { // nothing has happened yet
								t.Error(err)
							}
						}
						f(w, b)
						w.wantGone("q.1")
					})
				})
			}
		}
	}
}

// A job that has not ended is refused, in one line.
func TestDeleteRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("pending"))
		p.submit(later("scheduled", time.Hour))
		p.submit(job("running"))
		w.change("q.running", claimed("b", 1, "t"))
		p.submit(job("retrying"))
		w.change("q.retrying", claimed("b", 1, "t"), erred("t"))
		for _, state := range []string{"pending", "scheduled", "running", "retrying"} {
			before := w.get("q." + state)
			err := p.Delete(t.Context(), "q."+state)
			if !errors.Is(err, store.ErrNotEnded) || !strings.Contains(err.Error(), "is "+state) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: got %v", state, err)
			}
			if after := w.get("q." + state); after.Revision != before.Revision {
				t.Errorf("%s was written to", state)
			}
		}
	})
}

// An item of a job that is being removed removes it, and starts nothing. Nobody
// cancels it or finishes it.
func TestRemoving(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(job("1"))
		entry, d := p.start("t1")
		w.change("q.1", done("t1"), machine.Removed{At: time.Now()})
		var refused *machine.MoveError
		if _, err := p.Cancel(t.Context(), "q.1", "asked"); !errors.As(err, &refused) || refused.From != machine.Removing {
			t.Errorf("cancel: got %v", err)
		}
		p.forget("t1")
		if _, ok := p.deliver(p.take(), "t2"); ok {
			t.Error("a job runs that is being removed")
		}
		w.wantGone("q.1")
		if fate := p.finish(entry, "t1", done("t1"), d); fate != store.Ended {
			t.Errorf("the outcome is %s, want ended", fate)
		}
	})
}

// Somebody who removes a job does it twice, since an answer was lost. Meanwhile
// its ID has become another job's, which keeps its item and its record.
func TestDeleteMeetsReuse(t *testing.T) {
	for _, filter := range removal {
		t.Run(filter, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.process("a"), w.process("b")
				a.wreck("1")
				a.fail(filter, natstest.LoseAnswer)
				deleted := w.meanwhile(func() {
					if err := a.Delete(t.Context(), "q.1"); err != nil {
						t.Error(err)
					}
				})
				time.Sleep(time.Second)
				b.submit(job("1"))
				w.wantItems("q.1", 1)
				deleted()
				w.want("q.1", machine.Pending, 0, 0)
				w.wantItems("q.1", 1)
				b.runOnce("t1")
			})
		})
	}
}

// An item and timers of a job that was deleted meet another one of the same ID.
func TestReuseMeetsThePast(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(limited("1"))
		d := p.take()
		queued, deadline := p.timer("q.1", "queued"), p.timer("q.1", "deadline")
		must(p.Cancel(t.Context(), "q.1", "asked"))(t)
		if err := p.Delete(t.Context(), "q.1"); err != nil {
			t.Fatal(err)
		}
		next := later("1", 2*time.Hour)
		second := p.submit(next)
		time.Sleep(time.Hour)
		if _, ok := p.deliver(d, "t1"); ok {
			t.Error("an item of the past starts a job before it is due")
		}
		if err := errors.Join(p.Fire(t.Context(), queued), p.Fire(t.Context(), deadline)); err != nil {
			t.Error(err)
		}
		if now := w.get("q.1"); now.Revision != second.Revision {
			t.Errorf("the job is %s, want it left alone", now.Value.State)
		}
		w.wantTimers("q.1", "due")
	})
}
