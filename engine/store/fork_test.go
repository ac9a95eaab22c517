package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// Of a rolling broadcast the first parts are made, and no more, however often.
func TestForkRolling(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.process("a")
		j := fan("1", strangers(5)...)
		j.Fan.MaxParallel = 2
		entry := a.submit(j)
		want := map[string]machine.State{"n0": machine.Pending, "n1": machine.Pending}
		w.wantParts(want)
		if err := a.Owe(t.Context(), entry); err != nil {
			t.Error(err)
		}
		w.wantParts(want)
		must(a.Cancel(t.Context(), part("n0"), "asked"))(t)
		if err := a.Owe(t.Context(), entry); err != nil {
			t.Error(err)
		}
		want["n0"] = machine.Cancelled
		w.wantParts(want)
		if err := a.Fork(t.Context(), entry, j.Fan.Shares, []int{1, 3}); err != nil {
			t.Error(err)
		}
		want["n3"] = machine.Pending
		w.wantParts(want)
		children := must(a.Children(t.Context(), entry, j.Fan.Shares, []int{3, 2, 0}))(t)
		got := []string{children[0].Key, children[1].Key, children[2].Key}
		if diff := cmp.Diff([]string{part("n3"), "", part("n0")}, got); diff != "" {
			t.Errorf("children (-want +got):\n%s", diff)
		}
	})
}

// The submitter dies at any write of the fan-out: whoever submits again completes it,
// and so does whoever makes the children. Each is there once, and offered.
func TestForkCrash(t *testing.T) {
	parts := map[string]machine.State{"n0": machine.Pending, "n1": machine.Pending, "n2": machine.Pending}
	again := map[string]func(*world, *process) error{
		"submit": func(w *world, p *process) error {
			_, _, err := p.Submit(w.Context(), fan("1", strangers(3)...))
			return err
		},
		"fork": func(w *world, p *process) error {
			entry, err := p.Get(w.Context(), "q.1")
			if errors.Is(err, store.ErrNotFound) {
				_, _, err = p.Submit(w.Context(), fan("1", strangers(3)...))
				return err
			}
			return errors.Join(err, p.fork(entry))
		},
	}
	for who, f := range again {
		for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter} {
			for n := range 7 { // the parent, and two writes for each child
				t.Run(fmt.Sprintf("%s/%s/%d", who, fault, n+1), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) {
						a, b := w.process("a"), w.process("b")
						a.failNth(n+1, fault)
						a.die(func(ctx context.Context) { _, _, _ = a.Submit(ctx, fan("1", strangers(3)...)) })
						if err := f(w, b); err != nil {
							t.Error(err)
						}
						w.wantParts(parts)
						for of := range parts {
							w.wantMails(of, part(of), 1)
						}
					})
				})
			}
		}
	}
}

// Answers that are lost, and connections that break, are settled, also by two who do
// the same.
func TestForkTwice(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.process("a"), w.process("b")
				entry := w.create(fan("1", strangers(30)...))
				var waits []func()
				for i, p := range []*process{a, b} {
					p.unlucky(rand.New(rand.NewPCG(seed, uint64(i))))
					waits = append(waits, w.meanwhile(func() {
						for err := p.fork(entry); err != nil; err = p.fork(entry) {
							time.Sleep(time.Second)
						}
					}))
				}
				for _, wait := range waits {
					wait()
				}
				for i := range 30 {
					of := fmt.Sprintf("n%d", i)
					w.want(part(of), machine.Pending, 0, 0)
					w.wantMails(of, part(of), 1)
				}
			})
		})
	}
}

// Who makes children too late leaves nothing: the parent has ended, or is gone, or
// another has its ID.
func TestForkTooLate(t *testing.T) {
	for what, meanwhile := range map[string]struct {
		happens func(*world, *process)
		want    map[string]machine.State
	}{
		"cancelled": {func(w *world, p *process) { must(p.Cancel(w.Context(), "q.1", "asked"))(w) }, map[string]machine.State{"n0": machine.Cancelled, "n1": machine.Cancelled}},
		"gone":      {func(w *world, _ *process) { w.remove("q.1") }, map[string]machine.State{}},
		"another": {func(w *world, p *process) {
			w.remove("q.1")
			time.Sleep(time.Second)
			p.submit(fan("1", strangers(1)...))
		}, map[string]machine.State{"n0": machine.Pending}},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				entry := w.create(fan("1", strangers(2)...))
				meanwhile.happens(w, p)
				before := w.states()
				if err := p.fork(entry); err != nil {
					t.Error(err)
				}
				w.wantParts(meanwhile.want)
				if before["q.1"] == machine.Waiting {
					if of := w.get(part("n0")).Value.Parent; !of.Is(w.get("q.1").Value) {
						t.Error("the child is not that of the parent that is there")
					}
				}
				w.wantMails("n1", part("n1"), 0)
			})
		})
	}
}

// A child of an earlier life of the ID is in the way: it goes. One that runs has to
// end first.
func TestForkMeetsThePast(t *testing.T) {
	for _, state := range []machine.State{machine.Pending, machine.Running, machine.Succeeded, machine.Removing} {
		t.Run(string(state), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				p.submit(fan("1", p.share()))
				var running *streams.Delivery
				switch state {
				case machine.Running:
					_, running = p.startPart(part("a"), "t0")
				case machine.Succeeded:
					p.runPart(part("a"), "t0")
				case machine.Removing:
					w.change(part("a"), machine.Stopped{At: time.Now()}, machine.Removed{At: time.Now()})
				}
				w.remove("q.1")
				time.Sleep(time.Second)
				_, created, err := p.Submit(t.Context(), fan("1", p.share()))
				if !created || errors.Is(err, store.ErrNotEnded) != (state == machine.Running) {
					t.Fatalf("created %v, %v", created, err)
				}
				if state == machine.Running {
					if !p.toldToEnd(part("a"), "t0") {
						t.Error("the node was not told to end the child of the past")
					}
					p.finish(w.get(part("a")), "t0", machine.Returned{Hold: hold("t0")}, running)
					if err := p.fork(w.get("q.1")); err != nil {
						t.Fatal(err)
					}
				}
				w.wantParts(map[string]machine.State{"a": machine.Pending})
				w.wantMails("a", part("a"), 1)
				p.runPart(part("a"), "t1")
			})
		})
	}
}

// A record that is no child is not taken away.
func TestForkMeetsAStranger(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		stranger := job("x")
		stranger.ID = part("n0")
		w.create(stranger)
		_, _, err := p.Submit(t.Context(), fan("1", strangers(1)...))
		if err == nil || !strings.Contains(err.Error(), "not one that the engine made") || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v", err)
		}
	})
}

// Nearly full storage refuses the parent. The children of one that is there are made.
func TestForkFull(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		entry := w.create(fan("1", strangers(3)...))
		for i := range 36 {
			w.create(later(fmt.Sprint("x", i), time.Hour))
		}
		w.limit(40)
		if _, created, err := p.Submit(t.Context(), fan("2", strangers(2)...)); created || !errors.Is(err, streams.ErrFull) {
			t.Fatalf("created %v, %v", created, err)
		}
		if err := p.fork(entry); err != nil {
			t.Error(err)
		}
		for _, of := range []string{"n0", "n1", "n2"} {
			w.want(part(of), machine.Pending, 0, 0)
		}
	})
}
