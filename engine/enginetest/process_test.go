package enginetest_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/enginetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The server's access-time ticker runs for as long as the process does.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// where is a job that takes a minute and returns the node that ran it.
var where = engine.NewJob("where", func(ctx context.Context, _ int) (string, error) {
	select {
	case <-time.After(time.Minute):
		return engine.JobFrom(ctx).Node, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
})

// begun submits a job that takes a minute and returns its ID once it runs.
func begun(env *enginetest.Env) string {
	id := enginetest.Submit(env, where, 0).ID
	env.AwaitState(id, "running")
	return id
}

// succeeded waits for the end of a job, on a node, after attempts with failures.
func succeeded(t *testing.T, env *enginetest.Env, id, node string, attempts, failures int) {
	t.Helper()
	info := env.Await(id)
	if info.State != "succeeded" || string(info.Result) != `"`+node+`"` || info.Attempt != attempts || info.Failures != failures {
		t.Errorf("%s is %s by %s, attempt %d, failures %d; want succeeded by %s, %d, %d",
			id, info.State, info.Result, info.Attempt, info.Failures, node, attempts, failures)
	}
}

// A worker that is stopped hands its job back, and can be started again.
func TestStop(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		worker := env.Worker(where)
		id := begun(env)
		before := worker.Engine()
		worker.Stop()
		if state := env.Get(id).State; state != "pending" && state != "scheduled" {
			t.Errorf("the job of a stopped worker is %s", state)
		}
		worker.Restart()
		if worker.Node() != "worker-1" || worker.Engine() == before || worker.Conn().IsClosed() {
			t.Error("it did not start again")
		}
		succeeded(t, env, id, "worker-1", 2, 0)
	})
}

// A killed worker writes nothing more and says nothing, and its job is pending, a
// failure the poorer. Another life of it can have the job.
func TestKill(t *testing.T) {
	var log bytes.Buffer // of one bubble, read after it
	opts := enginetest.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		worker := env.Worker(where)
		id := begun(env)
		opts.Logger.Info("now")
		worker.Kill()
		writes := len(worker.Writes())
		env.Advance(2 * time.Minute)
		if state := env.Get(id).State; state != "pending" || len(worker.Writes()) != writes {
			t.Errorf("the job of a killed worker is %s; it wrote %v", state, worker.Writes()[writes:])
		}
		worker.Restart()
		succeeded(t, env, id, "worker-1", 2, 1)
		worker.Kill()
		env.Advance(time.Minute)
	}, opts)
	before, after, _ := strings.Cut(log.String(), "msg=now")
	_, after, _ = strings.Cut(after, "node registered") // of its second life
	if want := "process=worker-1"; !strings.Contains(before, want) || strings.Contains(after, "lease not renewed") {
		t.Errorf("the log has nothing of a worker that lives, or too much of one that is dead:\n%s", &log)
	}
}

// A frozen worker loses its job to another one. When it thaws, what it has to
// say is late.
func TestFreeze(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		frozen := env.Worker(where)
		id := begun(env)
		frozen.Freeze()
		env.Worker(where)
		env.Advance(50 * time.Second)
		if info := env.Get(id); *info.Node != "worker-2" {
			t.Errorf("after 50s the job is on %s", *info.Node)
		}
		frozen.Thaw()
		succeeded(t, env, id, "worker-2", 2, 1)
		if n := frozen.Conn().Stats().Reconnects; n > 1 { // it gives a connection up that is silent for ten seconds
			t.Errorf("the connection broke %d times", n)
		}
		if env.Advance(time.Minute); !frozen.Engine().Ready() {
			t.Error("it did not come back")
		}
	})
}

// What breaks for less than a lease disturbs nothing.
func TestCut(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		worker := env.Worker(where)
		id := begun(env)
		for _, p := range []*enginetest.Process{worker, env.Process("serve-1"), env.Client()} {
			p.Cut()
			env.Advance(time.Second)
			p.Down()
			env.Advance(time.Second)
			if p.Conn().IsConnected() || p.Engine().Ready() {
				t.Errorf("%s is connected while it is cut off", p.Node())
			}
			p.Up()
			env.Advance(time.Second)
			if n := p.Conn().Stats().Reconnects; n != 2 {
				t.Errorf("%s connected again %d times, want 2", p.Node(), n)
			}
		}
		succeeded(t, env, id, "worker-1", 1, 0)
	})
}

// When the owner dies, the other one that serves takes its place.
func TestServe(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		if second := env.Serve(); second.Node() != "serve-2" {
			t.Errorf("the second one that serves is %s", second.Node())
		}
		env.Worker(where)
		env.Worker(where)
		id := begun(env)
		env.Process("serve-1").Kill()
		env.Process(*env.Get(id).Node).Kill()
		if info := env.Await(id); info.State != "succeeded" || info.Attempt != 2 {
			t.Errorf("it is %s, attempt %d", info.State, info.Attempt)
		}
	})
}

// A process does whatever a program does with its engine, as a node of its own
// choice, and has a context that ends when it is stopped.
func TestStart(t *testing.T) {
	opts := enginetest.Options{Namespace: "shop", Lease: 20 * time.Second, NoServe: true}
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		got := make(chan string, 1)
		billing := env.Start("billing", func(ctx context.Context, eng *engine.Engine) error {
			worker, err := eng.Worker(engine.WorkerOptions{}, noop)
			if err != nil {
				return err
			}
			h, err := noop.Submit(ctx, eng, 1)
			if err != nil {
				return err
			}
			got <- h.ID
			return worker.Run(ctx)
		})
		info := env.Await(<-got)
		if *info.Node != "billing" || env.Process("billing") != billing {
			t.Errorf("it ran on %s", *info.Node)
		}
		if lease := env.Engine().Lease(); lease != opts.Lease {
			t.Errorf("the lease is %v", lease)
		}
		nodes, err := env.Engine().Nodes(t.Context())
		if err != nil || len(nodes) != 1 {
			t.Errorf("%v, nodes: %+v, want billing alone", err, nodes)
		}
		billing.Stop()
	}, opts)
}

// The clock stands still while anybody works, and moves as it is told.
func TestAdvance(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		start := time.Now()
		env.Worker(noop)
		id := enginetest.Submit(env, noop, 1).ID
		env.Advance(0)
		if state := env.Get(id).State; state != "succeeded" || !time.Now().Equal(start) {
			t.Errorf("after %v the job is %s", time.Since(start), state)
		}
		env.Advance(3 * time.Minute)
		if d := time.Since(start); d != 3*time.Minute {
			t.Errorf("3 minutes take %v", d)
		}
	})
}

// A handler that ignores its context may end after the test: it gets the time.
func TestHandlerOutlivesTest(t *testing.T) {
	ended := false
	enginetest.Run(t, func(_ *testing.T, env *enginetest.Env) {
		late := engine.NewJob("late", func(context.Context, int) (int, error) {
			<-time.After(30 * time.Minute)
			ended = true
			return 0, nil
		})
		env.Worker(late)
		env.AwaitState(enginetest.Submit(env, late, 1).ID, "running")
	})
	if !ended {
		t.Error("the handler did not end")
	}
}

// A subscriber of the test's own gets what a worker's process publishes.
func TestConn(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		sub, err := env.Conn().SubscribeSync("orders.>")
		if err != nil {
			t.Fatal(err)
		}
		if err := env.Conn().Flush(); err != nil {
			t.Fatal(err)
		}
		if err := env.Worker(noop).Conn().Publish("orders.7", nil); err != nil {
			t.Fatal(err)
		}
		if m, err := sub.NextMsg(time.Second); err != nil || m.Subject != "orders.7" {
			t.Errorf("got %v, %v", m, err)
		}
	})
}
