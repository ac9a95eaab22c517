package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
)

// Somebody counts, and the job ends: how its children did stands in its record. What
// is too large for that is a blob.
func TestConclude(t *testing.T) {
	for _, size := range []int{10, store.Inline + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				p.submit(fan("1", p.share()))
				p.runPart(part("a"), "t1")
				heard := w.heard("q.1")
				tally := machine.Tally{Succeeded: 1}
				entry := p.conclude(machine.Concluded{Tally: tally, Result: text(size)})
				w.want("q.1", machine.Succeeded, 0, 0)
				if diff := cmp.Diff(tally, entry.Value.Fan.Tally); diff != "" {
					t.Errorf("tally (-want +got):\n%s", diff)
				}
				if got := p.fetch(entry.Value.Result, entry.Value.ResultBlob); string(got) != string(text(size)) {
					t.Errorf("the result has %d bytes", len(got))
				}
				if heard() != 1 {
					t.Errorf("the end was announced %d times", heard())
				}
				if err := p.Delete(t.Context(), "q.1"); err != nil {
					t.Error(err)
				}
				w.wantNothing()
			})
		})
	}
}

// Two owners count at once, answers are lost, and the job was cancelled meanwhile: it
// ends once, and no blob is left.
func TestConcludeRace(t *testing.T) {
	for what, c := range map[string]struct {
		fault   natstest.Fault
		happens func(*world, *process)
		want    machine.State
	}{
		"answer lost": {natstest.LoseAnswer, func(*world, *process) {}, machine.Succeeded},
		"cancelled":   {natstest.Hold, func(w *world, p *process) { must(p.Cancel(w.Context(), "q.1", "asked"))(w) }, machine.Cancelled},
		"concluded": {natstest.Hold, func(_ *world, p *process) {
			p.conclude(machine.Concluded{Error: &machine.Error{Message: "no"}})
		}, machine.Failed},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.process("a"), w.process("b")
				a.submit(fan("1", strangers(2)...))
				a.fail(jobWrites, c.fault)
				concluded := w.meanwhile(func() {
					entry := a.conclude(machine.Concluded{Result: text(store.Inline + 1)})
					if entry.Value.State != c.want {
						t.Errorf("the first owner finds it %s, want %s", entry.Value.State, c.want)
					}
				})
				time.Sleep(time.Second)
				c.happens(w, b)
				a.link.Release()
				concluded()
				w.want("q.1", c.want, 0, 0)
				objects := 0
				if c.want == machine.Succeeded {
					objects = 1
				}
				w.wantObjects(objects)
				if c.want != machine.Succeeded {
					w.wantParts(map[string]machine.State{"n0": machine.Cancelled, "n1": machine.Cancelled})
				}
			})
		})
	}
}

// Whoever ends a job dies at any write of that: whoever meets it goes on, and so does
// the reconciler for each child.
func TestConcludeCrash(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter} {
		for n := range 8 { // the record, its timer, and two children with their messages
			t.Run(fmt.Sprintf("%s/%d", fault, n+1), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.process("a"), w.process("b")
					a.submit(fan("1", strangers(2)...))
					entry := w.get("q.1")
					failed := machine.Concluded{At: time.Now().UTC(), Error: &machine.Error{Message: "no"}}
					a.failNth(n+1, fault)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					ended := w.meanwhile(func() { _, _ = a.Conclude(ctx, entry, failed) })
					time.Sleep(2 * time.Second)
					cancel()
					ended()
					a.crash()
					if w.get("q.1").Value.State == machine.Waiting {
						b.conclude(failed)
					}
					if n%2 == 0 {
						if err := b.Owe(t.Context(), w.get("q.1")); err != nil {
							t.Error(err)
						}
					}
					for _, of := range []string{"n0", "n1"} {
						if _, err := b.Heal(t.Context(), part(of)); err != nil {
							t.Error(err)
						}
					}
					if _, err := b.HealExpiry(t.Context(), "q.1"); err != nil {
						t.Error(err)
					}
					w.want("q.1", machine.Failed, 0, 0)
					w.wantParts(map[string]machine.State{"n0": machine.Cancelled, "n1": machine.Cancelled})
					w.wantTimers("q.1", "expiry")
				})
			})
		}
	}
}

// A family goes whole: each child with its log, its result and its mail, and the parent
// last. The process may die at any write of that.
func TestDeleteFamily(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.Pass, natstest.DownBefore, natstest.DownAfter} {
		for n := range 14 {
			if fault == natstest.Pass && n > 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", fault, n+1), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.process("a"), w.process("b")
					a.submit(fan("1", a.share(), b.share(), machine.Share{Node: "c", Incarnation: 1}))
					entry, d := a.startPart(part("a"), "t1")
					a.finish(entry, "t1", machine.Done{Hold: hold("t1"), Result: text(store.Inline + 1)}, d)
					b.runPart(part("b"), "t2")
					must(w.js.Publish(t.Context(), ns.LogSubject(part("b")), []byte("line")))(t)
					must(w.js.Publish(t.Context(), ns.MailSubject("c", "q", part("c")[len("q."):]), nil))(t)
					a.conclude(machine.Concluded{Error: &machine.Error{Message: "no"}})
					if fault == natstest.Pass {
						if err := a.Delete(t.Context(), "q.1"); err != nil {
							t.Error(err)
						}
					} else {
						a.failNth(n+1, fault)
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						ended := w.meanwhile(func() { _ = a.Delete(ctx, "q.1") })
						time.Sleep(2 * time.Second)
						cancel()
						ended()
						a.crash()
						if err := b.Delete(t.Context(), "q.1"); err != nil && !errors.Is(err, store.ErrNotFound) {
							t.Error(err)
						}
					}
					w.wantNothing()
				})
			})
		}
	}
}

// Full storage: a family can be deleted, which is the way out.
func TestDeleteFamilyWhenFull(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(fan("1", bulky(store.Inline/2)...))
		must(p.Cancel(t.Context(), "q.1", "asked"))(t)
		p.cancelTimer(p.timer("q.1", "expiry")) // it would stay until it is due
		stream := must(w.js.Stream(t.Context(), "KV_mr_default_jobs"))(t)
		config := stream.CachedInfo().Config
		config.MaxMsgSize = 10 // nothing is taken any more
		must(w.js.UpdateStream(t.Context(), config))(t)
		if err := p.Delete(t.Context(), "q.1"); err != nil {
			t.Error(err)
		}
		w.wantNothing()
	})
}

// A child goes with its parent, and not before.
func TestDeleteChild(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(fan("1", p.share()))
		p.runPart(part("a"), "t1")
		if err := p.Delete(t.Context(), part("a")); !errors.Is(err, store.ErrParent) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v", err)
		}
		w.want(part("a"), machine.Succeeded, 1, 0)
		w.remove("q.1")
		if err := p.Delete(t.Context(), part("a")); err != nil {
			t.Error(err)
		}
		w.wantNothing()
	})
}

// The expiry of a family waits until its children have ended.
func TestFamilyExpires(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(fan("1", p.share()))
		entry, d := p.startPart(part("a"), "t1")
		p.conclude(machine.Concluded{})
		w.change("q.1", machine.Redriven{At: time.Now()})
		p.conclude(machine.Concluded{Error: &machine.Error{Message: "no"}})
		expiry := p.timer("q.1", "expiry")
		if err := p.Fire(t.Context(), expiry); !errors.Is(err, store.ErrNotEnded) {
			t.Errorf("got %v", err)
		}
		p.finish(entry, "t1", machine.Returned{Hold: hold("t1")}, d)
		if err := p.Fire(t.Context(), expiry); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		w.wantTimers("q.1", "expiry") // of the life before, in the stream only
		p.cancelTimer(p.timer("q.1", "expiry"))
		w.wantNothing()
	})
}

// A redriven family: what succeeded stays, and the rest runs once more.
func TestRedriveFamily(t *testing.T) {
	for _, parallel := range []int{0, 1} {
		t.Run(fmt.Sprint(parallel), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.process("a"), w.process("b")
				j := fan("1", a.share(), b.share(), machine.Share{Node: "c", Incarnation: 1})
				a.submit(j)
				a.runPart(part("a"), "t1")
				entry, d := b.startPart(part("b"), "t2")
				b.finish(entry, "t2", machine.Erred{Hold: hold("t2"), Final: true}, d)
				w.change("q.1", machine.Concluded{At: time.Now(), Error: &machine.Error{Message: "no"}})
				if _, err := a.Redrive(t.Context(), part("b")); !errors.Is(err, store.ErrParent) || strings.Contains(err.Error(), "\n") {
					t.Errorf("redrive of a part: got %v", err)
				}
				if err := a.Owe(t.Context(), w.get("q.1")); err != nil {
					t.Error(err)
				}
				w.wantParts(map[string]machine.State{"a": machine.Succeeded, "b": machine.Failed, "c": machine.Cancelled})
				parent := w.get("q.1")
				parent.Value.Fan.MaxParallel = parallel
				must(w.jobs.Update(t.Context(), "q.1", parent.Value, parent.Revision))(t)
				told := w.endings()
				time.Sleep(time.Second)
				must(a.Redrive(t.Context(), "q.1", machine.Failed))(t)
				want := map[string]machine.State{"a": machine.Succeeded, "b": machine.Pending, "c": machine.Pending}
				if parallel > 0 { // the owner counts what is there, and goes on
					want["b"], want["c"] = machine.Failed, machine.Cancelled
				}
				w.wantParts(want)
				if diff := cmp.Diff([]store.Ending{{Parent: "q.1"}}, told()); diff != "" {
					t.Errorf("the owner is told (-want +got):\n%s", diff)
				}
				children := must(a.Children(t.Context(), w.get("q.1"), j.Fan.Shares, numbers(3)))(t)
				if children[0].Key == "" || (children[1].Key == "") != (parallel > 0) {
					t.Errorf("children %v", children)
				}
				if err := a.fork(w.get("q.1")); err != nil {
					t.Error(err)
				}
				w.wantParts(map[string]machine.State{"a": machine.Succeeded, "b": machine.Pending, "c": machine.Pending})
				if pin := w.get(part("b")).Value.Pin; pin.Incarnation != 0 {
					t.Errorf("the pin is %+v, want that of any incarnation", pin)
				}
				b.runPart(part("b"), "t3")
				must(a.Cancel(t.Context(), part("c"), "asked"))(t)
				if err := a.fork(w.get("q.1")); err != nil { // nothing is left to do
					t.Error(err)
				}
				w.wantParts(map[string]machine.State{"a": machine.Succeeded, "b": machine.Succeeded, "c": machine.Cancelled})
				must(a.Redrive(t.Context(), part("c")))(t) // while its parent waits
				w.want(part("c"), machine.Pending, 0, 0)
			})
		})
	}
}

// Whoever redrives a family dies at any write: another one goes on.
func TestRedriveFamilyCrash(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter} {
		for n := range 7 {
			t.Run(fmt.Sprintf("%s/%d", fault, n+1), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.process("a"), w.process("b")
					a.submit(fan("1", strangers(2)...))
					must(a.Cancel(t.Context(), "q.1", "asked"))(t)
					time.Sleep(time.Second)
					a.failNth(n+1, fault)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					ended := w.meanwhile(func() { _, _ = a.Redrive(ctx, "q.1") })
					time.Sleep(2 * time.Second)
					cancel()
					ended()
					a.crash()
					if _, err := b.Redrive(t.Context(), "q.1"); err != nil && !errors.Is(err, store.ErrNotEnded) {
						t.Error(err)
					}
					w.want("q.1", machine.Waiting, 0, 0)
					w.wantParts(map[string]machine.State{"n0": machine.Pending, "n1": machine.Pending})
					for _, of := range []string{"n0", "n1"} {
						w.wantMails(of, part(of), 1)
					}
				})
			})
		}
	}
}
