package timers_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/timers"
)

// history records who was owner, for porcupine. Its clock counts events, since
// virtual time stands still while things happen.
type history struct {
	clock atomic.Int64
	mu    sync.Mutex
	ops   []porcupine.Operation
}

// A holding is either the beginning of a reign or a moment at which the owner
// believes to be it.
type holding struct {
	epoch uint64
	begin bool
}

// The state is the last epoch. Epochs grow, and nobody believes in an older one
// once there is a newer one.
var ownerModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{uint64(0)} },
	Step: func(state, input, _ any) []any {
		h := input.(holding)
		if h.begin && h.epoch > state.(uint64) || !h.begin && h.epoch == state.(uint64) {
			return []any{h.epoch}
		}
		return nil
	},
}

// add records an operation that began at a time of the clock and ends now.
func (h *history) add(client int, input holding, call int64) {
	op := porcupine.Operation{ClientId: client, Input: input, Call: call, Return: h.clock.Add(1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// reigns returns the epochs in the order of their beginnings.
func (h *history) reigns() (epochs []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.ops {
		if in := op.Input.(holding); in.begin {
			epochs = append(epochs, in.epoch)
		}
	}
	return epochs
}

// stander is a process that stands for owner again and again, on a network that
// loses writes, breaks and stalls.
type stander struct {
	history *history
	client  int
	deputy  bool
	link    *natstest.Link
	dice    *rand.Rand // of the process
	noise   *rand.Rand // of the one who leads
}

// live stands, for some time, and then stops or crashes, until ctx ends.
func (s *stander) live(ctx context.Context, t *testing.T) {
	pub := open(t, s.link.Connect(t))
	opts := timers.StandOptions{Node: fmt.Sprint("n", s.client), Lease: lease, Deputy: s.deputy, Logger: quiet}
	for ctx.Err() == nil {
		life, end := context.WithTimeout(ctx, time.Duration(s.dice.IntN(60_000))*time.Millisecond)
		leave := s.link.Down
		if s.dice.IntN(2) == 0 {
			leave = s.link.Freeze
		}
		away := time.AfterFunc(time.Duration(s.dice.IntN(90_000))*time.Millisecond, leave)
		began := s.history.clock.Add(1)
		err := timers.Stand(life, pub, opts, func(ctx context.Context, l *kv.Lease) error {
			s.history.add(s.client, holding{l.Epoch(), true}, began)
			for ctx.Err() == nil {
				call := s.history.clock.Add(1)
				if l.Valid() {
					s.history.add(s.client, holding{epoch: l.Epoch()}, call)
				}
				time.Sleep(time.Duration(s.noise.IntN(500)) * time.Millisecond)
			}
			began = s.history.clock.Add(1)
			return nil
		})
		if err != nil {
			t.Errorf("n%d stood for owner: %v", s.client, err)
		}
		end()
		away.Stop()
		time.Sleep(time.Duration(s.dice.IntN(5000)) * time.Millisecond)
		s.link.Up()
		s.link.Thaw()
		s.link.Release()
	}
}

// chaos lets several processes stand for twenty minutes.
func chaos(t *testing.T, srv *server.Server, seed uint64) (h *history, wait func()) {
	h = new(history)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	var all sync.WaitGroup
	for client := range 4 {
		n := seed<<8 + uint64(client)
		faults := rand.New(rand.NewPCG(n, 1))
		s := &stander{
			history: h, client: client, deputy: client == 3,
			dice: rand.New(rand.NewPCG(n, 2)), noise: rand.New(rand.NewPCG(n, 3)),
			link: network(t, srv, func(natstest.Write) natstest.Fault {
				if faults.IntN(8) > 0 {
					return natstest.Pass
				}
				return []natstest.Fault{natstest.LoseAnswer, natstest.CutBefore, natstest.CutAfter, natstest.Hold}[faults.IntN(4)]
			}),
		}
		all.Go(func() { s.live(ctx, t) })
	}
	return h, func() { all.Wait(); cancel() }
}

// There is at most one owner at any time, however the connections of the
// candidates fail.
func TestOneOwnerAtATime(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				setup(t, srv)
				h, wait := chaos(t, srv, seed)
				wait()
				if got := porcupine.CheckOperationsTimeout(ownerModel.ToModel(), h.ops, time.Minute); got != porcupine.Ok {
					t.Errorf("history of %d operations: %v", len(h.ops), got)
				}
				if n := len(h.reigns()); n < 20 {
					t.Errorf("there were %d reigns, want more", n)
				}
			})
		})
	}
}

// Whoever deletes the key by hand may have two owners for a moment, but no epoch
// has two, and epochs grow.
func TestKeyDeletedAgainAndAgain(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		h, wait := chaos(t, srv, 99)
		done := make(chan struct{})
		go func() { defer close(done); wait() }()
		for running := true; running; {
			select {
			case <-done:
				running = false
			case <-time.After(7 * time.Second):
				if cur, err := leases(pub).Get(t.Context(), "owner"); err == nil {
					_ = leases(pub).Delete(t.Context(), "owner", cur.Revision) // it may have moved
				}
			}
		}
		epochs := h.reigns()
		for i := range epochs[1:] {
			if epochs[i+1] <= epochs[i] {
				t.Errorf("epoch %d follows %d", epochs[i+1], epochs[i])
			}
		}
		if len(epochs) < 100 {
			t.Errorf("there were %d reigns, want more", len(epochs))
		}
	})
}
