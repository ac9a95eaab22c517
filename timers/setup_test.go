package timers_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The server's access-time ticker runs for as long as the process does.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

const (
	ns    = streams.DefaultNamespace
	lease = 6 * time.Second
)

var quiet = slog.New(slog.DiscardHandler)

// open returns a publisher on nc that lasts as long as the test.
func open(t testing.TB, nc *nats.Conn) *publish.Publisher {
	t.Helper()
	pub, err := publish.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	return pub
}

// setup makes the assets and returns a publisher of somebody who looks on.
func setup(t testing.TB, srv *server.Server) *publish.Publisher {
	t.Helper()
	pub := open(t, natstest.Connect(t, srv))
	if _, err := streams.Ensure(t.Context(), ns, pub, streams.Options{Lease: lease, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	return pub
}

// network is where a process connects.
func network(t testing.TB, srv *server.Server, decide func(natstest.Write) natstest.Fault) *natstest.Link {
	return natstest.NewLink(t, srv, decide, "$KV.>")
}

// serve registers a node that serves, until the function that it returns is
// called: cleanly, or by a crash, which cuts the link first.
func serve(t testing.TB, link *natstest.Link, id string) (leave func()) {
	t.Helper()
	node, err := nodes.Join(t.Context(), open(t, link.Connect(t)), nodes.Options{
		ID: id, Lease: lease, Info: nodes.Info{Role: nodes.RoleServe}, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	return loop(t, node.Run)
}

// loop runs f until the test ends, or until stop is called.
func loop(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := f(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

func leases(pub *publish.Publisher) *kv.Bucket[kv.Held] {
	return kv.Open(pub, ns.Bucket(streams.Leases), kv.JSON[kv.Held]())
}

// until waits until ok, asking again and again, for as long as the test has
// patience.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for tick := time.NewTicker(10 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
