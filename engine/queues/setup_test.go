package queues_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/engine/queues"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The server's access-time ticker runs for as long as the process does.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

const (
	ns = streams.DefaultNamespace
	// configWrites is where definitions are written.
	configWrites = "$KV.mr_default_config.>"
)

var quiet = slog.New(slog.DiscardHandler)

// shapes notes how the consumers of queues were made.
type shapes struct {
	mu     sync.Mutex
	now    map[string]int
	before func(queue string) // called before a shape is noted; may be nil
}

func (s *shapes) shape(_ context.Context, queue string, concurrency int) error {
	if s.before != nil {
		s.before(queue)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		s.now = map[string]int{}
	}
	s.now[queue] = concurrency
	return nil
}

func (s *shapes) of(queue string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now[queue]
}

// process is what a process has of queues.
type process struct {
	*queues.Queues
	*queues.Book
	*shapes
	pub *publish.Publisher
}

// join returns a process over a connection, with the assets there.
func join(t *testing.T, nc *nats.Conn) *process {
	t.Helper()
	pub, err := publish.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	if _, err := streams.Ensure(t.Context(), ns, pub, streams.Options{Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	s := &shapes{}
	return &process{
		queues.Open(pub, queues.Options{Namespace: ns, Shape: s.shape, Logger: quiet}),
		queues.NewBook(pub, queues.BookOptions{Namespace: ns, Retention: store.DefaultRetention, Logger: quiet}),
		s, pub,
	}
}

// started returns a process over a server of its own.
func started(t *testing.T) *process {
	t.Helper()
	return join(t, natstest.Connect(t, natstest.Start(t, t.TempDir())))
}

// run keeps the book of a process until stop is called or the test ends.
func (p *process) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

// await waits until something is so, as it must become soon.
func (p *process) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		changed := p.Changed()
		if is() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s: not in time", what)
		}
	}
}

// raw is the config bucket as people get at it by hand.
func raw(pub *publish.Publisher) *kv.Bucket[[]byte] {
	return kv.Open(pub, ns.Bucket(streams.Config), kv.Codec[[]byte]{
		Encode: func(b []byte) (nats.Header, []byte, error) { return nil, b, nil },
		Decode: func(_ nats.Header, b []byte) ([]byte, error) { return b, nil },
	})
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// bubble runs f in virtual time, with two processes: one that changes definitions
// and one, behind a link, that hears of them.
func bubble(t *testing.T, f func(t *testing.T, srv *server.Server, editor *process)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) { f(t, srv, join(t, natstest.Connect(t, srv))) })
}
