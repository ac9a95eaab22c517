package engine_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// A worker that is cut off for longer than its lease ends its handlers' contexts.
// A handler that obeys is run again, without a failure, under a new incarnation.
func TestLeaseLost(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, l := start(t, srv, "a", nil), newLedger()
		causes := make(chan error, 2)
		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			defer l.enter(ctx)()
			if engine.JobFrom(ctx).Attempt > 1 {
				return "again", nil
			}
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return nil, ctx.Err()
		}))
		submit(t, p.Engine, "job", 1)
		time.Sleep(time.Second)
		began := time.Now()
		p.link.Down()
		if cause := receive(t, causes); !errors.Is(cause, engine.ErrLeaseLost) {
			t.Errorf("the context ended with %v", cause)
		}
		if after := time.Since(began); after > p.Lease() {
			t.Errorf("the context ended %v after the cut, want it within the lease", after)
		}
		if p.Ready() {
			t.Error("a process that is cut off is ready")
		}
		time.Sleep(2 * p.Lease())
		p.link.Up()
		info := ended(t, p.Engine, "job.1", "succeeded", 2, 0)
		if got := outcomes(info); !slices.Equal(got, []string{"returned", "succeeded"}) || info.Attempts[0].Error.Message != engine.ErrLeaseLost.Error() {
			t.Errorf("attempts ended %v: %+v", got, info.Attempts)
		}
		if !p.Ready() {
			t.Error("a process that is back is not ready")
		}
		if n := items(t, p.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}
	})
}

// A handler that ends its work although the lease is lost keeps its outcome: it
// is accepted when NATS is back, and nothing runs twice (I8).
func TestOutcomeKept(t *testing.T) {
	for name, away := range map[string]time.Duration{"for a moment": time.Second, "beyond the lease": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				p, l := start(t, srv, "a", nil), newLedger()
				p.run(engine.WorkerOptions{Slots: 1}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
					defer l.enter(ctx)()
					time.Sleep(10 * time.Second)
					return "ready", nil
				}))
				submit(t, p.Engine, "job", 2)
				time.Sleep(9500 * time.Millisecond)
				p.link.Down()
				time.Sleep(away)
				p.link.Up()
				for _, id := range []string{"job.1", "job.2"} {
					ended(t, p.Engine, id, "succeeded", 1, 0)
					if n := len(l.started(id)); n != 1 {
						t.Errorf("%s was started %d times", id, n)
					}
				}
				if n := items(t, p.nc); n != 0 {
					t.Errorf("%d items are left", n)
				}
			})
		})
	}
}

// A handler that goes on for a lease after it lost its own is given up, by its
// own process first: another one gets the job, and the late outcome is dropped.
func TestAbandoned(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a, b, l := start(t, srv, "a", nil), start(t, srv, "b", nil), newLedger()
		deaf := engine.NewJob("job", func(ctx context.Context, _ any) (string, error) {
			defer l.enter(ctx)()
			time.Sleep(time.Minute)
			return engine.JobFrom(ctx).Node, nil
		})
		a.run(engine.WorkerOptions{Slots: 1}, deaf)
		submit(t, a.Engine, "job", 1)
		time.Sleep(time.Second)
		a.link.Down()
		time.Sleep(a.Lease() + time.Second)
		a.link.Up()
		lost := time.Now()
		b.run(engine.WorkerOptions{}, deaf)
		info := ended(t, b.Engine, "job.1", "succeeded", 2, 1)
		if string(info.Result) != `"b"` || !slices.Equal(l.started("job.1"), []string{"a", "b"}) {
			t.Errorf("the result is of %s, started on %v", info.Result, l.started("job.1"))
		}
		if after := info.Started.Sub(lost); after < a.Lease()-2*time.Second || after > 3*a.Lease() {
			t.Errorf("it was taken over after %v, want that after a lease", after)
		}
		time.Sleep(a.Lease()) // an item that led to a lost attempt comes back once more
		if n := items(t, b.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}
	})
}

// A worker dies without a word. Within twice the lease another one runs its job.
func TestWorkerDies(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a, b, l := start(t, srv, "a", nil), start(t, srv, "b", nil), newLedger()
		serve(t, start(t, srv, "owner", nil).Engine)
		ids := submit(t, a.Engine, "job", 3)
		stop := a.run(engine.WorkerOptions{Grace: time.Second}, stubborn("job", l))
		time.Sleep(2 * a.Lease()) // the owner can judge by now
		b.run(engine.WorkerOptions{}, napping("job", l))
		time.Sleep(time.Second)
		died := time.Now()
		a.link.Down()
		for _, id := range ids {
			info := ended(t, b.Engine, id, "succeeded", 2, 1)
			if after := info.Started.Sub(died); after > 2*a.Lease() {
				t.Errorf("%s was started again %v after the death, want within twice the lease", id, after)
			}
			if got := outcomes(info); !slices.Equal(got, []string{"lost", "succeeded"}) || info.Attempts[0].Error.Code != "node_lost" {
				t.Errorf("attempts of %s ended %v: %+v", id, got, info.Attempts[0].Error)
			}
			if nodes := l.started(id); !slices.Equal(nodes, []string{"a", "b"}) {
				t.Errorf("%s was started on %v", id, nodes)
			}
		}
		time.Sleep(a.Lease()) // the items that led to the lost attempts come back once more
		if n := items(t, b.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}
		_ = stop() // what it says about its outcomes is of no interest
	})
}

// A frozen worker wakes up when another one has its job: its late completion is
// refused, and acknowledges nothing.
func TestFrozenWorker(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		var frozen atomic.Bool
		a := start(t, srv, "a", func(natstest.Write) natstest.Fault {
			if frozen.Load() {
				return natstest.Hold
			}
			return natstest.Pass
		}, everything)
		b, l := start(t, srv, "b", nil), newLedger()
		serve(t, start(t, srv, "owner", nil).Engine)
		submit(t, a.Engine, "job", 1)
		wake := make(chan string)
		a.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (string, error) {
			defer l.enter(ctx)()
			return <-wake, nil // a frozen process does not see its context end
		}))
		time.Sleep(2 * a.Lease())
		frozen.Store(true)
		b.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (string, error) {
			defer l.enter(ctx)()
			time.Sleep(20 * time.Second)
			return "b", nil
		}))
		time.Sleep(2 * a.Lease())
		if nodes := l.started("job.1"); !slices.Equal(nodes, []string{"a", "b"}) {
			t.Fatalf("the job was started on %v, want on a, then b", nodes)
		}
		wake <- "late"
		time.Sleep(time.Second)
		frozen.Store(false)
		a.link.Release()
		time.Sleep(time.Second)
		if n := items(t, b.nc); n != 1 {
			t.Errorf("%d items are there while b runs the job, want 1", n)
		}
		info := ended(t, b.Engine, "job.1", "succeeded", 2, 1)
		if string(info.Result) != `"b"` {
			t.Errorf("the result is %s, want that of b", info.Result)
		}
		time.Sleep(2 * a.Lease())
		if nodes := l.started("job.1"); len(nodes) != 2 || items(t, b.nc) != 0 {
			t.Errorf("started on %v, %d items are left", nodes, items(t, b.nc))
		}
	})
}

// The server restarts while fifty jobs run: nothing starts twice, and every
// outcome arrives, however long it was away.
func TestServerRestart(t *testing.T) {
	for name, away := range map[string]time.Duration{"at once": 0, "after ten seconds": 10 * time.Second} {
		t.Run(name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				const jobs = 50
				a, b, l := start(t, srv, "a", nil), start(t, srv, "b", nil), newLedger()
				serve(t, b.Engine)
				long := engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
					defer l.enter(ctx)()
					time.Sleep(25 * time.Second) // whatever becomes of its context
					return nil, nil
				})
				a.run(engine.WorkerOptions{Slots: jobs}, long)
				ids := submit(t, a.Engine, "job", jobs)
				time.Sleep(3 * a.Lease())
				b.run(engine.WorkerOptions{Slots: jobs}, long)

				dir := filepath.Dir(srv.JetStreamConfig().StoreDir)
				natstest.Stop(srv, a.link, b.link)
				time.Sleep(away)
				srv = natstest.Start(t, dir)
				a.link.Reroute(srv)
				b.link.Reroute(srv)
				for _, id := range ids {
					ended(t, b.Engine, id, "succeeded", 1, 0)
					if nodes := l.started(id); !slices.Equal(nodes, []string{"a"}) {
						t.Errorf("%s was started on %v", id, nodes)
					}
				}
				time.Sleep(2 * a.Lease())
				if n := items(t, b.nc); n != 0 {
					t.Errorf("%d items are left", n)
				}
			})
		})
	}
}
