package streams_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// A pull whose connection was lost ends when it is back, and the next one works.
func TestPullReconnect(t *testing.T) {
	for name, strike := range map[string]func(t *testing.T, link *natstest.Link, srv *server.Server, dir string){
		"cut": func(_ *testing.T, link *natstest.Link, _ *server.Server, _ string) { link.Cut() },
		"away": func(_ *testing.T, link *natstest.Link, _ *server.Server, _ string) {
			link.Down()
			time.Sleep(time.Minute)
			link.Up()
		},
		"restart": func(t *testing.T, link *natstest.Link, srv *server.Server, dir string) {
			natstest.Stop(srv, link)
			link.Reroute(natstest.Start(t, dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
				dir := t.TempDir()
				srv := natstest.Start(t, dir)
				link := natstest.NewLink(t, srv, nil, "$JS.API.CONSUMER.MSG.NEXT.>")
				w := newWorld(t, link.Connect(t))
				p := w.puller()
				pull := w.begin(t.Context(), p, 1, time.Hour)
				strike(t, link, srv, dir)
				w.takes(0, func() { <-pull.done }) // with or without an error
				time.Sleep(time.Second / 2)
				pull = w.begin(t.Context(), p, 1, time.Hour)
				w.offer("a", "b")
				w.takes(0, func() {
					if got := w.end(pull); got != "a" {
						t.Errorf("got %q, want a", got)
					}
				})
				time.Sleep(time.Second)
				if info := w.info(); info.NumAckPending != 1 {
					t.Errorf("%d deliveries are open, want that of a", info.NumAckPending)
				}
			})
		})
	}
}

// A reconnect between two pulls does not end the second one.
func TestPullAfterReconnect(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, link *natstest.Link) {
		p := w.puller()
		for range 20 { // more than fit into a channel of events
			link.Cut()
			time.Sleep(time.Second)
		}
		w.takes(5*time.Second, func() { w.pull(p, 1, 5*time.Second) })
	})
}

// While the server is away a pull fails at once, and the puller can be closed.
func TestPullWhileAway(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, link *natstest.Link) {
		p, idle := w.puller(), w.puller()
		pull := w.begin(t.Context(), p, 1, 5*time.Second)
		link.Down()
		w.takes(7*time.Second, func() { w.end(pull) })
		w.takes(0, func() {
			_, err := p.Pull(t.Context(), 1, time.Hour, nil)
			oneLine(t, err, "streams: ask for items of queue mail")
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
		w.nc.Close()
		_, err := idle.Pull(t.Context(), 1, time.Hour, nil)
		oneLine(t, err, "streams: ")
		if err := idle.Close(t.Context()); err != nil {
			t.Error(err)
		}
		_, err = w.work.Puller("mail", "")
		oneLine(t, err, "streams: listen for items of queue mail")
	})
}

// A pull that was given up takes nothing any more: what comes for it goes to
// whoever asks next, and the next pull of the same puller takes no more for it.
func TestPullGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, _ *natstest.Link) {
		gone := errors.New("gone")
		for _, early := range []bool{true, false} { // whether the item comes before the next pull
			p := w.puller()
			ctx, cancel := context.WithCancelCause(t.Context())
			pull := w.begin(ctx, p, 1, time.Hour)
			cancel(gone)
			if <-pull.done; !errors.Is(pull.err, gone) {
				t.Errorf("got %v, want the cause of its context", pull.err)
			}
			if early {
				w.offer("a", "b")
				time.Sleep(time.Second)
			}
			next := w.begin(t.Context(), p, 1, time.Hour)
			if !early {
				w.offer("a", "b")
			}
			w.takes(0, func() { w.end(next) })
			time.Sleep(time.Second)
			want := 1
			if locals(next.got) == "b" {
				want = 2 // a was handed back too late for this pull, and counts until it is delivered again
			}
			if info := w.info(); info.NumAckPending != want || info.NumWaiting != 0 {
				t.Errorf("%d deliveries and %d pulls are open, want %d and none", info.NumAckPending, info.NumWaiting, want)
			}
			rest := w.pull(p, 9, 0)
			if both := locals(append(rest, next.got...)); len(both) != len("a b") {
				t.Errorf("got %q, want a and b", both)
			}
			for _, d := range append(rest, next.got...) {
				if err := d.Ack(); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(time.Second)
		}
	})
}

// Close hands back what was sent and not taken, so that nobody waits for it.
func TestPullerClose(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, _ *natstest.Link) {
		before := w.nc.NumSubscriptions()
		first, err := w.work.Puller("mail", "")
		if err != nil {
			t.Fatal(err)
		}
		w.numbered(10)
		ctx, cancel := context.WithCancel(t.Context())
		var kept *streams.Delivery
		taken, err := first.Pull(ctx, 10, time.Minute, func(d *streams.Delivery, err error) {
			if kept = d; ctx.Err() == nil {
				cancel()
				time.Sleep(time.Second) // the others arrive
			}
		})
		if taken == 0 || !errors.Is(err, context.Canceled) && taken < 10 {
			t.Fatalf("took %d, %v", taken, err)
		}
		if err := first.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.nc.NumSubscriptions(); got != before {
			t.Errorf("there are %d subscriptions, want %d", got, before)
		}
		second := w.puller()
		time.Sleep(100 * time.Millisecond)
		w.takes(0, func() {
			if got := w.pull(second, 10, 0); len(got) != 10-taken {
				t.Errorf("got %d items after %d were taken, up to %s, want the rest: %s", len(got), taken, kept.Local, locals(got))
			}
		})
	})
}
