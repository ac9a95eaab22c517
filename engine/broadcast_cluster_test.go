package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// nodesOfSeat are the nodes of a seat.
var nodesOfSeat = []string{"a", "b", "c", "d"}

// seat is a fleet on three servers, whose streams change their leaders all the time.
type seat struct {
	*testing.T
	engines []*engine.Engine
	js      jetstream.JetStream
	seen    *ledger

	mu   sync.Mutex
	most map[string]int // parts of a broadcast that ran at once
	now  map[string]int
	well map[string]bool // broadcasts whose parts fail no more
}

// attacker is one of those who use the fleet at the same time.
type attacker struct {
	*testing.T
	*seat
}

// seated starts the nodes, on the servers in turn.
func seated(t *testing.T) *seat {
	t.Helper()
	servers := natstest.StartCluster(t, natstest.ClusterOptions(t))
	s := &seat{T: t, seen: newLedger(), most: map[string]int{}, now: map[string]int{}, well: map[string]bool{}}
	for i, node := range nodesOfSeat {
		eng, err := engine.Connect(t.Context(), natstest.Connect(t, servers[i%len(servers)]), engine.Options{
			Node: node, Replicas: 3, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(eng.Close)
		work(t, eng, engine.WorkerOptions{Slots: 20}, s.job())
		s.engines = append(s.engines, eng)
	}
	for _, eng := range s.engines {
		attacker{t, s}.eventually("all nodes are there", func(ctx context.Context) (bool, error) {
			members, err := eng.Nodes(ctx)
			return len(members) == len(nodesOfSeat), err
		})
	}
	nc := natstest.Connect(t, servers[0])
	var err error
	if s.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var storm sync.WaitGroup
	storm.Go(func() { stepDown(ctx, nc) })
	t.Cleanup(func() { cancel(); storm.Wait() })
	return s
}

// stepDown has the streams change their leaders again and again.
func stepDown(ctx context.Context, nc *nats.Conn) {
	every := time.NewTicker(700 * time.Millisecond)
	defer every.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			stream := []string{"KV_mr_default_jobs", "mr_default_mail", "mr_default_timers"}[n%3]
			ask, cancel := context.WithTimeout(ctx, time.Second)
			_, _ = nc.RequestWithContext(ask, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil) // may have none just now
			cancel()
		}
	}
}

// errand is what a part does.
type errand struct {
	Work  time.Duration
	Fails bool // until the broadcast is well
}

func (s *seat) job() *engine.Job[errand, string] {
	return engine.NewJob("site", func(ctx context.Context, in errand) (string, error) {
		defer s.seen.enter(ctx)()
		j := engine.JobFrom(ctx)
		s.mu.Lock()
		s.now[j.Parent]++
		s.most[j.Parent] = max(s.most[j.Parent], s.now[j.Parent])
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.now[j.Parent]--
		}()
		if j.Part != j.Node {
			s.Errorf("part %s of %s runs on %s", j.Part, j.Parent, j.Node)
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(in.Work):
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if in.Fails && !s.well[j.Parent] {
			return "", errors.New("not yet")
		}
		return j.Part, nil
	})
}

// eventually waits until ok says so. Errors of a cluster that elects leaders pass.
func (s attacker) eventually(what string, ok func(context.Context) (bool, error)) {
	s.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	var last error
	for end := time.After(2 * time.Minute); ; {
		ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
		done, err := ok(ctx)
		cancel()
		if done && err == nil {
			return
		}
		last = err
		select {
		case <-look.C:
		case <-end:
			s.Fatalf("%s: not within two minutes, %v", what, last)
		}
	}
}

// cast broadcasts an errand, as often as it takes.
func (s attacker) cast(eng *engine.Engine, in errand, o engine.BroadcastOptions) string {
	s.Helper()
	var id string
	s.eventually("broadcast "+o.ID, func(ctx context.Context) (bool, error) {
		sent, err := s.job().Broadcast(ctx, eng, in, o)
		if err == nil {
			id = sent.ID
		}
		return err == nil, err
	})
	return id
}

// ends waits for the end of a broadcast.
func (s attacker) ends(eng *engine.Engine, id, state string) {
	s.Helper()
	s.eventually(id+" ends", func(ctx context.Context) (bool, error) {
		info, err := eng.Wait(ctx, id)
		if err == nil && info.State != state {
			s.Errorf("%s is %s, %v, want %s", id, info.State, info.Error, state)
		}
		return err == nil, err
	})
}

// triedAgain looks whether a part has failed once and then succeeded. An attempt whose
// node lost its lease meanwhile is handed back, before its start or after it.
func (s attacker) triedAgain(eng *engine.Engine, part string) {
	s.Helper()
	var info engine.JobInfo
	s.eventually(part+" has succeeded", func(ctx context.Context) (_ bool, err error) {
		info, err = eng.Get(ctx, part)
		return info.State == "succeeded", err
	})
	outcomes := map[string]int{}
	for _, a := range info.Attempts {
		outcomes[a.Outcome]++
	}
	starts, handedBack := len(s.seen.started(part)), outcomes["returned"]
	if outcomes["failed"] != 1 || outcomes["succeeded"] != 1 || info.Attempt != 2+handedBack || starts < 2 || starts > info.Attempt {
		s.Errorf("part %s started %d times in %d attempts, which ended as %v, want one failed and one succeeded", part, starts, info.Attempt, outcomes)
	}
}

// goes deletes a broadcast, whose parts may have to end before, and looks for what it
// leaves.
func (s attacker) goes(eng *engine.Engine, id string, open bool) {
	s.Helper()
	s.eventually(id+" is deleted", func(ctx context.Context) (bool, error) {
		err := eng.Delete(ctx, id)
		if errors.Is(err, engine.ErrNotEnded) && !open {
			s.Errorf("delete %s, whose parts have ended: %v", id, err)
		}
		return err == nil || errors.Is(err, engine.ErrNotFound), nil
	})
	s.eventually(id+" has left nothing", func(ctx context.Context) (bool, error) {
		for _, node := range nodesOfSeat {
			part := engine.PartID(id, node)
			if info, err := eng.Get(ctx, part); !errors.Is(err, engine.ErrNotFound) {
				return false, fmt.Errorf("part %s is %s, %w", node, info.State, err)
			}
			mail := "mr.default.mail." + node + "." + part
			stream, err := s.js.Stream(ctx, "mr_default_mail")
			if err != nil {
				return false, err
			}
			if _, err := stream.GetLastMsgForSubject(ctx, mail); !errors.Is(err, jetstream.ErrMsgNotFound) {
				return false, fmt.Errorf("mail of part %s: %w", node, err)
			}
		}
		return true, nil
	})
}

// attacks are what is done to broadcasts, each at the worst moment.
var attacks = map[string]func(s attacker, rng *rand.Rand, eng, other *engine.Engine, local string){
	"cancel": func(s attacker, rng *rand.Rand, eng, other *engine.Engine, local string) {
		id := s.cast(eng, errand{Work: time.Hour}, engine.BroadcastOptions{ID: local})
		if rng.IntN(2) == 0 {
			<-time.After(time.Duration(rng.IntN(300)) * time.Millisecond)
		}
		s.eventually("cancel", func(ctx context.Context) (bool, error) {
			_, err := other.Cancel(ctx, id)
			return err == nil, err
		})
		s.ends(eng, id, "cancelled")
		s.goes(other, id, true)
	},
	"delete": func(s attacker, _ *rand.Rand, eng, other *engine.Engine, local string) {
		id := s.cast(eng, errand{}, engine.BroadcastOptions{ID: local})
		s.ends(other, id, "succeeded")
		s.goes(other, id, false)
	},
	"any": func(s attacker, rng *rand.Rand, eng, other *engine.Engine, local string) {
		id := s.cast(eng, errand{Work: time.Duration(rng.IntN(50)) * time.Millisecond}, engine.BroadcastOptions{ID: local, Done: engine.DoneAny})
		s.ends(other, id, "succeeded")
		s.goes(eng, id, true)
	},
	"retry": func(s attacker, _ *rand.Rand, eng, other *engine.Engine, local string) {
		id := s.cast(eng, errand{Fails: true}, engine.BroadcastOptions{ID: local, MaxAttempts: 1})
		s.ends(other, id, "failed")
		s.mu.Lock()
		s.well[id] = true
		s.mu.Unlock()
		sent := false
		s.eventually("retry", func(ctx context.Context) (bool, error) {
			_, err := other.Retry(ctx, id)
			if errors.Is(err, engine.ErrNotEnded) && !sent {
				s.Errorf("retry %s, whose parts have ended: %v", id, err)
			}
			sent = true
			return err == nil || errors.Is(err, engine.ErrNotEnded), err
		})
		s.ends(eng, id, "succeeded")
		for _, node := range nodesOfSeat {
			s.triedAgain(other, engine.PartID(id, node))
		}
		s.goes(other, id, false)
	},
	"rolling": func(s attacker, rng *rand.Rand, eng, other *engine.Engine, local string) {
		id := s.cast(eng, errand{Work: time.Duration(rng.IntN(100)) * time.Millisecond}, engine.BroadcastOptions{ID: local, MaxParallel: 1})
		s.ends(other, id, "succeeded")
		s.mu.Lock()
		most := s.most[id]
		s.mu.Unlock()
		if most != 1 {
			s.Errorf("%d parts of %s ran at once, want 1", most, id)
		}
		s.goes(eng, id, false)
	},
}

// On three servers any replica answers some reads, and leaders change. Whatever is
// done to a broadcast right after something else finds its parts all the same: each
// runs on its node only, and nothing is left.
func TestBroadcastOnCluster(t *testing.T) {
	t.Parallel()
	s := seated(t)
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(7, uint64(len(name))))
			for i := range 4 {
				eng, other := s.engines[rng.IntN(4)], s.engines[rng.IntN(4)]
				attack(attacker{t, s}, rng, eng, other, fmt.Sprintf("%s-%d", name, i))
			}
		})
	}
}
