package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/nodes"
)

// napping is a job of a kind that takes a second.
func napping(kind string, l *ledger) *engine.Job[any, string] {
	return engine.NewJob(kind, func(ctx context.Context, _ any) (string, error) {
		defer l.enter(ctx)()
		time.Sleep(time.Second)
		return "", nil
	})
}

// stubborn is a job that runs until its context ends, and returns its cause.
func stubborn(kind string, l *ledger) *engine.Job[any, string] {
	return engine.NewJob(kind, func(ctx context.Context, _ any) (string, error) {
		defer l.enter(ctx)()
		<-ctx.Done()
		return "", context.Cause(ctx)
	})
}

// Three queues share two slots: no more than that run at once, no more is taken
// than can start and one item per queue, and no queue starves.
func TestSlots(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		const slots, each = 2, 20
		p, l := start(t, srv, "a", nil), newLedger()
		queues := []string{"a", "b", "c"}
		var defs []engine.Definition
		for _, queue := range queues {
			submit(t, p.Engine, queue, each)
			defs = append(defs, napping(queue, l))
		}
		stop := p.run(engine.WorkerOptions{Slots: slots}, defs...)
		for sec := range each * len(queues) / slots {
			time.Sleep(time.Second)
			taken := 0
			for _, queue := range queues {
				info, err := jetStream(t, p.nc).Consumer(t.Context(), "mr_default_work", queue)
				if err != nil {
					t.Fatal(err)
				}
				taken += info.CachedInfo().NumAckPending
			}
			if taken > slots+len(queues) {
				t.Errorf("after %ds %d items are taken, want %d at most", sec, taken, slots+len(queues))
			}
			done := map[string]int{}
			l.mu.Lock()
			for id := range l.starts {
				done[id[:1]]++
			}
			l.mu.Unlock()
			if want := (sec + 1) * slots / len(queues) / 2; min(done["a"], done["b"], done["c"]) < min(want, each) {
				t.Errorf("after %ds jobs have started: %v, want %d of each queue at least", sec, done, want)
			}
		}
		for _, queue := range queues {
			for i := range each {
				ended(t, p.Engine, fmt.Sprintf("%s.%d", queue, i+1), "succeeded", 1, 0)
			}
		}
		if l.most != slots {
			t.Errorf("%d handlers ran at once, want %d", l.most, slots)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if n := items(t, p.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}
	})
}

// A worker that stops hands back what it has: what has not started, and what
// obeys, is another worker's at once.
func TestHandBack(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a, b, l := start(t, srv, "a", nil), start(t, srv, "b", nil), newLedger()
		ids := submit(t, a.Engine, "job", 5)
		stop := a.run(engine.WorkerOptions{Slots: 2}, stubborn("job", l))
		time.Sleep(time.Second)
		if n := l.running(); n != 2 {
			t.Fatalf("%d jobs run, want 2", n)
		}
		b.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (string, error) {
			defer l.enter(ctx)()
			return "", nil
		}))
		time.Sleep(time.Second)
		began := time.Now()
		if err := stop(); err != nil {
			t.Error(err)
		}
		for _, id := range ids {
			info, err := b.Wait(t.Context(), id)
			if err != nil || info.State != "succeeded" || info.Failures != 0 || info.Attempt != len(l.started(id)) {
				t.Errorf("%s is %s after %d attempts with %d failures, %v", id, info.State, info.Attempt, info.Failures, err)
			}
			for _, attempt := range info.Attempts[:info.Attempt-1] {
				if attempt.Outcome != "returned" || attempt.Error.Message != engine.ErrStopping.Error() {
					t.Errorf("%s: attempt %d ended as %s: %v", id, attempt.Number, attempt.Outcome, attempt.Error)
				}
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the jobs took %v, want no waiting", took)
		}
		if n := items(t, b.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}
	})
}

// Whenever a worker stops, in the middle of taking and claiming, what it leaves
// is another worker's at once, and nothing fails.
func TestStopAnytime(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		const each = 30
		for kth := range 12 {
			a, b, l := start(t, srv, "a", nil), start(t, srv, "b", nil), newLedger()
			kind := fmt.Sprintf("job%d", kth)
			ids := submit(t, a.Engine, kind, each)
			ctx, stop := context.WithCancel(t.Context())
			var n atomic.Int64
			worker, err := a.Worker(engine.WorkerOptions{Slots: 4}, engine.NewJob(kind, func(ctx context.Context, _ any) (any, error) {
				defer l.enter(ctx)()
				if n.Add(1) == int64(2*kth+1) {
					stop()
				}
				return nil, nil
			}))
			if err != nil {
				t.Fatal(err)
			}
			if err := worker.Run(ctx); err != nil {
				t.Error(err)
			}
			began := time.Now()
			stop2 := b.run(engine.WorkerOptions{}, engine.NewJob(kind, returns(nil, nil)))
			for _, id := range ids {
				if info, err := b.Wait(t.Context(), id); err != nil || info.State != "succeeded" || info.Failures != 0 {
					t.Errorf("%s is %s with %d failures, %v", id, info.State, info.Failures, err)
				}
			}
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("stopped after %d jobs: the others took %v, want no waiting", 2*kth+1, took)
			}
			if err := stop2(); err != nil {
				t.Error(err)
			}
		}
	})
}

// A claim that is under way when its worker stops is seen through, and the job
// handed back without having started.
func TestStopDuringClaim(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a := start(t, srv, "a", onFirst("$KV.mr_default_jobs.", natstest.LoseAnswer))
		b, l := start(t, srv, "b", nil), newLedger()
		submit(t, b.Engine, "job", 1)
		stop := a.run(engine.WorkerOptions{}, napping("job", l))
		time.Sleep(time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
		b.run(engine.WorkerOptions{}, napping("job", l))
		info := ended(t, b.Engine, "job.1", "succeeded", 2, 0)
		if got := outcomes(info); !slices.Equal(got, []string{"returned", "succeeded"}) || len(l.started("job.1")) != 1 {
			t.Errorf("attempts ended %v, and started on %v; want the first to be returned unstarted", got, l.started("job.1"))
		}
	})
}

// A handler that does not end holds its worker up for the grace, and no longer;
// the job goes to others.
func TestGrace(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a, b, l := start(t, srv, "a", nil), start(t, srv, "b", nil), newLedger()
		serve(t, b.Engine)
		ids := submit(t, a.Engine, "job", 1)
		stop := a.run(engine.WorkerOptions{Grace: 3 * time.Second}, engine.NewJob("job", func(ctx context.Context, _ any) (string, error) {
			defer l.enter(ctx)()
			time.Sleep(time.Minute)
			return "late", nil
		}))
		time.Sleep(time.Second)
		began := time.Now()
		refused(t, stop(), "within 3s")
		if took := time.Since(began).Round(time.Second); took != 3*time.Second {
			t.Errorf("it took %v, want 3s", took)
		}
		b.run(engine.WorkerOptions{}, engine.NewJob("job", func(context.Context, any) (string, error) { return "b", nil }))
		info := ended(t, b.Engine, ids[0], "succeeded", 2, 1)
		time.Sleep(time.Minute)
		if after := ended(t, b.Engine, ids[0], "succeeded", 2, 1); after.Revision != info.Revision || string(after.Result) != `"b"` {
			t.Errorf("the late outcome was taken: %s", after.Result)
		}
	})
}

// However many workers an engine has, it is one node, for as long as one of them
// runs.
func TestTwoWorkersOneNode(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, l := start(t, srv, "a", nil), newLedger()
		first := p.run(engine.WorkerOptions{Slots: 2}, napping("first", l))
		second := p.run(engine.WorkerOptions{Slots: 3}, napping("second", l))
		time.Sleep(time.Second)
		node := func() nodes.Member {
			t.Helper()
			list, err := p.Nodes(t.Context())
			if err != nil || len(list) != 1 {
				t.Fatalf("got %+v, %v, want one node", list, err)
			}
			return list[0]
		}
		n := node()
		if n.ID != "a" || n.Info.Slots != 5 || !slices.Equal(n.Info.Kinds, []string{"first", "second"}) || !slices.Equal(n.Info.Queues, n.Info.Kinds) {
			t.Errorf("got %+v", n)
		}
		if err := first(); err != nil {
			t.Error(err)
		}
		if again := node(); again.Incarnation != n.Incarnation || again.Info.Slots != 3 || !slices.Equal(again.Info.Kinds, []string{"second"}) {
			t.Errorf("after the first has ended: %+v", again)
		}
		submit(t, p.Engine, "second", 1)
		ended(t, p.Engine, "second.1", "succeeded", 1, 0)
		if err := second(); err != nil {
			t.Error(err)
		}
		if gone := node(); gone.State != nodes.Offline {
			t.Errorf("after both have ended: %+v", gone)
		}
	})
}

// A worker whose ID belongs to a live process says so in one line, at its start
// and when it comes back.
func TestNodeTaken(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a, twin, l := start(t, srv, "a", nil), start(t, srv, "a", nil), newLedger()
		first := a.run(engine.WorkerOptions{}, napping("job", l))
		time.Sleep(time.Second)
		second := twin.run(engine.WorkerOptions{}, napping("job", l))
		time.Sleep(a.Lease())
		err := second()
		refused(t, err, "belongs to another process")
		if !errors.Is(err, nodes.ErrTaken) {
			t.Errorf("got %v", err)
		}

		a.link.Down()
		time.Sleep(2 * a.Lease())
		twin.run(engine.WorkerOptions{}, napping("job", l))
		time.Sleep(a.Lease())
		a.link.Up()
		time.Sleep(a.Lease())
		synctest.Wait()
		err = first()
		refused(t, err, "belongs to another process")
		if !errors.Is(err, nodes.ErrTaken) {
			t.Errorf("got %v", err)
		}
	})
}

// A process that serves and works under an ID that it lost to another one says
// so in one line, from all of its parts.
func TestServeTaken(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a, twin := start(t, srv, "a", nil), start(t, srv, "a", nil)
		errs := make(chan error, 2)
		worker, err := a.Worker(engine.WorkerOptions{}, napping("job", newLedger()))
		if err != nil {
			t.Fatal(err)
		}
		for _, run := range []func(context.Context) error{a.Serve, worker.Run} {
			go func() { errs <- run(t.Context()) }()
		}
		time.Sleep(time.Second)
		a.link.Down()
		time.Sleep(2 * a.Lease())
		twin.run(engine.WorkerOptions{}, napping("job", newLedger()))
		time.Sleep(time.Second)
		a.link.Up()
		for range 2 {
			err := receive(t, errs)
			refused(t, err, "belongs to another process")
			if !errors.Is(err, nodes.ErrTaken) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// A second worker may join its process while NATS is away; it works, and others
// hear of it, when NATS is back.
func TestWorkerJoinsWhileAway(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		for name, away := range map[string]time.Duration{"short": time.Second, "long": time.Minute} {
			p, l := start(t, srv, name, nil), newLedger()
			first := p.run(engine.WorkerOptions{}, napping("first", l))
			time.Sleep(time.Second)
			p.link.Down()
			time.Sleep(away)
			second := p.run(engine.WorkerOptions{}, napping(name, l))
			time.Sleep(time.Second)
			p.link.Up()
			time.Sleep(p.Lease())
			submit(t, p.Engine, name, 1)
			ended(t, p.Engine, name+".1", "succeeded", 1, 0)
			list, err := p.Nodes(t.Context())
			i := slices.IndexFunc(list, func(m nodes.Member) bool { return m.ID == name })
			if err != nil || i < 0 || !slices.Contains(list[i].Info.Kinds, name) || list[i].State != nodes.Alive {
				t.Errorf("%s: the nodes are %+v, %v", name, list, err)
			}
			if err := errors.Join(first(), second()); err != nil {
				t.Error(err)
			}
		}
	})
}

// The consumer of a queue that somebody deletes is made again, and jobs run.
func TestQueueConsumerDeleted(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, l := start(t, srv, "a", nil), newLedger()
		p.run(engine.WorkerOptions{Slots: 2}, napping("job", l))
		ids := submit(t, p.Engine, "job", 8)
		for range 3 {
			time.Sleep(1500 * time.Millisecond)
			if err := jetStream(t, p.nc).DeleteConsumer(t.Context(), "mr_default_work", "job"); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range ids {
			ended(t, p.Engine, id, "succeeded", 1, 0)
		}
		time.Sleep(time.Minute)
		if n := items(t, p.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}
		if err := jetStream(t, p.nc).DeleteConsumer(t.Context(), "mr_default_work", "job"); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: "late"}); err != nil {
			t.Fatal(err)
		}
		ended(t, p.Engine, "job.late", "succeeded", 1, 0)
	})
}

// A worker without work is quiet, and so is an owner.
func TestIdle(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		owner := start(t, srv, "owner", nil, everything)
		serve(t, owner.Engine)
		p := start(t, srv, "a", nil, everything)
		p.run(engine.WorkerOptions{}, napping("job", newLedger()))
		time.Sleep(time.Minute)
		before, owned := len(p.link.Writes()), len(owner.link.Writes())
		time.Sleep(time.Minute)
		// A beat every 2 s, a pull every 5 s, the clock every minute, definitions of
		// queues and classes of priority every 30 s.
		if n := len(p.link.Writes()) - before; n > 75 {
			t.Errorf("an idle worker wrote %d times in a minute", n)
		}
		if n := len(owner.link.Writes()) - owned; n > 600 {
			t.Errorf("an idle owner wrote %d times in a minute", n)
		}
	})
}

// What is wrong with a worker is said before it runs.
func TestWorkerRefused(t *testing.T) {
	t.Parallel()
	eng := connect(t, natstest.Start(t, t.TempDir()))
	job := engine.NewJob("job", func(context.Context, any) (any, error) { return nil, nil })
	for want, c := range map[string]struct {
		opts engine.WorkerOptions
		defs []engine.Definition
	}{
		"slots is -1":          {opts: engine.WorkerOptions{Slots: -1}},
		"grace is -1s":         {opts: engine.WorkerOptions{Grace: -time.Second}},
		`queue "a b" contains`: {opts: engine.WorkerOptions{Queues: []string{"a b"}}},
		"two handlers":         {defs: []engine.Definition{job, job}},
		"has no handler":       {defs: []engine.Definition{engine.NewJob[any, any]("other", nil)}},
		`kind "a..b"`:          {defs: []engine.Definition{engine.NewJob("a..b", func(context.Context, any) (any, error) { return nil, nil })}},
	} {
		_, err := eng.Worker(c.opts, c.defs...)
		refused(t, err, want)
	}
}
