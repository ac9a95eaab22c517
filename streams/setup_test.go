package streams_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

const (
	ns      = streams.DefaultNamespace
	ackWait = 6 * time.Second
)

// quiet drops what Ensure has to say.
var quiet = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// natstest keeps it running on purpose.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// must returns a function that returns v, or fails the test if there is an
// error: must(f())(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// publisher returns a publisher on nc.
func publisher(t testing.TB, nc *nats.Conn) *publish.Publisher {
	t.Helper()
	pub := must(publish.New(nc))(t)
	t.Cleanup(pub.Close)
	return pub
}

// ensure makes the assets over nc, or fails the test.
func ensure(t testing.TB, nc *nats.Conn, opts streams.Options) streams.Settings {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = quiet
	}
	return must(streams.Ensure(t.Context(), ns, publisher(t, nc), opts))(t)
}

// open returns the JetStream API over nc.
func open(t testing.TB, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	return must(jetstream.New(nc))(t)
}

// configs returns the configurations of all streams, by name.
func configs(t testing.TB, js jetstream.JetStream) map[string]jetstream.StreamConfig {
	t.Helper()
	all := map[string]jetstream.StreamConfig{}
	list := js.ListStreams(t.Context())
	for info := range list.Info() {
		all[info.Config.Name] = info.Config
	}
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// state returns what a stream holds now.
func state(t testing.TB, js jetstream.JetStream, name string) jetstream.StreamState {
	t.Helper()
	return must(js.Stream(t.Context(), name))(t).CachedInfo().State
}

// oneLine fails the test unless err is one line that contains all words.
func oneLine(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("got no error, want one that says %q", words)
		return
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %v", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got %q, want it to say %q", err, word)
		}
	}
}

// world is a work queue with a consumer for the queue mail, over a connection
// of its own.
type world struct {
	testing.TB
	nc   *nats.Conn
	work *streams.Work
}

// newWorld makes the assets and the consumer of the queue mail.
func newWorld(t testing.TB, nc *nats.Conn) *world {
	t.Helper()
	ensure(t, nc, streams.Options{})
	w := &world{t, nc, must(streams.NewWork(ns, publisher(t, nc)))(t)}
	w.serve("mail")
	return w
}

// serve makes the consumer of a queue.
func (w *world) serve(queue string) {
	w.Helper()
	if err := w.work.Serve(w.Context(), queue, streams.Shape{AckWait: ackWait}); err != nil {
		w.Fatal(err)
	}
}

// offer offers items of the queue mail.
func (w *world) offer(locals ...string) {
	w.Helper()
	for _, local := range locals {
		item := streams.Item{Queue: "mail", Local: local, Record: []byte("record of " + local), Revision: 7}
		if err := w.work.Offer(w.Context(), item); err != nil {
			w.Fatal(err)
		}
	}
}

// puller returns a puller of the queue mail, which the test closes.
func (w *world) puller() *streams.Puller {
	w.Helper()
	p := must(w.work.Puller("mail", ""))(w)
	w.Cleanup(func() { _ = p.Close(context.WithoutCancel(w.Context())) })
	return p
}

// pull pulls once, and returns what came.
func (w *world) pull(p *streams.Puller, n int, wait time.Duration) []*streams.Delivery {
	w.Helper()
	var got []*streams.Delivery
	taken, err := p.Pull(w.Context(), n, wait, func(d *streams.Delivery, err error) {
		if err != nil {
			w.Errorf("message %d is no item: %v", d.Sequence, err)
		}
		got = append(got, d)
	})
	if err != nil {
		w.Fatal(err)
	}
	if taken != len(got) {
		w.Errorf("took %d items and says %d", len(got), taken)
	}
	return got
}

// eventually pulls one item at a time until one comes, and returns it. Pulls may
// fail on the way.
func (w *world) eventually(p *streams.Puller) (got *streams.Delivery) {
	w.Helper()
	for got == nil && w.Context().Err() == nil {
		_, err := p.Pull(w.Context(), 1, 500*time.Millisecond, func(d *streams.Delivery, err error) { got = must(d, err)(w) })
		if err != nil {
			w.Logf("pull: %v", err)
			<-time.After(20 * time.Millisecond)
		}
	}
	return got
}

// info returns the consumer of the queue mail.
func (w *world) info() *jetstream.ConsumerInfo {
	w.Helper()
	return must(open(w, w.nc).Consumer(w.Context(), ns.WorkStream(), "mail"))(w).CachedInfo()
}

// locals returns the local IDs of deliveries, in one string.
func locals(list []*streams.Delivery) string {
	names := make([]string, len(list))
	for i, d := range list {
		names[i] = d.Local
	}
	return strings.Join(names, " ")
}

// connect is natstest.Connect, for short.
func connect(t testing.TB, srv *server.Server, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return natstest.Connect(t, srv, opts...)
}

// refs names jobs whose items lie in their queues.
func refs(ids ...string) []streams.Ref {
	list := make([]streams.Ref, len(ids))
	for i, id := range ids {
		list[i].ID = id
	}
	return list
}
