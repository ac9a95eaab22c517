package engine_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// through opens an engine over a link.
func through(t testing.TB, link *natstest.Link) *engine.Engine {
	t.Helper()
	eng, err := engine.Connect(t.Context(), link.Connect(t), engine.Options{Logger: voice(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eng.Close)
	return eng
}

// onFirst returns what happens to writes of which the first one on a subject that
// begins with prefix has a fault.
func onFirst(prefix string, fault natstest.Fault) func(natstest.Write) natstest.Fault {
	first := true
	return func(w natstest.Write) natstest.Fault {
		if first && strings.HasPrefix(w.Subject, prefix) {
			first = false
			return fault
		}
		return natstest.Pass
	}
}

// noop is a job that does nothing.
func noop() *engine.Job[string, string] {
	return engine.NewJob("order.fulfil", func(context.Context, string) (string, error) { return "", nil })
}

const events = 20

// publishEvents publishes so many events, each with a name of its own.
func publishEvents(t testing.TB, nc *nats.Conn, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		publish(t, nc, "orders.created", fmt.Sprintf(`"e%d"`, i))
	}
}

// finished waits until every event has a job that succeeded at the first attempt,
// and checks that there is one of each.
func finished(t testing.TB, eng *engine.Engine, nc *nats.Conn, n int) {
	t.Helper()
	list := until(t, func() ([]engine.JobInfo, bool) {
		list, err := eng.List(t.Context(), engine.ListOptions{State: "succeeded", Limit: 10 * n})
		return list, err == nil && len(list) >= n
	})
	seen := map[string]bool{}
	for _, j := range list {
		seen[string(j.Input)] = true
		if j.Attempt != 1 {
			t.Errorf("job %s had %d attempts", j.ID, j.Attempt)
		}
	}
	if len(seen) != n || jobs(t, nc) != uint64(n) {
		t.Errorf("%d events became %d jobs, want %d", len(seen), jobs(t, nc), n)
	}
}

// Whatever becomes of one write, each event starts one job.
func TestTriggerLostAnswers(t *testing.T) {
	for _, write := range []string{"$KV.mr_default_jobs.", "mr.default.work."} {
		for _, fault := range []natstest.Fault{natstest.CutBefore, natstest.LoseAnswer, natstest.CutAfter, natstest.Hold} {
			t.Run(write+fault.String(), func(t *testing.T) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
					link := natstest.NewLink(t, srv, onFirst(write, fault), "$KV.mr_default_jobs.>", "mr.default.work.>")
					eng, nc := connect(t, srv), natstest.Connect(t, srv)
					apply(t, eng, newOrders)
					publishEvents(t, nc, 0, events)
					serve(t, through(t, link))
					settled(t, eng, "new-orders", events)
					if fault == natstest.Hold {
						link.Release()
					}
					work(t, eng, engine.WorkerOptions{}, noop())
					finished(t, eng, nc, events)
				})
			})
		}
	}
}

// A runner that dies leaves its events to the next one.
func TestTriggerRunnerDies(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter} {
		t.Run(fault.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				eng, nc := connect(t, srv), natstest.Connect(t, srv)
				apply(t, eng, newOrders)
				publishEvents(t, nc, 0, events)
				link := natstest.NewLink(t, srv, onFirst("$KV.mr_default_jobs.", fault), "$KV.mr_default_jobs.>", "mr.default.work.>")
				serve(t, through(t, link))
				until(t, func() (int, bool) { n := len(link.Writes()); return n, n > 0 })
				serve(t, eng)
				settled(t, eng, "new-orders", events)
				work(t, eng, engine.WorkerOptions{}, noop())
				finished(t, eng, nc, events)
			})
		})
	}
}

// A runner that stops hands back what it has, so that nobody has to wait for it.
func TestTriggerHandsBack(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng, nc := connect(t, srv), natstest.Connect(t, srv)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		job := noop()
		trigger := func(mapping func(engine.Message) (string, error)) engine.Definition {
			return engine.On("new-orders", engine.Subject("orders.created"), job, mapping)
		}
		worker, err := eng.Worker(engine.WorkerOptions{}, job, trigger(func(m engine.Message) (string, error) {
			if m.Sequence == 2 {
				cancel()
				time.Sleep(time.Second) // the worker stops, with others behind this one
			}
			return "", nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- worker.Run(ctx) }()
		waitTrigger(t, eng, "new-orders")
		begin := time.Now()
		publishEvents(t, nc, 0, events)
		if err := receive(t, ended); err != nil {
			t.Fatal(err)
		}
		if n := jobs(t, nc); n >= events {
			t.Fatalf("%d jobs, so nothing was left to hand back", n)
		}
		work(t, eng, engine.WorkerOptions{}, job, trigger(nil))
		settled(t, eng, "new-orders", events)
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("took %v, so events waited for their acknowledgement", took)
		}
		if n := jobs(t, nc); n != events {
			t.Errorf("%d jobs, want %d", n, events)
		}
	})
}

// A trigger goes on after an outage, however long, within seconds.
func TestTriggerOutage(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, time.Hour} {
		t.Run(outage.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				link := natstest.NewLink(t, srv, nil, "$KV.mr_default_jobs.>")
				eng, nc := connect(t, srv), natstest.Connect(t, srv)
				apply(t, eng, newOrders)
				serve(t, through(t, link))
				publishEvents(t, nc, 0, 10)
				settled(t, eng, "new-orders", 10)
				link.Down()
				synctest.Wait() // until the server knows: what it sends before comes back after the acknowledgement wait
				publishEvents(t, nc, 10, 20)
				time.Sleep(outage)
				link.Up()
				back := time.Now()
				settled(t, eng, "new-orders", 20)
				if took := time.Since(back); took > 5*time.Second {
					t.Errorf("went on after %v, want 5s at most", took)
				}
				if n := jobs(t, nc); n != 20 {
					t.Errorf("%d jobs, want 20", n)
				}
			})
		})
	}
}

// The server restarts while events are on their way.
func TestTriggerServerRestart(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		const many = 2000
		link := natstest.NewLink(t, srv, nil, "$KV.mr_default_jobs.>")
		eng, nc := through(t, link), link.Connect(t)
		apply(t, eng, newOrders)
		publishEvents(t, nc, 0, many)
		serve(t, eng)
		for range 3 {
			before := jobs(t, nc)
			until(t, func() (uint64, bool) { n := jobs(t, nc); return n, n > before || n == many })
			dir := filepath.Dir(srv.JetStreamConfig().StoreDir)
			natstest.Stop(srv, link)
			srv = natstest.Start(t, dir)
			link.Reroute(srv)
			until(t, func() (int, bool) { return 0, nc.IsConnected() && nc.FlushTimeout(time.Second) == nil })
		}
		settled(t, eng, "new-orders", many)
		if n := jobs(t, nc); n != many {
			t.Errorf("%d jobs, want %d", n, many)
		}
	})
}

// While the storage refuses jobs, events wait; then they become jobs.
func TestTriggerStorageFull(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng, nc := connect(t, srv), natstest.Connect(t, srv)
		apply(t, eng, newOrders)
		limit := func(messages int64) {
			config := streamInfo(t, nc, "KV_mr_default_jobs").Config
			config.MaxMsgs = messages
			if _, err := jetStream(t, nc).UpdateStream(t.Context(), config); err != nil {
				t.Fatal(err)
			}
		}
		limit(5)
		serve(t, connect(t, srv))
		publishEvents(t, nc, 0, events)
		time.Sleep(10 * time.Minute)
		if n := jobs(t, nc); n != 5 {
			t.Errorf("%d jobs, want 5", n)
		}
		limit(-1)
		settled(t, eng, "new-orders", events)
		if n := jobs(t, nc); n != events {
			t.Errorf("%d jobs, want %d", n, events)
		}
		if dead := mustDead(t, eng, "", 0); dead != nil {
			t.Errorf("dead events: %v", dead)
		}
	})
}

// Workers run the stored triggers while nobody serves, and only then.
func TestTriggerStandIn(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng, nc := connect(t, srv), natstest.Connect(t, srv)
		apply(t, eng, newOrders)
		job := noop()
		worker := connect(t, srv)
		work(t, worker, engine.WorkerOptions{}, job)
		work(t, worker, engine.WorkerOptions{}, job)
		work(t, connect(t, srv), engine.WorkerOptions{}, job)
		runners := func(want int) {
			t.Helper()
			until(t, func() (int, bool) {
				consumer, err := jetStream(t, nc).Consumer(t.Context(), captureStream, "mr_default_new-orders")
				if err != nil {
					t.Fatal(err)
				}
				n := consumer.CachedInfo().NumWaiting
				return n, n == want
			})
		}
		runners(2) // one of each engine
		publishEvents(t, nc, 0, 10)
		settled(t, eng, "new-orders", 10)

		stop := serve(t, connect(t, srv))
		runners(1)
		publishEvents(t, nc, 10, 20)
		settled(t, eng, "new-orders", 20)
		stop()
		stopped := time.Now()
		publishEvents(t, nc, 20, 30)
		settled(t, eng, "new-orders", 30)
		if took := time.Since(stopped); took > 15*time.Second {
			t.Errorf("a worker took over after %v", took)
		}
		finished(t, eng, nc, 30)
	})
}

// A change of a stored trigger reaches those that run it.
func TestStoredTriggerChanges(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	serve(t, connect(t, srv))
	apply(t, eng, newOrders)
	publish(t, nc, "orders.created", `{"kind":"before"}`)
	settled(t, eng, "new-orders", 1)
	changed := newOrders
	changed.Input = `{"after": event.data.kind}`
	apply(t, eng, changed)
	last := uint64(1)
	until(t, func() (string, bool) { // the runner hears of it a moment later
		publish(t, nc, "orders.created", `{"kind":"x"}`)
		last++
		settled(t, eng, "new-orders", last)
		list, err := eng.List(t.Context(), engine.ListOptions{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		return string(list[0].Input), string(list[0].Input) == `{"after":"x"}`
	})
}

// Large events come a few at a time, and all of them.
func TestTriggerLargeEvents(t *testing.T) {
	t.Parallel()
	const many = 100
	srv := natstest.Start(t, t.TempDir())
	eng, nc := connect(t, srv), natstest.Connect(t, srv)
	createStream(t, nc, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	apply(t, eng, newOrders)
	data := strings.Repeat("x", 400<<10)
	for i := range many {
		if _, err := jetStream(t, nc).Publish(t.Context(), "orders.created", fmt.Appendf(nil, `"%d%s"`, i, data)); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, connect(t, srv))
	settled(t, eng, "new-orders", many)
	if n := jobs(t, nc); n != many {
		t.Errorf("%d jobs, want %d", n, many)
	}
}
