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

// Two nodes, two submitters, an owner who fires timers, somebody who cancels,
// somebody who retries and somebody who deletes fight for one job over connections that break and answers
// that get lost. What they are told is what one job could have told them, one
// after the other.
func TestRace(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				h := &history{w: w}
				w.serve().unlucky(rand.New(rand.NewPCG(seed, 40)))
				var submits, actors sync.WaitGroup
				for i, node := range []string{"a", "b"} {
					rng := rand.New(rand.NewPCG(seed, uint64(i)))
					p := w.process(node)
					p.unlucky(rand.New(rand.NewPCG(seed, uint64(i)+10)))
					submits.Go(func() { h.submit(p, rng); h.submit(p, rng) })
					actors.Go(func() { h.work(p, rand.New(rand.NewPCG(seed, uint64(i)+20))) })
				}
				if seed%3 == 0 { // otherwise nearly every job would be cancelled
					p := w.process("c")
					actors.Go(func() { h.cancel(p, rand.New(rand.NewPCG(seed, 30))) })
				}
				if seed%2 == 0 {
					p, rng := w.process("d"), rand.New(rand.NewPCG(seed, 50))
					p.unlucky(rand.New(rand.NewPCG(seed, 51)))
					actors.Go(func() {
						submits.Wait() // or one of them could create two jobs, one after the other
						h.delete(p, rng)
						h.submit(p, rng)
					})
				}
				if seed%4 < 2 {
					p := w.process("e")
					actors.Go(func() { h.redrive(p, rand.New(rand.NewPCG(seed, 60))) })
				}
				submits.Wait()
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
	for _, filter := range writes {
		for range 100 {
			f := natstest.Pass
			if rng.IntN(10) == 0 {
				f = []natstest.Fault{natstest.LoseAnswer, natstest.CutBefore, natstest.CutAfter}[rng.IntN(3)]
			}
			p.fates = append(p.fates, fate{filter, f})
		}
	}
}

// told is what an operation on the job came to.
type told struct {
	what    string // submit, take, finish, cancel, redrive or delete
	token   string
	success bool // of an attempt that finished
	result  string
	attempt int
	// forgotten is set if the job may have been deleted before this ended: an
	// outcome that was stored, in a write whose answer was lost, is not found
	// again then.
	forgotten bool
}

// history is what happened, in the order of a clock that never stands still.
type history struct {
	w *world

	mu         sync.Mutex
	clock      int64
	operations []porcupine.Operation
	deleting   bool // somebody tries to delete the job
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
	out.forgotten = h.deleting
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

// redrive retries the job, twice, once it has ended.
func (h *history) redrive(p *process, rng *rand.Rand) {
	for left := 2; left > 0; {
		time.Sleep(within(rng, lease))
		h.record(func() told {
			_, err := p.Redrive(h.w.Context(), "q.1")
			switch {
			case err == nil:
				left--
				return told{what: "redrive", result: "done"}
			case errors.Is(err, store.ErrNotFound):
				left--
				return told{what: "redrive", result: "none"}
			}
			return told{what: "redrive", result: "refused"} // it has not ended, or is about to go
		})
	}
}

// delete deletes the job once it has ended.
func (h *history) delete(p *process, rng *rand.Rand) {
	h.mu.Lock()
	h.deleting = true
	h.mu.Unlock()
	for again := false; ; again = true {
		time.Sleep(within(rng, lease))
		ended := false
		h.record(func() told {
			err := p.Delete(h.w.Context(), "q.1")
			for err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrNotEnded) {
				time.Sleep(time.Second) // the connection is down, and who knows what was deleted
				again = true
				err = p.Delete(h.w.Context(), "q.1")
			}
			ended = !errors.Is(err, store.ErrNotEnded)
			switch {
			case !ended:
				return told{what: "delete", result: "refused"}
			case again && err != nil:
				return told{what: "delete", result: "unknown"}
			case err != nil:
				return told{what: "delete", result: "none"}
			}
			return told{what: "delete", result: "gone"}
		})
		if ended {
			return
		}
	}
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
			var err error
			if entry, ok, err = p.Deliver(h.w.Context(), d, token, p); err != nil {
				return told{what: "take", result: "failed"} // the connection is down, and the item comes back
			}
			return told{what: "take", token: token, result: fmt.Sprint(ok), attempt: entry.Value.Attempt}
		})
		if !ok {
			time.Sleep(time.Second)
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
	if h.deleting {
		return // it is another job since
	}
	if j.Attempt != takes || len(j.Attempts) != min(takes, 10) {
		h.w.Errorf("the record tells of %d attempts, and %d ran", j.Attempt, takes)
	}
	if lost := slices.ContainsFunc(j.Attempts, func(a machine.Attempt) bool { return a.Outcome == machine.AttemptLost }); lost {
		h.w.Errorf("an attempt was lost although nobody died: %+v", j.Attempts)
	}
}

// one is the job as the model sees it.
type one struct {
	state    machine.State // empty: not there
	holder   string
	attempt  int
	failures int
	cancel   bool // it is to end
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
		switch {
		case in.result == "true":
			free := s.state == machine.Pending || s.state == machine.Retrying
			return free && in.attempt == s.attempt+1, one{state: machine.Running, holder: in.token, attempt: s.attempt + 1, failures: s.failures}
		case s.state == machine.Pending:
			return in.result == "failed", s
		}
		return true, s // a job that is retrying may not be due
	case "finish":
		held := s.state == machine.Running && s.holder == in.token
		switch {
		case !held:
			return in.result == string(store.Stale) || in.result == string(store.Ended), s
		case in.success:
			s.state = machine.Succeeded
		case s.cancel:
			s.state = machine.Cancelled
		case s.failures+1 == machine.DefaultMaxAttempts:
			s.state = machine.Failed
		default:
			s.state = machine.Retrying
			s.failures++
		}
		accepted := in.result == string(store.Accepted) || in.result == string(store.Overtaken)
		return accepted || in.forgotten, s
	case "redrive":
		switch in.result {
		case "done":
			return s.state.Final(), one{state: machine.Pending, attempt: s.attempt}
		case "none":
			return s.state == "", s
		}
		return s.state != "" && (!s.state.Final() || in.forgotten), s
	case "delete":
		switch in.result {
		case "refused":
			return s.state != "" && !s.state.Final(), s
		case "none":
			return s.state == "", s
		}
		return s.state.Final() || s.state == "" && in.result == "unknown", one{}
	}
	switch s.state { // cancel
	case machine.Pending, machine.Retrying, machine.Cancelled:
		s.state = machine.Cancelled
	case machine.Running:
		s.cancel = true
	case "": // or about to be
		return in.result == "none" || in.result == string(machine.Removing), s
	}
	return in.result == string(s.state), s
}

// within draws a time up to most.
func within(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(most)))
}
