package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// The rows of the reconciler's table of docs/how-it-works.md.

// heals fails the test unless a job lacks something, and nothing once it was
// healed.
func (p *process) heals(id string, want ...store.Lack) {
	p.w.Helper()
	if got, err := p.Heal(p.w.Context(), id); err != nil || !slices.Equal(got, want) {
		p.w.Errorf("%s lacks %v, %v, want %v", id, got, err, want)
	}
	if got, err := p.Heal(p.w.Context(), id); err != nil || len(got) > 0 {
		p.w.Errorf("%s lacks %v, %v, once it is healed", id, got, err)
	}
}

// withdraw takes the items of a job away.
func (p *process) withdraw(id string) {
	p.w.Helper()
	if err := p.work.Withdraw(p.w.Context(), "", "q", id[len("q."):], p.w.get(id).Revision); err != nil {
		p.w.Fatal(err)
	}
}

// A healthy job lacks nothing, wherever it stands.
func TestHealHealthy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(limited("cancelled"))
		must(p.Cancel(t.Context(), "q.cancelled", "asked"))(t)
		p.submit(skipped("skipped"))
		for local, outcome := range map[string]machine.Event{
			"succeeded": done("succeeded"), "retrying": erred("retrying"), "failed": machine.Erred{Hold: hold("failed"), Final: true},
			"pending": machine.Returned{Hold: hold("pending")}, "scheduled": machine.Returned{Hold: hold("scheduled"), Due: time.Now().Add(time.Hour)},
			"running": nil,
		} {
			p.submit(limited(local))
			for {
				d := p.take()
				entry, ok := p.deliver(d, d.Local)
				if ok && d.Local == local && outcome != nil {
					p.finish(entry, d.Local, outcome, d)
				}
				if d.Local == local {
					break
				}
				if ok {
					p.finish(entry, d.Local, machine.Returned{Hold: hold(d.Local)}, d)
				}
			}
		}
		for _, state := range machine.States {
			switch state {
			case machine.Removing:
				continue // whoever removes it is at it
			case machine.Waiting, machine.Lost:
				continue // see TestHealFamily
			}
			if now := w.get("q." + string(state)).Value.State; now != state {
				t.Errorf("q.%s is %s", state, now)
			}
			p.heals("q." + string(state))
		}
	})
}

// Pending: an item.
func TestHealPending(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		w.create(job("1"))
		p.heals("q.1", store.LackItem)
		w.wantItems("q.1", 1)

		w.create(limited("2"))
		p.heals("q.2", store.LackTimer, store.LackItem)
		w.wantItems("q.2", 1)
		w.wantTimers("q.2", "deadline", "queued")
		p.start("t1")
		p.start("t2")
		p.heals("q.1")
		p.heals("q.2")
	})
}

// Scheduled and retrying: its timer; if it is due, its timer or an item.
func TestHealDelayed(t *testing.T) {
	for state, create := range map[machine.State]func(w *world, p *process){
		machine.Scheduled: func(w *world, _ *process) { w.create(later("1", time.Minute)) },
		machine.Retrying: func(w *world, p *process) {
			p.submit(job("1"))
			p.withdraw("q.1")
			w.change("q.1", claimed("b", 1, "t"), machine.Erred{Hold: hold("t"), After: time.Minute})
		},
	} {
		t.Run(string(state), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				create(w, p)
				w.wantTimers("q.1")
				p.heals("q.1", store.LackTimer)
				due := p.timer("q.1", "due")
				time.Sleep(time.Until(due.At))
				p.heals("q.1")
				p.cancelTimer(due)
				p.heals("q.1", store.LackTimer) // overdue
				due = p.timer("q.1", "due")
				if err := p.Fire(t.Context(), due); err != nil {
					t.Error(err)
				}
				p.cancelTimer(due)
				p.heals("q.1")
				p.start("t1")
			})
		})
	}
}

// Overdue timers that were lost fire at once when they are set again.
func TestHealOverdue(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		p := w.process("a")
		w.create(later("due", time.Minute))
		w.create(limited("queued"))
		time.Sleep(2 * time.Minute)
		p.heals("q.due", store.LackTimer)
		p.start("t1")
		if lacks, err := p.Heal(t.Context(), "q.queued"); err != nil || !slices.Equal(lacks, []store.Lack{store.LackTimer, store.LackItem}) {
			t.Errorf("lacks %v, %v", lacks, err)
		}
		time.Sleep(time.Second)
		w.want("q.queued", machine.Failed, 0, 0)
		w.wantItems("q.queued", 0)
	})
}

// Running: its node runs it, or the job is pending again, with an item. Without an
// answer and a verdict nothing is known.
func TestHealRunning(t *testing.T) {
	for name, c := range map[string]struct {
		node     func(w *world, a *process)
		want     []store.Lack
		failures int
	}{
		"yes":     {func(*world, *process) {}, nil, 0},
		"unaware": {func(_ *world, a *process) { a.forget("t1") }, []store.Lack{store.LackNode}, 0},
		"denies": {func(_ *world, a *process) {
			a.leave()
			a.forget("t1")
			a.join("a")
		}, []store.Lack{store.LackNode}, 1},
		"silent": {func(_ *world, a *process) {
			a.crash()
			time.Sleep(longGone)
		}, nil, 0},
		"dead": {func(w *world, a *process) {
			w.serve()
			a.crash()
			time.Sleep(longGone)
		}, []store.Lack{store.LackNode}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.process("a"), w.process("b")
				a.submit(job("1"))
				a.start("t1")
				a.withdraw("q.1")
				c.node(w, a)
				b.heals("q.1", c.want...)
				w.wantItems("q.1", uint64(len(c.want)))
				if len(c.want) > 0 {
					b.begin("t2")
					w.want("q.1", machine.Running, 2, c.failures)
				}
			})
		})
	}
}

// Running nowhere, with an item: that may come back late, so another one is
// offered. It starts once.
func TestHealRunningWithItem(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(job("1"))
		a.start("t1")
		a.forget("t1")
		b.heals("q.1", store.LackNode)
		w.want("q.1", machine.Pending, 1, 0)
		w.wantItems("q.1", 2)
		b.heals("q.1")
		b.start("t2")
		w.want("q.1", machine.Running, 2, 0)
	})
}

// Running with cancel: its node is told again, which heals nothing, also when
// the deadline passes.
func TestHealCancel(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		a, b := w.process("a"), w.process("b")
		for _, local := range []string{"asked", "overdue"} {
			a.submit(limited(local))
			a.start(local)
		}
		w.change("q.asked", machine.Stopped{Cause: "asked", At: time.Now()}) // and the message is lost
		b.heals("q.asked")
		if !a.toldToEnd("q.asked", "asked") {
			t.Error("the node was not told")
		}
		time.Sleep(time.Hour + time.Second)
		if c := w.get("q.overdue").Value.Cancel; c == nil || !c.Overdue {
			t.Errorf("the job is to end: %+v, want that it is overdue", c)
		}
		b.heals("q.asked")
		b.heals("q.overdue")
	})
}

// Nobody will ever take over: a job that is to end, or has no failures left, ends
// all the same when its node is gone, and leaves nothing.
func TestHealEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		a, b := w.process("a"), w.process("b")
		for _, local := range []string{"cancelled", "failed", "pending"} {
			j := limited(local)
			if local == "failed" {
				j.MaxAttempts = 1
			}
			a.submit(j)
			a.start(local)
		}
		must(b.Cancel(t.Context(), "q.cancelled", "asked"))(t)
		a.crash()
		time.Sleep(longGone)
		for local, want := range map[string]machine.State{"cancelled": machine.Cancelled, "failed": machine.Failed, "pending": machine.Pending} {
			b.heals("q."+local, store.LackNode)
			if now := w.get("q." + local).Value.State; now != want {
				t.Errorf("q.%s is %s", local, now)
			}
		}
		w.wantItems("q.cancelled", 0)
		w.wantItems("q.failed", 0)
		w.wantItems("q.pending", 2)
		w.wantTimers("q.cancelled")
		w.wantTimers("q.failed")
	})
}

// A limit: its timer.
func TestHealLimits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(limited("1"))
		p.cancelTimer(p.timer("q.1", "queued"))
		p.heals("q.1", store.LackTimer)
		p.cancelTimer(p.timer("q.1", "deadline"))
		p.heals("q.1", store.LackTimer)
		w.wantTimers("q.1", "deadline", "queued")
		w.wantItems("q.1", 1)
		entry, d := p.start("t1")
		p.cancelTimer(p.timer("q.1", "queued"))
		p.heals("q.1") // it has started
		p.cancelTimer(p.timer("q.1", "deadline"))
		p.heals("q.1", store.LackTimer)
		p.finish(entry, "t1", erred("t1"), d)
		p.cancelTimer(p.timer("q.1", "deadline"))
		p.heals("q.1", store.LackTimer)
		w.wantTimers("q.1", "deadline", "due")
	})
}

// Removing: it is removed, with what it owns.
func TestHealRemoving(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.wreck("1")
		w.change("q.1", machine.Removed{At: time.Now()})
		p.heals("q.1", store.LackRemoval)
		w.wantGone("q.1")
	})
}

// What has ended, what is gone, and what only a newer build understands, lacks
// nothing.
func TestHealNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.wreck("ended")
		newer := job("newer")
		newer.State = "hibernating"
		w.create(newer)
		raw := kv.Open(w.pub, ns.Bucket(streams.Jobs), kv.JSON[string]())
		must(raw.Create(t.Context(), "q.foreign", "of a newer build"))(t)
		for _, local := range []string{"ended", "newer", "foreign", "gone"} {
			p.heals("q." + local)
			if lacks, err := p.HealExpiry(t.Context(), "q."+local); local != "ended" && (err != nil || len(lacks) > 0) {
				t.Errorf("%s lacks %v, %v", local, lacks, err)
			}
		}
		w.wantItems("q.newer", 0)
	})
}

// A job that moves while it is looked at lacked nothing.
func TestHealMeetsClaim(t *testing.T) {
	for name, move := range map[string]func(w *world, p *process){
		"claimed": func(w *world, p *process) { w.change("q.1", p.claims("t")) },
		"gone":    func(w *world, _ *process) { w.remove("q.1") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				w.create(job("1"))
				p.fail(itemReads, natstest.Hold)
				healed := w.meanwhile(func() { p.heals("q.1") })
				synctest.Wait()
				move(w, p)
				p.link.Release()
				healed()
				w.wantItems("q.1", 0)
			})
		})
	}
}

// What a job lacks is made up for in the end, whatever happens to the write.
func TestHealFaults(t *testing.T) {
	for filter, j := range map[string]func() machine.Job{
		workWrites:  func() machine.Job { return job("1") },
		timerWrites: func() machine.Job { return later("1", 10*time.Second) },
	} {
		for _, fault := range append(faults, natstest.DownBefore, natstest.DownAfter) {
			t.Run(fmt.Sprint(filter, " ", fault), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.serve()
					a, b := w.process("a"), w.process("b")
					w.create(j())
					a.fail(filter, fault)
					ctx, cancel := context.WithTimeout(t.Context(), lease)
					defer cancel()
					if _, err := a.Heal(ctx, "q.1"); err == nil {
						t.Error("what is not known to be there was said to be healed")
					}
					a.link.Release()
					if _, err := b.Heal(t.Context(), "q.1"); err != nil {
						t.Error(err)
					}
					b.runOnce("t1")
					w.want("q.1", machine.Succeeded, 1, 0)
				})
			})
		}
	}
}
