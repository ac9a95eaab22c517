package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/nodes"
)

// diary is when and where handlers started.
type diary struct {
	mu     sync.Mutex
	starts map[string][]entry // by job
}

type entry struct {
	node string
	at   time.Time
}

// brief is a job that takes some milliseconds.
func (d *diary) brief(kind string) *engine.Job[any, any] {
	return engine.NewJob(kind, func(ctx context.Context, _ any) (any, error) {
		j := engine.JobFrom(ctx)
		d.mu.Lock()
		d.starts[j.ID] = append(d.starts[j.ID], entry{j.Node, time.Now()})
		d.mu.Unlock()
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		return nil, nil
	})
}

// count returns how many handlers started on a node after one moment, and before
// another.
func (d *diary) count(node string, after, before time.Time) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, starts := range d.starts {
		for _, s := range starts {
			if s.node == node && s.at.After(after) && s.at.Before(before) {
				n++
			}
		}
	}
	return n
}

// soon returns a context for what has to be done within a minute.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Whenever a node is drained, nothing starts there once that is acknowledged
// (I6), and what it had taken starts elsewhere without waiting for anything. It
// takes again as soon as it is asked to.
func TestDrainAtAnyMoment(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		const rounds, burst = 25, 30
		client, a, b := start(t, srv, "client", nil), start(t, srv, "a", nil), start(t, srv, "b", nil)
		d := &diary{starts: map[string][]entry{}}
		a.run(engine.WorkerOptions{Slots: 4}, d.brief("job"))
		a.run(engine.WorkerOptions{Slots: 3}, d.brief("other"), d.brief("too"))
		b.run(engine.WorkerOptions{Slots: 8}, d.brief("job"), d.brief("other"), d.brief("too"))
		time.Sleep(time.Second)

		kinds := []string{"job", "other", "too"}
		submitted := map[string]time.Time{}
		for round := range rounds {
			began := time.Now()
			var draining sync.WaitGroup
			var acked time.Time
			draining.Go(func() {
				time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
				if err := client.Drain(soon(t), "a"); err != nil {
					t.Error(err)
				}
				acked = time.Now()
			})
			for i := range burst {
				job, err := client.Submit(t.Context(), kinds[rand.IntN(len(kinds))], nil, engine.SubmitOptions{ID: fmt.Sprint(round, "-", i)})
				if err != nil {
					t.Fatal(err)
				}
				submitted[job.ID] = time.Now()
				time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			}
			draining.Wait()
			time.Sleep(time.Second)
			undrained := time.Now()
			if err := client.Undrain(soon(t), "a"); err != nil {
				t.Fatal(err)
			}
			if n := d.count("a", acked, undrained); n > 0 {
				t.Errorf("round %d: %d handlers started on a between the acknowledgement, %v after the start, and the end of the drain", round, n, acked.Sub(began))
			}
		}
		if d.count("a", time.Time{}, time.Now()) == 0 {
			t.Error("nothing has started on a at all")
		}
		for id, at := range submitted {
			info, err := client.Wait(t.Context(), id)
			if err != nil || info.State != "succeeded" || info.Failures != 0 {
				t.Errorf("%s is %s after %d failures, %v", id, info.State, info.Failures, err)
			}
			if starts := d.starts[id]; len(starts) != 1 || starts[0].at.Sub(at) > time.Second {
				t.Errorf("%s, submitted at %v, started at %v, want once within a second", id, at, starts)
			}
		}
		if n := items(t, client.nc); n != 0 {
			t.Errorf("%d items are left", n)
		}
	})
}

// A drain is not acknowledged while a claim is under way. What that claims is
// handed back.
func TestDrainWaitsForClaim(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		l, gate := newLedger(), make(chan struct{})
		client, b := start(t, srv, "client", nil), start(t, srv, "b", nil)
		a := start(t, srv, "a", func(w natstest.Write) natstest.Fault {
			if w.Header.Get("Mr-State") == "running" {
				return natstest.Hold
			}
			return natstest.Pass
		})
		a.run(engine.WorkerOptions{}, gated("job", l, gate))
		submit(t, client.Engine, "job", 1)
		time.Sleep(100 * time.Millisecond)
		drained := make(chan error, 1)
		go func() { drained <- client.Drain(soon(t), "a") }()
		select {
		case err := <-drained:
			t.Fatalf("the drain has an answer while a claim is under way: %v", err)
		case <-time.After(2 * time.Second):
		}
		a.link.Release()
		if err := <-drained; err != nil {
			t.Fatal(err)
		}
		close(gate)
		b.run(engine.WorkerOptions{}, gated("job", l, gate))
		info := ended(t, client.Engine, "job.1", "succeeded", 2, 0)
		if got := fmt.Sprint(l.started("job.1"), outcomes(info)); got != "[b] [returned succeeded]" {
			t.Errorf("got %s, want a start on b alone, after it was handed back", got)
		}
	})
}

// A node that is drained takes nothing, with none of its workers: a pull that
// waits ends, what comes is another's or waits, and everybody can see why. What
// runs there goes on, and so does the owner.
func TestDrainNode(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		client, a, l, gate := start(t, srv, "client", nil), start(t, srv, "a", nil), newLedger(), make(chan struct{})
		hire(t, a, engine.WorkerOptions{}, gated("mail", l, gate))
		hire(t, a, engine.WorkerOptions{}, gated("post", l, gate))
		submit(t, client.Engine, "mail", 1)
		time.Sleep(time.Second)
		began := time.Now()
		if err := client.Drain(soon(t), "a"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("acknowledged after %v, want at once", took)
		}
		if _, err := client.Submit(t.Context(), "mail", nil, engine.SubmitOptions{ID: "due", Delay: time.Second}); err != nil {
			t.Fatal(err)
		}
		submit(t, client.Engine, "post", 1)
		time.Sleep(time.Minute)
		for queue, unacknowledged := range map[string]int{"mail": 1, "post": 0} {
			consumer, err := jetStream(t, client.nc).Consumer(t.Context(), "mr_default_work", queue)
			if err != nil {
				t.Fatal(err)
			}
			info := consumer.CachedInfo()
			if info.NumAckPending != unacknowledged || info.NumWaiting != 0 {
				t.Errorf("queue %s has %d taken and %d pulls, want %d and none", queue, info.NumAckPending, info.NumWaiting, unacknowledged)
			}
		}
		because(t, client.Engine, "mail.due", engine.WhyDraining, "node a is draining", "undrain")
		because(t, client.Engine, "post.1", engine.WhyDraining, "node a is draining")
		because(t, client.Engine, "mail.1", engine.WhyRunning)
		if m := standing(t, client, "a"); m.State != nodes.Draining || !m.Owner || len(m.Queues) != 2 {
			t.Errorf("node a is %s, owner %v, of queues %v, want draining, the owner, of both", m.State, m.Owner, m.Queues)
		}

		idle := make(chan error, 1)
		go func() { idle <- client.AwaitIdle(soon(t), "a") }()
		select {
		case err := <-idle:
			t.Errorf("the node is idle while it runs a job: %v", err)
		case <-time.After(time.Second):
		}
		close(gate)
		if err := <-idle; err != nil {
			t.Error(err)
		}
		ended(t, client.Engine, "mail.1", "succeeded", 1, 0)

		began = time.Now()
		if err := client.Undrain(soon(t), "a"); err != nil {
			t.Fatal(err)
		}
		ended(t, client.Engine, "mail.due", "succeeded", 1, 0)
		ended(t, client.Engine, "post.1", "succeeded", 1, 0)
		if took := time.Since(began); took > time.Second {
			t.Errorf("what waited took %v after the drain, want no waiting", took)
		}
		if err := client.AwaitIdle(soon(t), "a"); err == nil {
			t.Error("a node that takes is idle")
		}
	})
}

// A node that was drained is drained after a new start, under its own ID; one
// whose worker drained is not.
func TestDrainAndRestart(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		client, l, gate := start(t, srv, "client", nil), newLedger(), make(chan struct{})
		close(gate)
		begin := func() *crew {
			return hire(t, start(t, srv, "a", nil), engine.WorkerOptions{}, gated("job", l, gate))
		}
		drainedAt := func(job int, want int) {
			t.Helper()
			if _, err := client.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: strconv.Itoa(job)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if n := len(l.started(fmt.Sprintf("job.%d", job))); n != want {
				t.Errorf("job %d has started %d times, want %d", job, n, want)
			}
		}
		first := begin()
		time.Sleep(time.Second)
		if err := first.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		second := begin()
		drainedAt(1, 1)
		if err := client.Drain(soon(t), "a"); err != nil {
			t.Fatal(err)
		}
		second.stop()
		second.leaves(time.Minute)
		if err := client.Drain(soon(t), "a"); !errors.Is(err, engine.ErrOffline) {
			t.Errorf("drain a node that is gone: %v, want that it is offline", err)
		}
		if err := client.AwaitIdle(soon(t), "a"); err != nil {
			t.Errorf("a node that is gone is not idle: %v", err)
		}
		begin()
		drainedAt(2, 0)
		if err := client.Undrain(soon(t), "a"); err != nil {
			t.Fatal(err)
		}
		drainedAt(3, 1)
		ended(t, client.Engine, "job.2", "succeeded", 1, 0)
	})
}

// A node is drained although it is away from NATS when somebody asks for that: as
// soon as it is back, or never if it does not come back.
func TestDrainWhileAway(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		for away, want := range map[time.Duration]bool{2 * time.Second: true, time.Minute: false} {
			name := "n" + strconv.Itoa(int(away.Seconds()))
			client, a, l, gate := start(t, srv, "client", nil), start(t, srv, name, nil), newLedger(), make(chan struct{})
			a.run(engine.WorkerOptions{}, gated(name, l, gate))
			submit(t, client.Engine, name, 1)
			time.Sleep(time.Second)
			a.link.Down()
			drained := make(chan error, 1)
			go func() { drained <- client.Drain(soon(t), name) }()
			time.Sleep(away)
			a.link.Up()
			if err := <-drained; (err == nil) != want {
				t.Errorf("away for %v: %v, want it drained: %v", away, err, want)
			}
			close(gate)
			if info, err := client.Wait(t.Context(), name+".1"); err != nil || info.State != "succeeded" {
				t.Errorf("away for %v: the job is %s, %v", away, info.State, err)
			}
			synctest.Wait()
			if m := standing(t, client, name); (m.State == nodes.Draining) != want {
				t.Errorf("away for %v: the node is %s", away, m.State)
			}
		}
	})
}
