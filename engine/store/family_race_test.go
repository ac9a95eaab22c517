package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/streams"
)

// Two nodes, two owners who move it from one to the other, a reconciler and somebody
// who cancels fight for one shard, over connections that break and answers that get
// lost. What they are told is what one shard could have told them, one after the
// other; and it never runs on a node that it is not for.
func TestRaceOfShard(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b, one, two := w.process("a"), w.process("b"), w.process("o"), w.process("p")
				j := fan("1", a.share())
				j.Fan.Shards = true
				one.submit(j)
				h := &shardHistory{w: w, history: history{w: w}, places: []machine.Share{a.share(), b.share()}}
				var nodes, actors sync.WaitGroup
				for i, p := range []*process{a, b, one, two} {
					p.unlucky(rand.New(rand.NewPCG(seed, uint64(i))))
					rng := rand.New(rand.NewPCG(seed, uint64(i)+10))
					if i < 2 {
						nodes.Go(func() { h.work(p, rng) })
					} else {
						actors.Go(func() { h.place(p, rng) })
					}
				}
				actors.Go(func() { h.heal(w.process("h")) })
				if seed%2 == 0 {
					actors.Go(func() { h.cancel(two, rand.New(rand.NewPCG(seed, 30))) })
				}
				actors.Wait()
				nodes.Wait()
				state := w.get(part("0")).Value.State
				h.record(func() told { return told{what: "read", result: string(state)} })
				if !porcupine.CheckOperations(shardModel.ToModel(), h.operations) {
					t.Errorf("no shard behaves like this: %+v", h.operations)
				}
				w.wantMails("*", part("0"), 0)
			})
		})
	}
}

// shardHistory is what happened to a shard.
type shardHistory struct {
	history
	w      *world
	places []machine.Share
}

// open reports whether the shard goes on.
func (h *shardHistory) open() bool { return !h.w.get(part("0")).Value.State.Final() }

// work takes what lies in the mailbox of a node, until the shard has ended.
func (h *shardHistory) work(p *process, rng *rand.Rand) {
	for n := 0; h.open(); n++ {
		time.Sleep(within(rng, time.Second))
		var d *streams.Delivery
		_, _, err := p.work.Mailbox(p.node.ID(), "q", hand{}).Look(h.w.Context(), 0, 10, func(found *streams.Delivery, _ error) {
			if name.JobID(found.Queue, found.Local) == part("0") {
				d = found
			}
		})
		if d == nil || err != nil {
			continue
		}
		token := fmt.Sprintf("%s%d", p.node.ID(), n)
		var entry store.Entry
		var ok bool
		h.record(func() told {
			var err error
			entry, ok, err = p.Deliver(h.w.Context(), d, token, p)
			return told{what: "take", token: token, success: ok && err == nil, result: p.node.ID()}
		})
		if !ok {
			continue
		}
		time.Sleep(within(rng, time.Second))
		success := rng.IntN(10) == 0
		var ev machine.Event = machine.Returned{Hold: hold(token)}
		if success {
			ev = done(token)
		}
		h.record(func() told {
			_, fate, err := p.Finish(h.w.Context(), entry, token, ev)
			if err != nil {
				h.w.Errorf("finish: %v", err)
			}
			return told{what: "finish", token: token, success: success, result: string(fate)}
		})
		_ = d.Ack() // it may be lost
		p.forget(token)
	}
	if d := p.leftover(); d != nil {
		_, _, _ = p.Deliver(h.w.Context(), d, "late", p)
	}
}

// leftover returns what still lies in the mailbox of a node for the shard.
func (p *process) leftover() (d *streams.Delivery) {
	synctest.Wait()
	for range 100 {
		_, _, err := p.work.Mailbox(p.node.ID(), "q", hand{}).Look(p.w.Context(), 0, 10, func(found *streams.Delivery, _ error) { d = found })
		if err == nil {
			break
		}
		time.Sleep(time.Second)
	}
	return d
}

// place moves the shard to and fro.
func (h *shardHistory) place(p *process, rng *rand.Rand) {
	for h.open() {
		time.Sleep(within(rng, 2*time.Second))
		to := h.places[rng.IntN(2)]
		h.record(func() told {
			moved, err := p.Place(h.w.Context(), part("0"), func(machine.Job) (string, uint64) {
				time.Sleep(within(rng, time.Second)) // meanwhile it may be claimed
				return to.Node, to.Incarnation
			})
			return told{what: "place", token: to.Node, success: moved, forgotten: err != nil}
		})
	}
}

// heal is the reconciler.
func (h *shardHistory) heal(p *process) {
	for h.open() {
		time.Sleep(time.Second)
		h.record(func() told {
			_, err := p.Heal(h.w.Context(), part("0"))
			if err != nil {
				h.w.Errorf("heal: %v", err)
			}
			return told{what: "heal"}
		})
	}
}

// cancel ends the shard alone.
func (h *shardHistory) cancel(p *process, rng *rand.Rand) {
	time.Sleep(within(rng, 30*time.Second))
	h.record(func() told {
		for {
			var moved *machine.MoveError
			entry, err := p.Cancel(h.w.Context(), part("0"), "asked")
			switch {
			case err == nil:
				return told{what: "cancel", result: string(entry.Value.State)}
			case errors.As(err, &moved):
				return told{what: "cancel", result: string(moved.From)}
			}
			time.Sleep(time.Second) // the connection is down
		}
	})
}

// aShard is a shard as the model sees it. A claim of which nobody was told is that of
// a ghost.
type aShard struct {
	node   string
	holder string
	ghost  bool
	cancel bool
	over   machine.State
}

var shardModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{aShard{node: "a"}} },
	Step: func(state, input, _ any) []any {
		var next []any
		for _, s := range state.(aShard).step(input.(told)) {
			next = append(next, s)
		}
		return next
	},
}

// step returns what the shard may be after an operation that came to this. There is
// nothing if it cannot have.
func (s aShard) step(in told) []aShard {
	free := s.over == "" && s.holder == ""
	switch in.what {
	case "take":
		return s.take(in)
	case "place":
		moved := s
		moved.node = in.token
		switch {
		case in.success && (free || s.node == in.token):
			return []aShard{moved}
		case in.success:
			return nil
		case in.forgotten && free:
			return []aShard{s, moved}
		}
		return []aShard{s}
	case "heal":
		if !s.ghost {
			return []aShard{s}
		}
		return []aShard{s, s.released("")}
	case "finish":
		return s.finish(in)
	case "read":
		if string(s.over) == in.result {
			return []aShard{s}
		}
		return nil
	}
	return s.stop(in)
}

func (s aShard) take(in told) []aShard {
	mine := s.over == "" && s.node == in.result
	held := s
	held.holder, held.ghost = in.token, false
	switch {
	case in.success && mine && (s.holder == "" || s.ghost && !s.cancel):
		return []aShard{held}
	case in.success:
		return nil
	case mine && s.holder == "":
		held.ghost = true
		return []aShard{s, held}
	case mine && s.ghost: // claimed again, or ended by that
		held.ghost, held.cancel = true, s.cancel
		return []aShard{s, held, s.released(s.node)}
	}
	return []aShard{s}
}

// released is the shard without its holder.
func (s aShard) released(node string) aShard {
	if s.cancel {
		s.over = machine.Cancelled
	}
	s.holder, s.ghost, s.cancel, s.node = "", false, false, node
	return s
}

func (s aShard) finish(in told) []aShard {
	accepted := in.result == string(store.Accepted) || in.result == string(store.Overtaken)
	if s.holder != in.token {
		if accepted {
			return nil
		}
		return []aShard{s}
	}
	if !accepted {
		return nil
	}
	next := s.released(s.node)
	if in.success {
		next.over = machine.Succeeded
	}
	return []aShard{next}
}

func (s aShard) stop(in told) []aShard {
	switch {
	case s.over == "" && s.holder == "":
		s.over = machine.Cancelled
	case s.over == "":
		s.cancel = true
		if in.result == string(machine.Running) {
			return []aShard{s}
		}
		return nil
	}
	if in.result != string(s.over) {
		return nil
	}
	return []aShard{s}
}

// The next process of a node that is gone, the owner, the reconciler and somebody who
// cancels meet over a part that is lost with its node. It is lost or cancelled, once,
// and never runs.
func TestRaceOfLostPart(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.serve()
				a, one, two := w.process("a"), w.process("o"), w.process("p")
				one.submit(fan("1", a.share()))
				a.crash()
				time.Sleep(longGone)
				again := w.process("a")
				told := w.endings()
				var actors sync.WaitGroup
				for i, p := range []*process{again, one, two} {
					p.unlucky(rand.New(rand.NewPCG(seed, uint64(i))))
				}
				act := func(i uint64, f func(rng *rand.Rand) error) {
					rng := rand.New(rand.NewPCG(seed, 10+i))
					actors.Go(func() {
						for range 100 {
							time.Sleep(within(rng, 2*time.Second))
							if err := f(rng); err == nil && w.get(part("a")).Value.State.Final() {
								return
							}
						}
						t.Error("the part goes on")
					})
				}
				act(0, func(*rand.Rand) error {
					d := again.leftover()
					if d == nil {
						return nil
					}
					_, ok, err := again.Deliver(t.Context(), d, "t1", again)
					if ok {
						t.Error("it runs")
					}
					return err
				})
				act(1, func(*rand.Rand) error { _, err := one.Place(t.Context(), part("a"), none); return err })
				act(2, func(*rand.Rand) error { _, err := two.Heal(t.Context(), part("a")); return err })
				if seed%2 == 0 {
					act(3, func(*rand.Rand) error {
						_, err := two.Cancel(t.Context(), part("a"), "asked")
						if moved := new(machine.MoveError); errors.As(err, &moved) {
							return nil
						}
						return err
					})
				}
				actors.Wait()
				j := w.get(part("a")).Value
				if j.Attempt > 0 || j.State != machine.Lost && (j.State != machine.Cancelled || seed%2 > 0) {
					t.Errorf("it is %s after %d attempts", j.State, j.Attempt)
				}
				for _, e := range told() {
					if e.State != j.State {
						t.Errorf("the owner is told %s, and it is %s", e.State, j.State)
					}
				}
				w.wantMails("a", part("a"), 0)
			})
		})
	}
}
