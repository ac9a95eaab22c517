package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/nodes"
)

// crew is a worker that runs in a test.
type crew struct {
	*engine.Worker
	t     *testing.T
	stop  context.CancelFunc // ends the context of Run
	ended chan struct{}
	err   error // what Run returned, once ended is closed
}

// hire runs a worker of a process, until the test ends at the latest.
func hire(t *testing.T, p *process, opts engine.WorkerOptions, defs ...engine.Definition) *crew {
	t.Helper()
	worker, err := p.Worker(opts, defs...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	c := &crew{Worker: worker, t: t, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.err = worker.Run(ctx)
	}()
	t.Cleanup(func() { stop(); <-c.ended })
	return c
}

// leaves demands that Run has returned nil, or returns it within d.
func (c *crew) leaves(d time.Duration) {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(d):
		c.t.Fatalf("the worker still runs after %v", d)
	}
	if c.err != nil {
		c.t.Errorf("Run returned %v, want nil", c.err)
	}
}

// stays demands that Run goes on for d.
func (c *crew) stays(d time.Duration) {
	c.t.Helper()
	select {
	case <-c.ended:
		c.t.Fatalf("the worker has ended: %v", c.err)
	case <-time.After(d):
	}
}

// gated is a job whose handlers run until the gate opens, or their context ends.
func gated(kind string, l *ledger, gate <-chan struct{}) *engine.Job[any, string] {
	return engine.NewJob(kind, func(ctx context.Context, _ any) (string, error) {
		defer l.enter(ctx)()
		select {
		case <-gate:
			return engine.JobFrom(ctx).Node, nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	})
}

// standing returns how a node stands, as others see it.
func standing(t *testing.T, p *process, id string) nodes.Member {
	t.Helper()
	list, err := p.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.ID == id {
			return m
		}
	}
	return nodes.Member{}
}

// A worker that is drained takes no more at once: what has not started is another
// worker's, what runs ends in peace, and then Run returns.
func TestWorkerDrain(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a, b, l, gate := start(t, srv, "a", nil), start(t, srv, "b", nil), newLedger(), make(chan struct{})
		submit(t, a.Engine, "job", 5)
		old := hire(t, a, engine.WorkerOptions{Slots: 2}, gated("job", l, gate))
		time.Sleep(time.Second)
		if n := l.running(); n != 2 {
			t.Fatalf("%d jobs run, want 2", n)
		}
		drained := make(chan error, 1)
		go func() { drained <- old.Drain(context.WithoutCancel(t.Context())) }()
		time.Sleep(time.Second)
		b.run(engine.WorkerOptions{Slots: 10}, gated("job", l, gate))
		time.Sleep(time.Second)
		if n := l.running(); n != 5 {
			t.Errorf("%d jobs run a second after another worker has come, want all 5", n)
		}
		if m := standing(t, b, "a"); m.State != nodes.Draining {
			t.Errorf("node a is %s, want draining", m.State)
		}
		old.stays(time.Minute)
		close(gate)
		old.leaves(time.Second)
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}
		for i := range 5 {
			ended(t, b.Engine, fmt.Sprintf("job.%d", i+1), "succeeded", 1, 0)
		}
		if m := standing(t, b, "a"); m.State != nodes.Offline {
			t.Errorf("node a is %s, want offline", m.State)
		}
	})
}

// A drain whose context ends ends the handlers, which are handed back.
func TestWorkerDrainInAHurry(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		for name, hurry := range map[string]func(context.Context, *crew, context.CancelFunc){
			"drain":  func(_ context.Context, _ *crew, giveUp context.CancelFunc) { giveUp() },
			"run":    func(_ context.Context, c *crew, _ context.CancelFunc) { c.stop() },
			"second": func(ctx context.Context, c *crew, _ context.CancelFunc) { _ = c.Drain(ctx) },
		} {
			p, l := start(t, srv, name, nil), newLedger()
			c := hire(t, p, engine.WorkerOptions{}, stubborn(name, l))
			submit(t, p.Engine, name, 1)
			ctx, giveUp := context.WithCancel(context.WithoutCancel(t.Context()))
			drained := make(chan error, 1)
			time.Sleep(time.Second)
			go func() { drained <- c.Drain(ctx) }()
			c.stays(time.Minute)

			over, end := context.WithCancel(ctx)
			end()
			hurry(over, c, giveUp)
			c.leaves(time.Second)
			err := <-drained
			if errors.Is(err, context.Canceled) != (name == "drain") {
				t.Errorf("%s: drain returned %v", name, err)
			}
			giveUp()
			info, err := p.Get(t.Context(), name+".1")
			if err != nil || info.State != "pending" || info.Failures != 0 {
				t.Errorf("%s: the job is %s after %d failures, %v, want pending", name, info.State, info.Failures, err)
			}
		}
	})
}

// A worker that was drained before it runs, or while it cannot start, is done.
func TestWorkerDrainEarly(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, l := start(t, srv, "a", nil), newLedger()
		submit(t, p.Engine, "job", 1)
		worker, err := p.Worker(engine.WorkerOptions{}, stubborn("job", l))
		if err != nil {
			t.Fatal(err)
		}
		if err := worker.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if err := worker.Run(t.Context()); err != nil {
			t.Error(err)
		}

		p.link.Down()
		late := hire(t, p, engine.WorkerOptions{}, stubborn("job", l))
		late.stays(time.Minute)
		if err := late.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		late.leaves(time.Second)
		if n := len(l.started("job.1")); n != 0 {
			t.Errorf("the job has started %d times, want 0", n)
		}
	})
}

// While NATS is away a worker drains all the same: handlers end in peace, and
// their outcomes are stored when it is back.
func TestWorkerDrainWhileAway(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		a, b, l, gate := start(t, srv, "a", nil), start(t, srv, "b", nil), newLedger(), make(chan struct{})
		submit(t, a.Engine, "job", 3)
		c := hire(t, a, engine.WorkerOptions{Slots: 2}, gated("job", l, gate))
		time.Sleep(time.Second)
		a.link.Down()
		var draining sync.WaitGroup
		draining.Go(func() { _ = c.Drain(context.WithoutCancel(t.Context())) })
		time.Sleep(time.Second)
		close(gate)
		c.stays(2 * time.Second)
		a.link.Up()
		draining.Wait()
		c.leaves(time.Second)
		for _, id := range []string{"job.1", "job.2"} {
			ended(t, b.Engine, id, "succeeded", 1, 0)
		}
		synctest.Wait()
		if n := len(l.started("job.3")); n != 0 {
			t.Errorf("the third job has started, want it to wait")
		}
	})
}

// One of two workers of an engine drains: the node goes on, and says only what
// the other one takes.
func TestWorkerDrainOfTwo(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, l, gate := start(t, srv, "a", nil), newLedger(), make(chan struct{})
		mail := hire(t, p, engine.WorkerOptions{Slots: 2}, gated("mail", l, gate))
		hire(t, p, engine.WorkerOptions{Slots: 3}, gated("post", l, gate))
		submit(t, p.Engine, "mail", 1)
		time.Sleep(time.Second)
		var draining sync.WaitGroup
		draining.Go(func() {
			if err := mail.Drain(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		if m := standing(t, p, "a"); m.State != nodes.Alive || m.Slots != 3 || fmt.Sprint(m.Kinds, m.Queues) != "[post] [post]" {
			t.Errorf("node a is %s with %d slots, %v, %v, want alive with the other worker's 3", m.State, m.Slots, m.Kinds, m.Queues)
		}
		submit(t, p.Engine, "post", 1)
		time.Sleep(time.Second)
		if n := l.running(); n != 2 {
			t.Errorf("%d jobs run, want 2", n)
		}
		close(gate)
		draining.Wait()
		mail.leaves(time.Second)
		ended(t, p.Engine, "post.1", "succeeded", 1, 0)
		ended(t, p.Engine, "mail.1", "succeeded", 1, 0)
	})
}
