package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
)

// Two nodes, two submitters and somebody who cancels fight for one job over
// connections that break and answers that get lost. What they are told is what
// one job could have told them, one after the other.
func TestRace(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				h := &history{w: w}
				var actors sync.WaitGroup
				for i, node := range []string{"a", "b"} {
					rng := rand.New(rand.NewPCG(seed, uint64(i)))
					p := w.process(node)
					p.unlucky(rand.New(rand.NewPCG(seed, uint64(i)+10)))
					actors.Go(func() { h.submit(p, rng); h.submit(p, rng) })
					actors.Go(func() { h.work(p, rand.New(rand.NewPCG(seed, uint64(i)+20))) })
				}
				if seed%3 == 0 { // otherwise nearly every job would be cancelled
					p := w.process("c")
					actors.Go(func() { h.cancel(p, rand.New(rand.NewPCG(seed, 30))) })
				}
				actors.Wait()
				if !porcupine.CheckOperations(model, h.operations) {
					t.Errorf("no job behaves like this: %+v", h.operations)
				}
				w.wantItems("q.1", 0)
				h.check()
			})
		})
	}
}

// unlucky breaks one of ten writes.
func (p *process) unlucky(rng *rand.Rand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 200 {
		f := natstest.Pass
		if rng.IntN(10) == 0 {
			f = []natstest.Fault{natstest.LoseAnswer, natstest.CutBefore, natstest.CutAfter}[rng.IntN(3)]
		}
		p.fates = append(p.fates, fate{">", f})
	}
}

// told is what an operation on the job came to.
type told struct {
	what    string // submit, take, finish or cancel
	token   string
	success bool // of an attempt that finished
	result  string
	attempt int
}

// history is what happened, in the order of a clock that never stands still.
type history struct {
	w *world

	mu         sync.Mutex
	clock      int64
	operations []porcupine.Operation
}

func (h *history) record(f func() told) {
	h.mu.Lock()
	h.clock++
	call := h.clock
	h.mu.Unlock()
	out := f()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	h.operations = append(h.operations, porcupine.Operation{Call: call, Input: out, Return: h.clock})
}

func (h *history) submit(p *process, rng *rand.Rand) {
	time.Sleep(within(rng, time.Second))
	h.record(func() told {
		_, created, err := p.Submit(h.w.Context(), job("1"))
		for err != nil { // the connection is down: once more, and who knows what the first one did
			time.Sleep(time.Second)
			if _, _, err = p.Submit(h.w.Context(), job("1")); err == nil {
				return told{what: "submit", result: "unknown"}
			}
		}
		return told{what: "submit", result: fmt.Sprint(created)}
	})
}

func (h *history) cancel(p *process, rng *rand.Rand) {
	time.Sleep(within(rng, 2*time.Second))
	h.record(func() told {
		for {
			var moved *machine.MoveError
			entry, err := p.Cancel(h.w.Context(), "q.1", "asked")
			switch {
			case err == nil:
				return told{what: "cancel", result: string(entry.Value.State)}
			case errors.Is(err, store.ErrNotFound):
				return told{what: "cancel", result: "none"}
			case errors.As(err, &moved):
				return told{what: "cancel", result: string(moved.From)}
			}
			time.Sleep(time.Second) // the connection is down
		}
	})
}

// work takes items until none comes any more.
func (h *history) work(p *process, rng *rand.Rand) {
	for n := 0; ; n++ {
		d := p.takeWithin(10 * lease)
		if d == nil {
			return
		}
		token := fmt.Sprintf("%s%d", p.node.ID(), n)
		var entry store.Entry
		var ok bool
		h.record(func() told {
			entry, ok = p.deliver(d, token)
			return told{what: "take", token: token, result: fmt.Sprint(ok), attempt: entry.Value.Attempt}
		})
		if !ok {
			continue
		}
		time.Sleep(within(rng, 2*lease)) // sometimes longer than the acknowledgement wait
		success := rng.IntN(3) == 0
		ev := erred(token)
		if success {
			ev = done(token)
		}
		h.record(func() told {
			if adopted := p.adoptedBy(token); adopted != nil {
				d = adopted
			}
			return told{what: "finish", token: token, success: success, result: string(p.finish(entry, token, ev, d))}
		})
	}
}

// check compares the record with what was told.
func (h *history) check() {
	h.w.Helper()
	j := h.w.get("q.1").Value
	if !j.State.Final() {
		h.w.Errorf("the job is %s and has no item", j.State)
	}
	takes := 0
	for _, op := range h.operations {
		if in := op.Input.(told); in.what == "take" && in.result == "true" {
			takes++
		}
	}
	if j.Attempt != takes || len(j.Attempts) != takes {
		h.w.Errorf("the record tells of %d attempts, and %d ran", j.Attempt, takes)
	}
	if lost := slices.ContainsFunc(j.Attempts, func(a machine.Attempt) bool { return a.Outcome == machine.AttemptLost }); lost {
		h.w.Errorf("an attempt was lost although nobody died: %+v", j.Attempts)
	}
}

// one is the job as the model sees it.
type one struct {
	state   machine.State // empty: not there
	holder  string
	attempt int
	cancel  bool // it is to end
}

// model is one job to which everything happens one after the other.
var model = porcupine.Model{
	Init: func() any { return one{} },
	Step: func(state, input, _ any) (bool, any) {
		return state.(one).step(input.(told))
	},
}

func (s one) step(in told) (bool, any) {
	switch in.what {
	case "submit":
		if s.state == "" {
			return in.result != "false", one{state: machine.Pending}
		}
		return in.result != "true", s
	case "take":
		if s.state == machine.Pending {
			return in.result == "true" && in.attempt == s.attempt+1, one{machine.Running, in.token, s.attempt + 1, false}
		}
		return in.result == "false" && s.state != "", s
	case "finish":
		held := s.state == machine.Running && s.holder == in.token
		switch {
		case !held:
			return in.result == string(store.Stale) || in.result == string(store.Ended), s
		case in.success:
			s.state = machine.Succeeded
		case s.cancel:
			s.state = machine.Cancelled
		case s.attempt == machine.DefaultMaxAttempts: // each attempt failed
			s.state = machine.Failed
		default:
			s.state = machine.Pending // or retrying: it can be taken again
		}
		return in.result == string(store.Accepted) || in.result == string(store.Overtaken), s
	}
	switch s.state { // cancel
	case machine.Pending, machine.Cancelled:
		s.state = machine.Cancelled
	case machine.Running:
		s.cancel = true
	case "":
		return in.result == "none", s
	}
	return in.result == string(s.state), s
}

// within draws a time up to most.
func within(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(most)))
}
