package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
)

// A part is claimed by its node, succeeds, and is done with.
func TestPart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(fan("1", machine.Share{Node: "a"}))
		entry, d := p.startPart(part("a"), "t1")
		if pin := entry.Value.Pin; pin.Incarnation != p.node.Incarnation() {
			t.Errorf("the pin is %+v, want that of the claimant", pin)
		}
		p.finish(entry, "t1", done("t1"), d)
		w.want(part("a"), machine.Succeeded, 1, 0)
		w.wantMails("a", part("a"), 0)
		if timers := w.timers(part("a")); len(timers) > 0 {
			t.Errorf("the part has timers %v", timers)
		}
	})
}

// Retries and snoozes of a part come to its node, and to no other.
func TestPartRetries(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		p := w.process("a")
		p.submit(fan("1", p.share()))
		for i, outcome := range []machine.Event{erred("t0"), machine.Returned{Hold: hold("t1"), Due: time.Now().Add(10 * time.Second)}, machine.Returned{Hold: hold("t2")}} {
			token := fmt.Sprint("t", i)
			entry, d := p.startPart(part("a"), token)
			p.finish(entry, token, outcome, d)
			time.Sleep(20 * time.Second)
			w.wantItems(part("a"), 0)
			w.wantMails("a", part("a"), 1)
			p.heals(part("a"))
		}
		p.runPart(part("a"), "t3")
		w.want(part("a"), machine.Succeeded, 4, 1)
		w.wantMails("a", part("a"), 0)
	})
}

// An item that reaches a node that may not have the job means nothing there.
func TestPartOfAnother(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(fan("1", a.share()))
		before := w.get(part("a"))
		b.again(before) // as a stale timer may
		if _, ok := b.deliver(b.mailOf("a", part("a")), "t1"); ok {
			t.Error("a part runs on another node")
		}
		if after := w.get(part("a")); after.Revision != before.Revision {
			t.Error("it was written to")
		}
	})
}

// A child that nobody waits for does not start: its parent has ended, or is gone, or
// another has its ID. It is cancelled, and says so.
func TestPartWithoutParent(t *testing.T) {
	past := func(w *world, p *process) {
		w.remove("q.1")
		time.Sleep(time.Second)
		w.create(fan("1"))
	}
	for what, happens := range map[string]func(*world, *process){
		"gone":      func(w *world, _ *process) { w.remove("q.1") },
		"past":      past,
		"cancelled": func(w *world, _ *process) { w.change("q.1", machine.Stopped{At: time.Now()}) },
		"concluded": func(w *world, _ *process) { w.change("q.1", machine.Concluded{At: time.Now()}) },
		"removing":  func(w *world, _ *process) { w.change("q.1", machine.Concluded{At: time.Now()}, machine.Removed{}) },
	} {
		for how, deliver := range map[string]func(*world, *process){
			"claimed": func(w *world, p *process) {
				if _, ok := p.deliver(p.mail(part("a")), "t1"); ok {
					w.Error("it runs")
				}
				w.want(part("a"), machine.Cancelled, 0, 0)
			},
			"healed": func(w *world, p *process) {
				p.heals(part("a"), store.LackParent)
				w.want(part("a"), machine.Cancelled, 0, 0)
			},
			"lost claim": func(w *world, p *process) { // the claim was stored, and its answer lost
				d := p.mail(part("a"))
				w.change(part("a"), claimed("a", p.node.Incarnation(), "t0"))
				if _, ok := p.deliver(d, "t1"); ok {
					w.Error("it runs")
				}
				w.want(part("a"), machine.Cancelled, 1, 0)
			},
		} {
			t.Run(what+"/"+how, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p := w.process("a")
					p.submit(fan("1", p.share()))
					told, heard := w.endings(), w.heard(part("a"))
					happens(w, p)
					deliver(w, p)
					want := []store.Ending{{Parent: "q.1", Part: "a", State: machine.Cancelled}}
					if diff := cmp.Diff(want, told()); diff != "" || heard() != 1 {
						t.Errorf("the end is announced %d times, the owner is told (-want +got):\n%s", heard(), diff)
					}
					w.wantMails("a", part("a"), 0)
				})
			})
		}
	}
}

// While nobody can say whether the parent waits, the part stays where it is.
func TestPartWithUnreadableParent(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(fan("1", p.share()))
		newer := w.get("q.1")
		newer.Value.State = "hibernating"
		must(w.jobs.Update(t.Context(), "q.1", newer.Value, newer.Revision))(t)
		if _, ok, err := p.Deliver(t.Context(), p.mail(part("a")), "t1", p); ok || err == nil {
			t.Errorf("it runs %v, %v", ok, err)
		}
		w.want(part("a"), machine.Pending, 0, 0)
		w.wantMails("a", part("a"), 1)
		newer = w.get("q.1")
		newer.Value.State = machine.Waiting
		must(w.jobs.Update(t.Context(), "q.1", newer.Value, newer.Revision))(t)
		p.runPart(part("a"), "t2")
	})
}

// While NATS is away nobody can say that either, and the part starts as soon as it is
// back: its item is not left.
func TestPartWithParentAway(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(fan("1", p.share()))
		d := p.mail(part("a"))
		p.link.Down()
		back := time.AfterFunc(8*time.Second, p.link.Up)
		defer back.Stop()
		if entry, ok, err := p.Deliver(t.Context(), d, "t1", p); !ok || err != nil {
			t.Errorf("it runs %v, %v: %s", ok, err, entry.Value.State)
		}
		w.want(part("a"), machine.Running, 1, 0)
	})
}

// A node dies, and its next process has the same ID. An unclaimed part that is lost
// with its node is so whoever comes first; otherwise it runs. A part that ran is lost,
// or runs once more and has not failed. Without a verdict nothing is lost.
func TestPartMeetsNextProcess(t *testing.T) {
	for _, c := range []struct {
		onLost           machine.Else
		running, verdict bool
		want             machine.State
		attempts         int
	}{
		{machine.ElseFail, false, true, machine.Lost, 0},
		{machine.ElseFail, false, false, machine.Running, 1},
		{machine.ElseWait, false, true, machine.Running, 1},
		{machine.ElseFail, true, true, machine.Lost, 1},
		{machine.ElseWait, true, true, machine.Running, 2},
	} {
		t.Run(fmt.Sprintf("%s/running=%t/verdict=%t", c.onLost, c.running, c.verdict), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				if c.verdict {
					w.serve()
				}
				a := w.process("a")
				j := fan("1", a.share())
				j.Fan.OnLost = c.onLost
				a.submit(j)
				told := w.endings()
				if c.running {
					a.startPart(part("a"), "t0")
				}
				a.crash()
				if c.verdict {
					time.Sleep(longGone)
				}
				again := w.process("a")
				_, ok := again.deliver(again.mail(part("a")), "t1")
				if ok != (c.want == machine.Running) {
					t.Errorf("runs %t", ok)
				}
				w.want(part("a"), c.want, c.attempts, failuresOf(c.want, c.running))
				if c.want == machine.Lost {
					if diff := cmp.Diff([]store.Ending{{Parent: "q.1", Part: "a", State: machine.Lost}}, told()); diff != "" {
						t.Errorf("the owner is told (-want +got):\n%s", diff)
					}
					w.wantMails("a", part("a"), 0)
				}
			})
		})
	}
}

// failuresOf is how many failures a part has whose node died: it is none if the part
// waits for the node.
func failuresOf(state machine.State, running bool) int {
	if running && state == machine.Lost {
		return 1
	}
	return 0
}

// The process dies at any write of a part's way, and of its retry. Its node comes
// back, and the part ends once.
func TestPartCrash(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter} {
		for n := range 3 { // claim, outcome, deletion of the message
			t.Run(fmt.Sprintf("%s/%d", fault, n+1), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.serve()
					a := w.process("a")
					j := fan("1", a.share())
					j.Fan.OnLost = machine.ElseWait
					a.submit(j)
					d := a.mail(part("a"))
					a.failNth(n+1, fault)
					a.die(func(ctx context.Context) {
						entry, ok, _ := a.Deliver(ctx, d, "t1", a)
						if !ok {
							return
						}
						if _, fate, err := a.Finish(ctx, entry, "t1", done("t1")); err == nil && fate.Acknowledge() {
							_ = d.Ack()
						}
					})
					time.Sleep(longGone)
					again := w.process("a")
					if w.mails("a", part("a")) == 0 {
						w.want(part("a"), machine.Succeeded, 1, 0)
						return
					}
					d = again.mail(part("a"))
					if entry, ok := again.deliver(d, "t2"); ok {
						again.finish(entry, "t2", done("t2"), d)
					}
					j = w.get(part("a")).Value
					if j.State != machine.Succeeded || j.Failures > 0 {
						t.Errorf("it is %s after %d attempts with %d failures", j.State, j.Attempt, j.Failures)
					}
					w.wantMails("a", part("a"), 0)
				})
			})
		}
	}
}

// What the reconciler finds of a family: a message that is missing, a node that is
// gone, a timer of the parent.
func TestHealFamily(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		a, b := w.process("a"), w.process("b")
		j := fan("1", a.share(), b.share(), machine.Share{Node: "c", Incarnation: 1})
		j.Deadline = time.Now().Add(5 * time.Minute).UTC()
		a.submit(j)
		a.heals("q.1")
		a.cancelTimer(a.timer("q.1", "deadline"))
		a.heals("q.1", store.LackTimer)
		w.wantTimers("q.1", "deadline")

		d := b.mail(part("b"))
		if err := d.Ack(); err != nil {
			t.Error(err)
		}
		a.heals(part("b"), store.LackItem)
		w.wantMails("b", part("b"), 1)
		b.startPart(part("b"), "t1")
		a.heals(part("b"))
		b.crash()
		time.Sleep(longGone)
		a.heals(part("b"), store.LackNode)
		w.want(part("b"), machine.Lost, 1, 1)
		w.wantMails("b", part("b"), 0)

		// When the deadline is over, those that have not started never do.
		time.Sleep(5 * time.Minute)
		w.want("q.1", machine.Failed, 0, 0)
		w.wantParts(map[string]machine.State{"a": machine.Cancelled, "b": machine.Lost, "c": machine.Cancelled})
		a.heals("q.1")
		a.heals(part("c"))
		for _, id := range []string{part("a"), part("b")} {
			if lacks, err := a.HealExpiry(t.Context(), id); err != nil || len(lacks) > 0 {
				t.Errorf("%s lacks %v, %v: it goes with its parent", id, lacks, err)
			}
		}
	})
}

// A part that waits for its node is pending there again when it died in it. A shard
// has no place then.
func TestHealOrphans(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve()
		a, b := w.process("a"), w.process("b")
		j := fan("1", b.share())
		j.Fan.OnLost = machine.ElseWait
		a.submit(j)
		k := fan("2", b.share())
		k.Fan.Shards = true
		a.submit(k)
		shard := store.ChildID("q.2", "0")
		b.startPart(part("b"), "t1")
		b.startPart(shard, "t2")
		b.crash()
		time.Sleep(longGone)
		a.heals(part("b"), store.LackNode)
		w.want(part("b"), machine.Pending, 1, 0)
		w.wantMails("b", part("b"), 1)
		a.heals(shard, store.LackNode)
		w.want(shard, machine.Pending, 1, 1)
		if pin := w.get(shard).Value.Pin; pin.Node != "" {
			t.Errorf("the shard is for node %s", pin.Node)
		}
		w.wantItems(shard, 0)
	})
}

// A running child whose parent has ended is told to end, and does.
func TestRunningPartIsRecalled(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(fan("1", p.share()))
		entry, d := p.startPart(part("a"), "t1")
		must(p.Cancel(t.Context(), "q.1", "asked"))(t)
		if !p.toldToEnd(part("a"), "t1") {
			t.Error("the node was not told")
		}
		if err := p.Delete(t.Context(), "q.1"); !errors.Is(err, store.ErrNotEnded) || !strings.Contains(err.Error(), "part a is running") {
			t.Errorf("delete: got %v", err)
		}
		if _, err := p.Redrive(t.Context(), "q.1"); !errors.Is(err, store.ErrNotEnded) || strings.Contains(err.Error(), "\n") {
			t.Errorf("redrive: got %v", err)
		}
		p.finish(entry, "t1", machine.Returned{Hold: hold("t1")}, d)
		w.want(part("a"), machine.Cancelled, 1, 0)
		if err := p.Delete(t.Context(), "q.1"); err != nil {
			t.Error(err)
		}
		w.wantNothing()
	})
}

// Whoever recalls the children of a job stands still, and goes on when the job has been
// redriven: a child of now is left alone.
func TestRecallTooLate(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.process("a"), w.process("b")
		a.submit(fan("1", a.share()))
		a.fail(jobWrites, natstest.Pass) // the parent
		a.fail(jobWrites, natstest.Hold) // the child
		cancelled := w.meanwhile(func() {
			if _, err := a.Cancel(t.Context(), "q.1", "asked"); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		b.heals(part("a"), store.LackParent)
		must(b.Redrive(t.Context(), "q.1"))(t)
		w.wantParts(map[string]machine.State{"a": machine.Pending})
		a.link.Release()
		cancelled()
		time.Sleep(time.Minute)
		w.wantParts(map[string]machine.State{"a": machine.Pending})
		w.want("q.1", machine.Waiting, 0, 0)
		a.runPart(part("a"), "t1")
	})
}

// The children of a job that is gone go by themselves, some time after they ended.
func TestChildrenOfTheDead(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(fan("1", p.share()))
		p.runPart(part("a"), "t1")
		w.remove("q.1")
		if lacks, err := p.HealExpiry(t.Context(), part("a")); err != nil || !slices.Equal(lacks, []store.Lack{store.LackExpiry}) {
			t.Errorf("lacks %v, %v", lacks, err)
		}
		if lacks, err := p.HealExpiry(t.Context(), part("a")); err != nil || len(lacks) > 0 {
			t.Errorf("lacks %v, %v", lacks, err)
		}
		expiry := p.timer(part("a"), "expiry")
		if expiry.At.Before(time.Now().Add(time.Hour)) {
			t.Errorf("it goes at %v", expiry.At)
		}
		if err := p.Fire(t.Context(), expiry); err != nil {
			t.Error(err)
		}
		w.wantNothing()
	})
}
