package queues_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/queues"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

func (p *process) open(queue string) bool {
	open, _ := p.Gate(queue)
	return open
}

// A book that runs hears of every change at once, also of queues that nobody had
// said anything about, and none of what it says needs a request.
func TestBookHears(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server.Server, editor *process) {
		ctx := t.Context()
		must(editor.Pause(ctx, "before"))(t)
		p := join(t, natstest.Connect(t, srv))
		if p.open("before") || p.open("any") {
			t.Error("a gate is open before the definitions are read")
		}
		p.run(t)
		time.Sleep(2 * time.Second)
		heard := func(what, queue string, open bool, concurrency int) {
			t.Helper()
			synctest.Wait()
			if got := p.Book.Get(queue); p.open(queue) != open || got.Concurrency != concurrency || got.Name != queue {
				t.Errorf("%s: open is %v, limit %d, want %v, %d", what, p.open(queue), got.Concurrency, open, concurrency)
			}
		}
		heard("paused before", "before", false, 0)
		heard("never defined", "a", true, 0)
		_, changed := p.Gate("a")
		must(editor.Pause(ctx, "a"))(t)
		heard("paused", "a", false, 0)
		select {
		case <-changed:
		default:
			t.Error("whoever waits at the gate was not told")
		}
		must(editor.Resume(ctx, "a"))(t)
		heard("resumed", "a", true, 0)
		must(editor.Limit(ctx, "a", queues.Limits{Concurrency: new(3)}))(t)
		must(editor.Pause(ctx, "a"))(t)
		heard("limited and paused", "a", false, 3)
		if err := editor.Delete(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		heard("deleted", "a", true, 0)
		must(editor.Pause(ctx, "a"))(t)
		heard("paused again", "a", false, 0)
	})
}

// A change that nobody tells of is read within 30 s; and one that was told and is
// read again changes nothing.
func TestBookReadsAgain(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server.Server, editor *process) {
		silence(t, srv)
		p := join(t, natstest.Connect(t, srv))
		p.run(t)
		time.Sleep(10 * time.Second)
		must(editor.Pause(t.Context(), "a"))(t)
		time.Sleep(time.Second)
		if !p.open("a") {
			t.Fatal("the change was told, so the test tests nothing")
		}
		time.Sleep(30 * time.Second)
		if p.open("a") {
			t.Error("the change was not read within 30 s")
		}
		if err := editor.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second)
		if !p.open("a") {
			t.Error("the deletion was not read within 30 s")
		}
	})
}

// A change is heard at once although the definitions are read meanwhile, and the
// answer to that is lost.
func TestBookHearsWhileItReads(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server.Server, editor *process) {
		var losing atomic.Bool
		lost := make(chan struct{}, 1)
		link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault {
			if !losing.CompareAndSwap(true, false) {
				return natstest.Pass
			}
			lost <- struct{}{}
			return natstest.LoseAnswer
		}, "$JS.API.STREAM.MSG.GET.KV_mr_default_config")
		p := join(t, link.Connect(t))
		p.run(t)
		time.Sleep(5 * time.Second)
		losing.Store(true)
		<-lost
		must(editor.Pause(t.Context(), "a"))(t)
		synctest.Wait()
		if p.open("a") {
			t.Error("the gate is open although the server has told of the pause")
		}
		time.Sleep(time.Minute)
		if p.open("a") {
			t.Error("the pause was forgotten")
		}
	})
}

// silence keeps the server from telling of changes.
func silence(t *testing.T, srv *server.Server) {
	t.Helper()
	js := must(join(t, natstest.Connect(t, srv)).pub.JetStream())(t)
	info := must(js.Stream(t.Context(), "KV_"+ns.Bucket(streams.Config)))(t)
	config := info.CachedInfo().Config
	config.RePublish = nil
	must(js.UpdateStream(t.Context(), config))(t)
}

// A process that is cut off keeps its gates shut until it has read what changed
// meanwhile, which it does at once when it is back. A key that was deleted so long
// ago that no trace is left of it is forgotten too.
func TestBookAfterOutage(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server.Server, editor *process) {
		ctx := t.Context()
		must(editor.Pause(ctx, "deleted"))(t)
		must(editor.Pause(ctx, "resumed"))(t)
		link := natstest.NewLink(t, srv, nil, configWrites)
		p := join(t, link.Connect(t))
		p.run(t)
		time.Sleep(5 * time.Second)
		if !p.open("paused") || p.open("deleted") || p.open("resumed") {
			t.Fatal("the definitions were not read")
		}
		link.Down()
		time.Sleep(time.Second)
		if p.open("paused") || p.open("any") {
			t.Error("a gate is open while nobody can know")
		}
		if !p.Book.Get("deleted").IsPaused() {
			t.Error("what was known is forgotten")
		}
		must(editor.Pause(ctx, "paused"))(t)
		must(editor.Resume(ctx, "resumed"))(t)
		if err := editor.Delete(ctx, "deleted"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		link.Up()
		time.Sleep(3 * time.Second)
		if p.open("paused") || !p.open("deleted") || !p.open("resumed") || !p.open("any") {
			t.Errorf("paused %v, deleted %v, resumed %v, any %v", p.open("paused"), p.open("deleted"), p.open("resumed"), p.open("any"))
		}
	})
}

// A server that stops and comes back, with a change in between by somebody who was
// quicker, is heard all the same.
func TestBookAfterRestart(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server.Server, editor *process) {
		link, quick := natstest.NewLink(t, srv, nil, configWrites), natstest.NewLink(t, srv, nil, configWrites)
		p := join(t, link.Connect(t))
		other := join(t, quick.Connect(t))
		p.run(t)
		time.Sleep(5 * time.Second)
		dir := srv.StoreDir()
		editor.pub.Close()
		natstest.Stop(srv, link, quick)
		time.Sleep(10 * time.Second)
		again := natstest.Start(t, dir)
		quick.Reroute(again)
		time.Sleep(5 * time.Second)
		must(other.Pause(t.Context(), "a"))(t)
		link.Reroute(again)
		time.Sleep(3 * time.Second)
		if p.open("a") || !p.open("b") {
			t.Errorf("a is open: %v, b is open: %v", p.open("a"), p.open("b"))
		}
		must(other.Resume(t.Context(), "a"))(t)
		synctest.Wait()
		if !p.open("a") {
			t.Error("the book hears nothing any more")
		}
	})
}

// Of several who run one book each may leave: another one goes on.
func TestBookRunByMany(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server.Server, editor *process) {
		p := join(t, natstest.Connect(t, srv))
		first := p.run(t)
		p.run(t)
		time.Sleep(5 * time.Second)
		first()
		time.Sleep(time.Second)
		must(editor.Pause(t.Context(), "a"))(t)
		synctest.Wait()
		if p.open("a") || !p.open("b") {
			t.Errorf("a is open: %v, b is open: %v", p.open("a"), p.open("b"))
		}
	})
}

// A definition that cannot be read leaves in force what was known, until one
// comes that can be.
func TestBookUnreadable(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server.Server, editor *process) {
		ctx := t.Context()
		must(editor.Pause(ctx, "a"))(t)
		p, hand := join(t, natstest.Connect(t, srv)), raw(editor.pub)
		p.run(t)
		time.Sleep(5 * time.Second)
		must(hand.Edit(ctx, "queue.a", func([]byte) ([]byte, error) { return []byte("{"), nil }))(t)
		must(hand.Create(ctx, "queue.b", []byte("{")))(t)
		for range 2 {
			synctest.Wait()
			if p.open("a") || !p.open("b") {
				t.Errorf("a is open: %v, b is open: %v", p.open("a"), p.open("b"))
			}
			if err := p.Load(ctx); err != nil {
				t.Fatal(err)
			}
		}
		must(editor.Apply(ctx, spec.Queue{Name: "a", Paused: new(false)}, false))(t)
		synctest.Wait()
		if !p.open("a") {
			t.Error("the definition that can be read is not in force")
		}
	})
}

// A book that nobody runs is read when somebody asks, and then not again for a
// while.
func TestBookFresh(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server.Server, editor *process) {
		ctx := t.Context()
		p := join(t, natstest.Connect(t, srv))
		keep := func(want time.Duration) {
			t.Helper()
			if err := p.Fresh(ctx); err != nil {
				t.Fatal(err)
			}
			if got := p.Retention("a", machine.Failed); got != want {
				t.Errorf("failed jobs are kept for %v, want %v", got, want)
			}
		}
		keep(14 * 24 * time.Hour)
		must(editor.Limit(ctx, "a", queues.Limits{Failed: new(hour)}))(t)
		keep(14 * 24 * time.Hour)
		time.Sleep(time.Minute)
		keep(time.Hour)
		if got := p.Retention("a", machine.Succeeded); got != 24*time.Hour {
			t.Errorf("succeeded ones are kept for %v", got)
		}
		must(editor.Limit(ctx, "a", queues.Limits{Cancelled: new(2 * hour)}))(t)
		time.Sleep(time.Minute)
		keep(time.Hour)
		for _, state := range []machine.State{machine.Cancelled, machine.Skipped} {
			if got := p.Retention("a", state); got != 2*time.Hour {
				t.Errorf("%s ones are kept for %v", state, got)
			}
		}
	})
}

// Whoever waits until somebody else has read the book does so no longer than he wants.
func TestBookGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server.Server, _ *process) {
		armed := make(chan struct{})
		link := natstest.NewLink(t, srv, natstest.HoldFirst(armed), "$JS.API.STREAM.MSG.GET.KV_mr_default_config")
		p := join(t, link.Connect(t))
		close(armed)
		natstest.GivesUp(t, link, p.Fresh)
	})
}

// Whoever runs a book over a connection that is closed for good is told.
func TestBookConnectionClosed(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	p := join(t, nc)
	done := make(chan error, 1)
	go func() { done <- p.Run(context.Background()) }()
	p.await(t, "reading", func() bool { return p.open("a") })
	nc.Close()
	if err := <-done; err == nil {
		t.Error("the book runs on")
	}
}

// Many books over one server are all right in the end, whatever is lost of what
// they are told, and say nothing that was not so at some time.
func TestBookStorm(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	editor := join(t, natstest.Connect(t, srv))
	var link *natstest.Link
	books := []*process{join(t, natstest.Connect(t, srv))}
	link = natstest.NewLink(t, srv, nil, configWrites)
	books = append(books, join(t, link.Connect(t, nats.ReconnectWait(time.Millisecond))))
	for _, p := range books {
		p.run(t)
	}
	const last = 100
	for i := range last {
		must(editor.Limit(t.Context(), "a", queues.Limits{Concurrency: new(i + 1)}))(t)
		if i%20 == 7 {
			link.Cut()
		}
	}
	for _, p := range books {
		p.await(t, "the last limit", func() bool { return p.Book.Get("a").Concurrency == last })
	}
}
