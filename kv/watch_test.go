package kv_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// watching runs a watch and keeps what it tells.
type watching struct {
	t    testing.TB
	told chan string // one short text for each event
	stop func()      // ends the watch

	mu    sync.Mutex
	known map[string]int
	seen  map[string]uint64 // the last revision of each key
}

func watch(t testing.TB, b *kv.Bucket[int], filter string) *watching {
	w := &watching{t: t, told: make(chan string, 10_000), known: map[string]int{}, seen: map[string]uint64{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Watch(ctx, filter, w.hear) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func (w *watching) hear(e kv.Event[int]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := e.Entry.Key
	switch e.Kind {
	case kv.Put:
		if e.Entry.Revision <= w.seen[key] {
			w.t.Errorf("%s went from revision %d to %d", key, w.seen[key], e.Entry.Revision)
		}
		w.seen[key], w.known[key] = e.Entry.Revision, e.Entry.Value
		w.told <- fmt.Sprintf("put %s=%d", key, e.Entry.Value)
	case kv.Deleted:
		if _, ok := w.known[key]; !ok {
			w.t.Errorf("%s was deleted although nobody knew it", key)
		}
		delete(w.known, key)
		w.told <- "deleted " + key
	case kv.Listed:
		w.told <- "listed"
	}
}

// want fails the test unless these are the next events. Events of one listing
// come in the order of revisions, so the order counts.
func (w *watching) want(events ...string) {
	w.t.Helper()
	for _, want := range events {
		select {
		case got := <-w.told:
			if got != want {
				w.t.Errorf("heard %q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			w.t.Fatalf("heard nothing, want %q", want)
		}
	}
}

// quiet fails the test if there are events that nobody wanted.
func (w *watching) quiet() {
	w.t.Helper()
	select {
	case got := <-w.told:
		w.t.Errorf("heard %q, want nothing", got)
	default:
	}
}

func TestWatch(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		b := open[int](t, natstest.Connect(t, srv))
		empty := watch(t, b, "q.*")
		empty.want("listed")

		a := create(t, b, "q.a", 1)
		create(t, b, "other.a", 1)
		gone := create(t, b, "q.gone", 1)
		empty.want("put q.a=1", "put q.gone=1")
		is(t, "delete", b.Delete(t.Context(), "q.gone", gone), nil)
		create(t, b, "q.short", 5, kv.WriteOptions{TTL: 10 * time.Second})

		w := watch(t, b, "q.*")
		w.want("put q.a=1", "put q.short=5", "listed")
		empty.want("deleted q.gone", "put q.short=5")
		both := func(event string) {
			t.Helper()
			w.want(event)
			empty.want(event)
		}
		a = update(t, b, "q.a", 2, a)
		both("put q.a=2")
		time.Sleep(9 * time.Second)
		w.quiet()
		time.Sleep(2 * time.Second)
		both("deleted q.short")
		is(t, "delete", b.Delete(t.Context(), "q.a", a), nil)
		both("deleted q.a")
		create(t, b, "q.a", 3)
		both("put q.a=3")

		time.Sleep(10 * time.Minute) // pulls end and begin
		create(t, b, "q.late", 4)
		both("put q.late=4")
		w.quiet()
		empty.quiet()
	})
}

// After a reconnect a watch tells what changed, and also which keys are gone
// without a trace.
func TestWatchReconnect(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		link := natstest.NewLink(t, srv, nil, "$KV.>")
		w := watch(t, open[int](t, link.Connect(t)), ">")
		w.want("listed")
		other := open[int](t, natstest.Connect(t, srv))
		create(t, other, "same", 1)
		changed := create(t, other, "changed", 1)
		deleted := create(t, other, "deleted", 1)
		removed := create(t, other, "removed", 1)
		create(t, other, "expires", 1, kv.WriteOptions{TTL: time.Minute})
		w.want("put same=1", "put changed=1", "put deleted=1", "put removed=1", "put expires=1")

		link.Cut()
		time.Sleep(10 * time.Second)
		w.want("listed")
		w.quiet()

		link.Down()
		update(t, other, "changed", 2, changed)
		is(t, "delete", other.Delete(t.Context(), "deleted", deleted), nil)
		is(t, "remove", other.Remove(t.Context(), "removed", removed), nil)
		time.Sleep(3 * time.Hour) // the markers are gone too
		create(t, other, "new", 1)
		link.Up()
		w.want("put changed=2", "put new=1")
		gone := map[string]bool{<-w.told: true, <-w.told: true, <-w.told: true}
		want := map[string]bool{"deleted deleted": true, "deleted removed": true, "deleted expires": true}
		if diff := cmp.Diff(want, gone); diff != "" {
			t.Errorf("gone (-want +got):\n%s", diff)
		}
		w.want("listed")
		w.quiet()
	})
}

// A watch whose consumer is gone, or whose bucket is not there yet, goes on.
func TestWatchWithoutConsumer(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		nc := natstest.Connect(t, srv)
		w := watch(t, open[int](t, nc), ">")
		time.Sleep(5 * time.Second)
		w.quiet()
		makeBucket(t, srv, true)
		w.want("listed")

		js, err := jetstream.New(nc)
		is(t, "jetstream", err, nil)
		stream, err := js.Stream(t.Context(), "KV_test")
		is(t, "stream", err, nil)
		for name := range stream.ConsumerNames(t.Context()).Name() {
			is(t, "delete consumer", stream.DeleteConsumer(t.Context(), name), nil)
		}
		b := open[int](t, nc)
		create(t, b, "a", 1)
		w.want("put a=1", "listed")

		w.stop()
		if info, err := stream.Info(t.Context()); err != nil || info.State.Consumers != 0 {
			t.Errorf("a watch that ended left %d consumers, %v", info.State.Consumers, err)
		}
	})
}

// The listing of a watch ends also if what is to be listed disappears.
func TestWatchListingShrinks(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		b := open[int](t, natstest.Connect(t, srv))
		// More than one pull brings, or the server has sent everything.
		fill(t, b, 1500, func(i int) string { return fmt.Sprint("k", i) })
		list, err := b.ListStale(t.Context(), ">")
		is(t, "list", err, nil)
		block := make(chan struct{})
		listed := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		puts := 0
		go func() {
			ended <- b.Watch(ctx, ">", func(e kv.Event[int]) {
				switch e.Kind {
				case kv.Put:
					puts++
					<-block
				case kv.Listed:
					close(listed)
				}
			})
		}()
		time.Sleep(time.Second)
		for _, e := range list {
			is(t, "remove", b.Remove(t.Context(), e.Key, e.Revision), nil)
		}
		close(block)
		<-listed
		if puts == 0 || puts == len(list) {
			t.Errorf("%d of %d were listed, want some", puts, len(list))
		}
		cancel()
		is(t, "watch", <-ended, nil)
	})
}

func TestWatchEndsWithConnection(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeBucket(t, srv, true)
		nc := natstest.Connect(t, srv)
		b := open[int](t, nc)
		ended := make(chan error)
		go func() { ended <- b.Watch(t.Context(), ">", func(kv.Event[int]) {}) }()
		time.Sleep(time.Second)
		nc.Close()
		is(t, "watch", <-ended, nats.ErrConnectionClosed)
	})
}

// A watch survives restarts of the server, and hears what was written since.
func TestWatchServerRestart(t *testing.T) {
	t.Parallel()
	srv := natstest.StartListening(t, t.TempDir())
	makeBucket(t, srv.Server(), true)
	b := open[int](t, srv.Connect())
	rev := create(t, b, "a", 0)
	w := watch(t, b, ">")
	w.want("put a=0", "listed")
	for i := 1; i <= 3; i++ {
		srv.Stop()
		srv.Start()
		w.want("listed")
		rev = update(t, b, "a", i, rev)
		w.want(fmt.Sprintf("put a=%d", i))
	}
}

// Whatever is written and wherever the connection breaks, in the end a watcher
// knows exactly what is there.
func TestWatchConverges(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				makeBucket(t, srv, true)
				link := natstest.NewLink(t, srv, nil, "$KV.>")
				w := watch(t, open[int](t, link.Connect(t)), ">")
				writer := open[int](t, natstest.Connect(t, srv))
				dice := rand.New(rand.NewPCG(seed, 1))
				model := map[string]kv.Entry[int]{}
				for range 60 {
					churn(t, writer, model, churning{groups: 2, writes: dice.IntN(40), seed: dice.Uint64()})
					for key, e := range model {
						if dice.IntN(4) == 0 {
							is(t, "delete", writer.Delete(t.Context(), key, e.Revision), nil)
							delete(model, key)
						}
					}
					switch dice.IntN(5) {
					case 0:
						link.Cut()
					case 1:
						link.Down()
					case 2:
						link.Up()
					}
					time.Sleep(time.Duration(dice.IntN(500)) * time.Millisecond)
				}
				link.Up()
				time.Sleep(time.Minute)
				want := map[string]int{}
				for key, e := range model {
					want[key] = e.Value
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				if diff := cmp.Diff(want, w.known); diff != "" {
					t.Errorf("known (-there +known):\n%s", diff)
				}
			})
		})
	}
}
