package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/nodes"
)

// A worker that takes only what is pinned to its node makes no consumer, asks none, and
// leaves what waits in the queue to others; parts, shards and pinned jobs it runs.
func TestPinnedOnly(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, l := start(t, srv, "p", nil), newLedger()
		start(t, srv, "a", nil).run(engine.WorkerOptions{PinnedOnly: true}, napping("job", l))
		time.Sleep(time.Minute)
		if n := streamInfo(t, p.nc, "mr_default_work").State.Consumers; n != 0 {
			t.Errorf("there are %d consumers", n)
		}
		plain := submit(t, p.Engine, "job", 1)[0]
		part, err := p.Broadcast(t.Context(), "job", nil)
		if err != nil {
			t.Fatal(err)
		}
		on := submitTo(t, p.Engine, "on", engine.Place{Node: "a"})
		some := submitTo(t, p.Engine, "some", engine.Place{Key: "k"})
		shards, err := p.SubmitShards(t.Context(), "job", nil, engine.ShardOptions{Shards: 2})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{part.ID, on, some, shards.ID} {
			if info, err := p.Wait(soon(t), id); err != nil || info.State != "succeeded" {
				t.Errorf("%s: %s, %v", id, info.State, err)
			}
		}
		time.Sleep(time.Minute) // the owner has made a consumer
		because(t, p.Engine, plain, "no_worker", "no node takes from queue job, and node a takes only what is pinned: start a worker with kind job")
		queue, err := p.Queue(t.Context(), "job")
		if err != nil || queue.Workers != 0 || queue.Waiting != 1 || queue.Taken != 0 {
			t.Errorf("got %+v, %v", queue, err)
		}
		if got := l.started(plain); len(got) != 0 {
			t.Errorf("%s started on %v", plain, got)
		}
		start(t, srv, "b", nil).run(alone(1), napping("job", l))
		ended(t, p.Engine, plain, "succeeded", 1, 0)
		if got := l.started(plain); !slices.Equal(got, []string{"b"}) {
			t.Errorf("%s started on %v", plain, got)
		}
	})
}

// A job that may go to any worker once its node is gone does not go to one that takes
// only what is pinned to it.
func TestPinnedOnlyIsNotAny(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, l := start(t, srv, "p", nil), newLedger()
		start(t, srv, "a", nil).run(engine.WorkerOptions{PinnedOnly: true}, napping("job", l))
		time.Sleep(time.Second)
		id := submitTo(t, p.Engine, "1", engine.Place{Node: "nobody", Else: engine.ElseAny})
		time.Sleep(time.Minute)
		because(t, p.Engine, id, "no_worker", "takes only what is pinned")
		start(t, srv, "b", nil).run(alone(1), napping("job", l))
		ended(t, p.Engine, id, "succeeded", 1, 0)
	})
}

// Workers of one node are known for what each of them takes.
func TestPinnedOnlyBesides(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, l := start(t, srv, "a", nil), newLedger()
		known := func(queues, pinned []string) {
			t.Helper()
			time.Sleep(time.Second)
			n, err := p.Node(t.Context(), "a")
			got := nodes.Info{Queues: n.Queues, Pinned: n.Pinned}
			if diff := cmp.Diff(nodes.Info{Queues: queues, Pinned: pinned}, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		}
		p.run(engine.WorkerOptions{PinnedOnly: true}, napping("push", l))
		known(nil, []string{"push"})
		p.run(engine.WorkerOptions{}, napping("mail", l))
		known([]string{"mail"}, []string{"push"})
		stop := p.run(engine.WorkerOptions{Queues: []string{"push"}}, napping("push.other", l))
		known([]string{"mail", "push"}, nil)
		if err := stop(); err != nil {
			t.Error(err)
		}
		known([]string{"mail"}, []string{"push"})
		submit(t, p.Engine, "mail", 1)
		ended(t, p.Engine, "mail.1", "succeeded", 1, 0)
		if _, err := p.Submit(t.Context(), "push", nil, engine.SubmitOptions{ID: "1", Place: engine.Place{Node: "a"}}); err != nil {
			t.Fatal(err)
		}
		ended(t, p.Engine, "push.1", "succeeded", 1, 0)
	})
}
