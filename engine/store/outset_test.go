package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
)

// delayedFan is a broadcast that is to be dispatched later.
func delayedFan(local string, delay time.Duration) machine.Job {
	j := fan(local)
	j.State, j.Wait = machine.Scheduled, machine.WaitDelay
	j.Due = machine.Millisecond(time.Now().Add(delay))
	return j
}

// finds lets a process find some shares when a delayed job is due.
func (p *process) finds(shares []machine.Share, err error) {
	p.snapshot = func() ([]machine.Share, error) { return shares, err }
}

// A delayed broadcast goes to the nodes that are there when it is due.
func TestOutset(t *testing.T) {
	for _, size := range []int{10, store.Inline / 2} { // the latter as a blob
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.serve()
				found := bulky(size)
				p.finds(found, nil)
				p.submit(delayedFan("1", time.Minute))
				w.wantTimers("q.1", "outset")
				p.heals("q.1")
				p.cancelTimer(p.timer("q.1", "outset"))
				p.heals("q.1", "timer")
				time.Sleep(61 * time.Second)
				w.want("q.1", machine.Waiting, 0, 0)
				entry := w.get("q.1")
				if diff := cmp.Diff(found, must(p.Shares(t.Context(), entry.Value))(t)); diff != "" || entry.Value.Fan.Total != 2 {
					t.Errorf("total %d, shares (-want +got):\n%s", entry.Value.Fan.Total, diff)
				}
				w.wantParts(map[string]machine.State{"n0": machine.Pending, "n1": machine.Pending})
				w.wantTimers("q.1")
				must(p.Cancel(t.Context(), "q.1", "asked"))(t)
				if err := p.Delete(t.Context(), "q.1"); err != nil {
					t.Error(err)
				}
				w.wantNothing()
			})
		})
	}
}

// If nobody is there when it is due, or too many are, it fails and says so. It can be
// retried: then it looks again.
func TestOutsetToNobody(t *testing.T) {
	for what, why := range map[string]error{
		"no node was there when it was due that runs q.k and does not drain: start one, and retry it": nil,
		"too many": errors.New("too many"),
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.serve()
				p.finds(nil, why)
				p.submit(delayedFan("1", time.Second))
				time.Sleep(2 * time.Second)
				w.want("q.1", machine.Failed, 0, 0)
				if got := w.get("q.1").Value.Error; got == nil || got.Message != what || got.Code != "no_node" {
					t.Errorf("error %+v, want %q", got, what)
				}
				p.finds(strangers(1), nil)
				must(p.Redrive(t.Context(), "q.1"))(t)
				time.Sleep(time.Second)
				w.wantParts(map[string]machine.State{"n0": machine.Pending})
			})
		})
	}
}

// While the nodes cannot be read it waits, and so does a job whose owner cannot
// dispatch it.
func TestOutsetWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.serve()
		p.finds(nil, fmt.Errorf("nodes: read: %w", publish.ErrUnknown))
		p.submit(delayedFan("1", time.Second))
		time.Sleep(10 * time.Second)
		w.want("q.1", machine.Scheduled, 0, 0)
		p.finds(strangers(1), nil)
		time.Sleep(time.Minute)
		w.want("q.1", machine.Waiting, 0, 0)
	})
}

// A timer of the past dispatches nothing: the job was cancelled, is gone, or is due
// later by now.
func TestOutsetTooLate(t *testing.T) {
	for what, happens := range map[string]func(*world, *process){
		"cancelled": func(w *world, p *process) { must(p.Cancel(w.Context(), "q.1", "asked"))(w) },
		"gone":      func(w *world, _ *process) { w.remove("q.1") },
		"removing": func(w *world, _ *process) {
			w.change("q.1", machine.Stopped{At: time.Now()}, machine.Removed{At: time.Now()})
		},
		"later": func(w *world, p *process) {
			w.remove("q.1")
			p.submit(delayedFan("1", time.Hour))
		},
		"no family": func(w *world, p *process) {
			w.remove("q.1")
			p.submit(later("1", time.Hour))
		},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				p.finds(strangers(1), nil)
				p.submit(delayedFan("1", time.Minute))
				timer := p.timer("q.1", "outset")
				time.Sleep(time.Minute)
				happens(w, p)
				before := w.states()
				if err := p.Fire(t.Context(), timer); err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(before, w.states()); diff != "" {
					t.Errorf("jobs (-before +after):\n%s", diff)
				}
			})
		})
	}
}

// The owner dies at any write of a dispatch, or its answer is lost: the next owner goes
// on. The nodes are those that were stored, whoever looked later.
func TestOutsetCrash(t *testing.T) {
	for _, n := range []int{0, 2} {
		for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter, natstest.CutAfter} {
			for nth := range 3 {
				t.Run(fmt.Sprintf("%d/%s/%d", n, fault, nth+1), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) {
						a, b := w.process("a"), w.process("b")
						a.finds(strangers(n), nil)
						b.finds(strangers(3), nil)
						a.submit(delayedFan("1", time.Minute))
						timer := a.timer("q.1", "outset")
						time.Sleep(time.Minute)
						a.failNth(nth+1, fault)
						if fault == natstest.CutAfter {
							for a.Fire(t.Context(), timer) != nil {
								time.Sleep(time.Second)
							}
						} else {
							a.die(func(ctx context.Context) { _ = a.Fire(ctx, timer) })
						}
						stored := n // unless it died before
						if nth == 0 && fault == natstest.DownBefore {
							stored = 3
						}
						if err := b.Fire(t.Context(), timer); err != nil {
							t.Error(err)
						}
						if stored == 0 {
							w.want("q.1", machine.Failed, 0, 0)
							return
						}
						w.want("q.1", machine.Waiting, 0, 0)
						if got := len(w.states()); got != stored+1 {
							t.Errorf("there are %d records, want %d", got, stored+1)
						}
						for i := range stored {
							of := fmt.Sprintf("n%d", i)
							w.want(part(of), machine.Pending, 0, 0)
							w.wantMails(of, part(of), 1)
						}
					})
				})
			}
		}
	}
}

// A process that has no way to find nodes leaves delayed broadcasts to others.
func TestOutsetWithoutSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.blind = true
		p := w.process("a")
		p.submit(delayedFan("1", time.Minute))
		time.Sleep(time.Minute)
		if err := p.Fire(t.Context(), p.timer("q.1", "outset")); !errors.Is(err, publish.ErrUnsent) {
			t.Errorf("got %v", err)
		}
		w.want("q.1", machine.Scheduled, 0, 0)
	})
}
