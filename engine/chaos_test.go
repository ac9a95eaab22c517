package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// Two thousand jobs go through three workers whose connections break again and
// again, before and after writes and in between, and whose answers get lost.
// Every job succeeds once; no handler runs without an attempt in the record, and
// no attempt without a handler; nothing that was not the handler's counts as a
// failure.
func TestChaos(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		const many = 2000
		l := newLedger()
		p := chaos(t, srv, many, time.Second, flaky(l))
		for i := range many {
			id := fmt.Sprintf("job.%d", i+1)
			want := []string{"succeeded"}
			if i%10 == 0 {
				want = []string{"failed", "succeeded"}
			}
			info := ended(t, p.Engine, id, "succeeded", len(want), len(want)-1)
			if got := outcomes(info); !slices.Equal(got, want) || len(l.started(id)) != len(want) {
				t.Errorf("attempts of %s ended %v, started on %v; want %v", id, got, l.started(id), want)
			}
		}
		drained(t, p)
	})
}

// The same with outages that are longer than the lease, so that jobs are taken
// over: each is accepted once, and every start of a handler is on record.
func TestChaosBeyondLease(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		const many = 400
		l := newLedger()
		p := chaos(t, srv, many, 15*time.Second, flaky(l))
		for i := range many {
			id := fmt.Sprintf("job.%d", i+1)
			info, err := p.Wait(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			starts, bad := l.started(id), info.State != "succeeded" || string(info.Result) != strconv.Itoa(i)
			for k, a := range info.Attempts {
				bad = bad || a.Number != k+1 || (a.Outcome == "succeeded") != (k == len(info.Attempts)-1)
				if at := slices.Index(starts, a.Node); at >= 0 {
					starts = slices.Delete(starts, at, at+1)
				}
			}
			if bad || len(starts) != 0 {
				t.Errorf("%s is %s, result %s, attempts %+v; not on record: %v", id, info.State, info.Result, info.Attempts, starts)
			}
		}
		drained(t, p)
	})
}

// flaky is a job that takes its time, and fails the first time in one of ten
// cases.
func flaky(l *ledger) *engine.Job[int, int] {
	return engine.NewJob("job", func(ctx context.Context, in int) (int, error) {
		defer l.enter(ctx)()
		time.Sleep(time.Duration(in%100) * time.Millisecond)
		if in%10 == 0 && engine.JobFrom(ctx).Attempt == 1 {
			return 0, errors.New("boom")
		}
		return in, nil
	}, engine.JobOptions{MaxAttempts: 10})
}

// chaos submits many jobs and runs three workers that are cut off again and
// again, each time for as long as that at most. It returns a process that is not.
func chaos(t testing.TB, srv *server.Server, many int, away time.Duration, job *engine.Job[int, int]) *process {
	t.Helper()
	const seed = 1
	p := start(t, srv, "submitter", nil)
	serve(t, p.Engine)
	if _, err := job.SubmitMany(t.Context(), p.Engine, numbered(many)); err != nil {
		t.Fatal(err)
	}
	for i, node := range []string{"a", "b", "c"} {
		p := start(t, srv, node, unlucky(seed, uint64(i)))
		p.run(engine.WorkerOptions{Slots: 20}, job)
		shake(t, p.link, away, rand.New(rand.NewPCG(seed, uint64(i)+10)))
	}
	return p
}

// drained fails the test unless every item goes, in the end.
func drained(t testing.TB, p *process) {
	t.Helper()
	time.Sleep(6 * p.Lease())
	if n := items(t, p.nc); n != 0 {
		t.Errorf("%d items are left", n)
	}
}

// unlucky returns what happens to the writes of a process: one of two hundred
// meets a fault.
func unlucky(seed, process uint64) func(natstest.Write) natstest.Fault {
	rng := rand.New(rand.NewPCG(seed, process))
	return func(natstest.Write) natstest.Fault {
		switch rng.IntN(600) {
		case 0:
			return natstest.LoseAnswer
		case 1:
			return natstest.CutBefore
		case 2:
			return natstest.CutAfter
		}
		return natstest.Pass
	}
}

// shake breaks the connections of a link every now and then, half of the time
// for a while, until the test ends.
func shake(t testing.TB, link *natstest.Link, away time.Duration, rng *rand.Rand) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				link.Up()
				return
			case <-time.After(time.Duration(rng.IntN(int(2 * time.Second)))):
			}
			if rng.IntN(2) == 0 {
				link.Cut()
				continue
			}
			link.Down()
			time.Sleep(time.Duration(rng.IntN(int(away))))
			link.Up()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}
