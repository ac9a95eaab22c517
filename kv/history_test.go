package kv_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/nats-io/nats-server/v2/server"
)

// history records operations for porcupine. Its clock counts events, since
// virtual time stands still while things happen.
type history struct {
	clock atomic.Int64
	mu    sync.Mutex
	ops   []porcupine.Operation
}

// record runs an operation and keeps it. One whose outcome is not known never
// returns: it may take effect at any later time.
func (h *history) record(client int, input any, run func() (output any, known bool)) {
	op := porcupine.Operation{ClientId: client, Input: input, Call: h.clock.Add(1)}
	output, known := run()
	op.Output, op.Return = output, h.clock.Add(1)
	if !known {
		op.Return = 1 << 62
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// check fails the test unless the history is one that model allows.
func (h *history) check(t *testing.T, model porcupine.NondeterministicModel, enough int) {
	t.Helper()
	if len(h.ops) < enough {
		t.Errorf("there were %d operations, want at least %d", len(h.ops), enough)
	}
	if got := porcupine.CheckOperationsTimeout(model.ToModel(), h.ops, time.Minute); got != porcupine.Ok {
		t.Errorf("history of %d operations: %v", len(h.ops), got)
	}
}

// A swap replaces the value from by the value to; a swap without a to reads.
// Values are unique, and 0 stands for none.
type swap struct {
	key      string
	from, to int
}

// What a swap may answer, apart from the value that a read returns.
const (
	swapped = -1 - iota
	refused
	unknown
)

var swapModel = porcupine.NondeterministicModel{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range ops {
			key := op.Input.(swap).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() []any { return []any{0} },
	Step: func(state, input, output any) []any {
		s, fits := input.(swap), state == input.(swap).from
		switch {
		case s.to == 0 && state == output,
			output == refused && !fits,
			output == unknown && !fits:
			return []any{state}
		case output == swapped && fits:
			return []any{s.to}
		case output == unknown:
			return []any{state, s.to}
		}
		return nil
	},
}

// Conditional writes behave as such, whatever is lost, and wherever.
func TestSwapsAreLinearizable(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				makeBucket(t, srv, true)
				link := natstest.NewLink(t, srv, unreliable(seed, 8), "$KV.>")
				var h history
				var clients sync.WaitGroup
				var values atomic.Int64
				for c := range 4 {
					b := open[int](t, link.Connect(t))
					dice := rand.New(rand.NewPCG(seed, uint64(c)))
					clients.Go(func() {
						for range 60 {
							swapOnce(t, &h, c, b, fmt.Sprint("k", dice.IntN(8)), int(values.Add(1)))
							time.Sleep(time.Duration(dice.IntN(20)) * time.Millisecond)
							if dice.IntN(10) == 0 {
								link.Release()
							}
						}
					})
				}
				clients.Wait()
				link.Release()
				h.check(t, swapModel, 300)
			})
		})
	}
}

// unreliable fails one write of n, in any way.
func unreliable(seed uint64, n int) func(natstest.Write) natstest.Fault {
	dice := rand.New(rand.NewPCG(seed, 99))
	return func(natstest.Write) natstest.Fault {
		if dice.IntN(n) > 0 {
			return natstest.Pass
		}
		return []natstest.Fault{natstest.LoseAnswer, natstest.CutBefore, natstest.CutAfter, natstest.Hold}[dice.IntN(4)]
	}
}

// swapOnce reads a key and replaces what it read by value.
func swapOnce(t *testing.T, h *history, client int, b *kv.Bucket[int], key string, value int) {
	var cur kv.Entry[int]
	var err error
	h.record(client, swap{key: key}, func() (any, bool) {
		for {
			cur, err = b.Get(t.Context(), key)
			if err == nil || cur.Revision == 0 && errors.Is(err, kv.ErrNotFound) {
				return cur.Value, true
			}
			time.Sleep(10 * time.Millisecond) // the connection is away
		}
	})
	h.record(client, swap{key, cur.Value, value}, func() (any, bool) {
		_, err := b.Update(t.Context(), key, value, cur.Revision)
		switch {
		case err == nil:
			return swapped, true
		case errors.Is(err, kv.ErrConflict):
			return refused, true
		case kv.Unknown(err):
			return unknown, false
		}
		return unknown, true // not sent, which allows less than unknown
	})
}

// A holding is either the taking of a lease or a moment at which its holder
// believes in it.
type holding struct {
	epoch uint64
	taken bool
}

// The state is the last epoch. Epochs grow, and nobody believes in an older
// one once a newer one was taken.
var leaseModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{uint64(0)} },
	Step: func(state, input, _ any) []any {
		h := input.(holding)
		if h.taken && h.epoch > state.(uint64) || !h.taken && h.epoch == state.(uint64) {
			return []any{h.epoch}
		}
		return nil
	},
}

// There is at most one holder at any time, however the connections of the
// candidates fail.
func TestOneHolder(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				makeBucket(t, srv, true)
				var h history
				var candidates sync.WaitGroup
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
				defer cancel()
				for c := range 3 {
					link := natstest.NewLink(t, srv, unreliable(seed+uint64(c), 6), "$KV.>")
					b := open[kv.Held](t, link.Connect(t))
					dice := rand.New(rand.NewPCG(seed, uint64(c)))
					candidates.Go(func() {
						for ctx.Err() == nil {
							candidate(ctx, &h, c, b, link, dice)
						}
					})
				}
				candidates.Wait()
				h.check(t, leaseModel, 200)
				took := 0
				for _, op := range h.ops {
					if op.Input.(holding).taken {
						took++
					}
				}
				if took < 20 {
					t.Errorf("the lease was taken %d times, want more", took)
				}
			})
		})
	}
}

// candidate tries to take the lease and, if it gets it, keeps it until it loses
// its connection for a while, crashes or steps down.
func candidate(ctx context.Context, h *history, client int, b *kv.Bucket[kv.Held], link *natstest.Link, dice *rand.Rand) {
	began := h.clock.Add(1)
	l, err := kv.Take(ctx, b, "owner", fmt.Sprint(client), leaseOptions)
	if err != nil {
		time.Sleep(time.Duration(dice.IntN(1000)) * time.Millisecond)
		return
	}
	h.mu.Lock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: holding{l.Epoch(), true}, Call: began, Return: h.clock.Add(1)})
	h.mu.Unlock()

	life, end := context.WithTimeout(ctx, time.Duration(dice.IntN(30_000))*time.Millisecond)
	defer end()
	var keeping sync.WaitGroup
	partition, stepDown := dice.IntN(3) == 0, dice.IntN(2) == 0
	if partition {
		defer time.AfterFunc(time.Duration(dice.IntN(20_000))*time.Millisecond, link.Down).Stop()
	}
	keeping.Go(func() {
		if l.Keep(life) == nil && stepDown {
			l.Release(ctx)
		}
	})
	for l.Context().Err() == nil {
		op := porcupine.Operation{ClientId: client, Input: holding{epoch: l.Epoch()}, Call: h.clock.Add(1)}
		if l.Valid() {
			op.Return = h.clock.Add(1)
			h.mu.Lock()
			h.ops = append(h.ops, op)
			h.mu.Unlock()
		}
		time.Sleep(time.Duration(dice.IntN(500)) * time.Millisecond)
	}
	keeping.Wait()
	time.Sleep(time.Duration(dice.IntN(5000)) * time.Millisecond)
	link.Up()
	link.Release()
}
