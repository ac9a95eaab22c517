package streams_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// inBubble runs f in a bubble, with a work queue over a link.
func inBubble(t *testing.T, f func(t *testing.T, w *world, link *natstest.Link)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		link := natstest.NewLink(t, srv, nil, "$JS.API.CONSUMER.MSG.NEXT.>")
		f(t, newWorld(t, link.Connect(t)), link)
	})
}

// numbered offers n items of the queue mail, and waits until the consumer knows.
func (w *world) numbered(n int) {
	w.Helper()
	for i := range n {
		w.offer(fmt.Sprint(i))
	}
	time.Sleep(time.Second)
}

// takes fails the test unless f takes so long, give or take half a second.
func (w *world) takes(want time.Duration, f func()) {
	w.Helper()
	start := time.Now()
	f()
	if off := (time.Since(start) - want).Abs(); off > time.Second/2 {
		w.Errorf("it took %v, want %v", time.Since(start), want)
	}
}

// waiting is a pull that has begun.
type waiting struct {
	taken int
	err   error
	got   []*streams.Delivery
	done  chan struct{}
}

// begin begins a pull and returns when it waits.
func (w *world) begin(ctx context.Context, p *streams.Puller, n int, wait time.Duration) *waiting {
	pull := &waiting{done: make(chan struct{})}
	go func() {
		defer close(pull.done)
		pull.taken, pull.err = p.Pull(ctx, n, wait, func(d *streams.Delivery, err error) { pull.got = append(pull.got, d) })
	}()
	synctest.Wait()
	return pull
}

// end waits for the end of a pull, which must not fail, and returns what it took.
func (w *world) end(pull *waiting) string {
	w.Helper()
	<-pull.done
	if pull.err != nil {
		w.Errorf("pull: %v", pull.err)
	}
	return locals(pull.got)
}

// A pull takes what it asks for, and never more leaves the server.
func TestPullExactly(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, link *natstest.Link) {
		p := w.puller()
		w.numbered(10)
		open := 0
		for _, test := range []struct {
			n    int
			wait time.Duration
			want string
		}{
			{3, 0, "0 1 2"},
			{0, time.Minute, ""},
			{-1, 0, ""},
			{1, time.Minute, "3"},
			{4, time.Minute, "4 5 6 7"},
			{100, 0, "8 9"},
			{5, 0, ""},
		} {
			w.takes(0, func() {
				if got := locals(w.pull(p, test.n, test.wait)); got != test.want {
					t.Errorf("pull of %d: got %q, want %q", test.n, got, test.want)
				}
			})
			open += len(strings.Fields(test.want))
			if info := w.info(); info.NumAckPending != open || info.NumWaiting != 0 {
				t.Errorf("after %d: %d deliveries are open and %d pulls, want %d and none", test.n, info.NumAckPending, info.NumWaiting, open)
			}
		}
		if got := len(link.Writes()); got != 5 {
			t.Errorf("the pulls sent %d requests, want one each that is for something", got)
		}
	})
}

// More than the maximum are not asked for.
func TestPullTooMany(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, _ *natstest.Link) {
		w.numbered(streams.MaxPull + 10)
		p := w.puller()
		w.takes(0, func() {
			if got := len(w.pull(p, streams.MaxPull+10, time.Minute)); got != streams.MaxPull {
				t.Errorf("took %d, want %d", got, streams.MaxPull)
			}
		})
		if got := len(w.pull(p, streams.MaxPull, 0)); got != 10 {
			t.Errorf("then took %d, want 10", got)
		}
	})
}

// An item says how many more the queue holds.
func TestPullWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, _ *natstest.Link) {
		w.numbered(5)
		for i, d := range w.pull(w.puller(), 5, 0) {
			if want := uint64(4 - i); d.Waiting != want {
				t.Errorf("item %s: %d wait, want %d", d.Local, d.Waiting, want)
			}
		}
	})
}

// A pull waits at an empty queue, takes the first item at once, and ends when
// its time is over. One that does not wait ends at once.
func TestPullEmpty(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, _ *natstest.Link) {
		p := w.puller()
		w.takes(5*time.Second, func() { w.pull(p, 1, 5*time.Second) })
		w.takes(0, func() { w.pull(p, 100, 0) })
		w.takes(0, func() { w.pull(p, 100, -time.Second) })
		pull := w.begin(t.Context(), p, 1, time.Hour)
		time.Sleep(time.Minute)
		w.takes(0, func() {
			w.offer("a")
			if got := w.end(pull); got != "a" {
				t.Errorf("got %q, want a", got)
			}
		})
		if err := pull.got[0].Ack(); err != nil {
			t.Fatal(err)
		}
		pull = w.begin(t.Context(), p, 2, 5*time.Second)
		w.offer("b")
		w.takes(5*time.Second, func() {
			if got := w.end(pull); got != "b" {
				t.Errorf("got %q, want b, of two", got)
			}
		})
	})
}

// What the server says about an earlier pull does not end this one.
func TestPullForeignStatus(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, link *natstest.Link) {
		p := w.puller()
		w.pull(p, 1, 0)
		pull := w.begin(t.Context(), p, 1, time.Minute)
		writes := link.Writes()
		for _, status := range []string{"404", "408", "409", "503"} {
			msg := &nats.Msg{Subject: writes[0].Reply, Header: nats.Header{"Status": {status}, "Description": {"Consumer Deleted"}}}
			if err := w.nc.PublishMsg(msg); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		w.offer("a")
		if got := w.end(pull); got != "a" {
			t.Errorf("got %q, want a", got)
		}
	})
}

// What the server says about this pull ends it, by error or without.
func TestPullStatus(t *testing.T) {
	for _, test := range []struct{ status, description, want string }{
		{"408", "Request Timeout", ""},
		{"408", "Requests Pending", ""},
		{"409", "Leadership Change", ""},
		{"409", "Consumer Deleted", streams.ErrNoConsumer.Error()},
		{"503", "", streams.ErrNoConsumer.Error()},
		{"409", "Exceeded MaxWaiting", "streams: pull from queue mail: 409 Exceeded MaxWaiting"},
		{"400", "Bad Request", "streams: pull from queue mail: 400 Bad Request"},
	} {
		t.Run(strings.TrimSpace(test.status+" "+test.description), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world, link *natstest.Link) {
				pull := w.begin(t.Context(), w.puller(), 1, time.Minute)
				msg := &nats.Msg{Subject: link.Writes()[0].Reply, Header: nats.Header{"Status": {test.status}, "Description": {test.description}}}
				if err := w.nc.PublishMsg(msg); err != nil {
					t.Fatal(err)
				}
				w.takes(0, func() { <-pull.done })
				if got := fmt.Sprint(pull.err); got != test.want && (pull.err != nil || test.want != "") {
					t.Errorf("got %q, want %q", got, test.want)
				}
			})
		})
	}
}

// A consumer that is missing, or deleted while a pull waits, is told at once.
func TestPullNoConsumer(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, _ *natstest.Link) {
		p := w.puller()
		pull := w.begin(t.Context(), p, 1, time.Hour)
		js := open(t, w.nc)
		if err := js.DeleteConsumer(t.Context(), ns.WorkStream(), "mail"); err != nil {
			t.Fatal(err)
		}
		w.takes(0, func() { <-pull.done })
		if !errors.Is(pull.err, streams.ErrNoConsumer) {
			t.Errorf("deleted: got %v, want ErrNoConsumer", pull.err)
		}
		for _, wait := range []time.Duration{0, time.Hour} {
			w.takes(0, func() {
				if _, err := p.Pull(t.Context(), 1, wait, nil); !errors.Is(err, streams.ErrNoConsumer) {
					t.Errorf("missing: got %v, want ErrNoConsumer", err)
				}
			})
		}
		w.serve("mail")
		w.offer("a")
		if got := locals(w.pull(p, 1, time.Minute)); got != "a" {
			t.Errorf("served again: got %q, want a", got)
		}
		if err := js.DeleteStream(t.Context(), ns.WorkStream()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Pull(t.Context(), 1, time.Hour, nil); !errors.Is(err, streams.ErrNoConsumer) {
			t.Errorf("without the stream: got %v, want ErrNoConsumer", err)
		}
	})
}

// A puller that waits at an empty queue sends one request for each pull and
// hears one answer.
func TestPullerIdle(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, _ *natstest.Link) {
		p := w.puller()
		before := w.nc.Stats()
		for range 12 {
			w.takes(5*time.Second, func() { w.pull(p, 1, 5*time.Second) })
		}
		after := w.nc.Stats()
		if out, in := after.OutMsgs-before.OutMsgs, after.InMsgs-before.InMsgs; out != 12 || in != 12 {
			t.Errorf("in a minute it sent %d messages and heard %d, want 12 each", out, in)
		}
	})
}
