package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/attempt"
	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/engine/logs"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	jetstreams "github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// BenchmarkBroadcast tells how long a broadcast takes: until its parts are made, the
// first and the last handler have run, and its end is known; and how much processor
// time all of that is, the server's included. The nodes are real ones, though all are
// in this process: see swarm. They take what is pinned to them and nothing else, as a
// fleet does that is there for configurations: so does engine.WorkerOptions.PinnedOnly.
// With queues=true they ask their queue for more, too: then the server has as many
// requests waiting at one consumer. At the end the broadcasts are deleted, and nothing
// may be left of them. Use -benchtime 10x or so.
func BenchmarkBroadcast(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 5000} {
		b.Run(fmt.Sprint("nodes=", n), func(b *testing.B) { benchmarkBroadcast(b, n, false) })
		b.Run(fmt.Sprint("queues=true/nodes=", n), func(b *testing.B) { benchmarkBroadcast(b, n, true) })
	}
}

// benchLease is long, so that renewals do not count.
const benchLease = time.Minute

func benchmarkBroadcast(b *testing.B, n int, queues bool) {
	srv := natstest.Start(b, b.TempDir())
	var handled handled
	owner := connect(b, srv, engine.Options{Node: "owner", Lease: benchLease, Logger: slog.New(slog.DiscardHandler)})
	defer keep(b, owner)()
	began := time.Now()
	fleet := &swarm{kind: "flush", queues: queues, handle: func(context.Context, json.RawMessage) (json.RawMessage, error) {
		handled.run()
		return json.RawMessage(`"flushed"`), nil
	}}
	defer fleet.start(b, srv, n)()
	b.Logf("%d nodes after %v", n, time.Since(began))

	var sums [5]time.Duration
	rounds := 0
	for b.Loop() {
		at, busy := handled.begin(), processorTime(b)
		sent, err := owner.Broadcast(b.Context(), "flush", json.RawMessage("1"))
		if err != nil {
			b.Fatal(err)
		}
		sums[0] += time.Since(at)
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		info, err := owner.Wait(ctx, sent.ID)
		cancel()
		sums[3] += time.Since(at)
		if err != nil || info.Children.Succeeded != n {
			b.Fatalf("%v: %+v", err, info.Children)
		}
		sums[1] += handled.first.Sub(at)
		sums[2] += handled.last.Sub(at)
		sums[4] += processorTime(b) - busy
		rounds++
		b.StopTimer()
		began := time.Now()
		if err := owner.Delete(b.Context(), sent.ID); err != nil {
			b.Fatal(err)
		}
		b.Logf("round %d: deleted in %v", rounds, time.Since(began))
		b.StartTimer()
	}
	for i, what := range []string{"made", "first", "last", "concluded", "cpu"} {
		b.ReportMetric(float64(sums[i].Microseconds())/1000/float64(rounds), what+"-ms")
	}
	for _, stream := range []string{"KV_mr_default_jobs", "mr_default_mail", "mr_default_timers", "OBJ_mr_default_blobs"} {
		if left := streamInfo(b, natstest.Connect(b, srv), stream).State.Msgs; left != 0 {
			b.Errorf("%d messages are left in %s", left, stream)
		}
	}
}

// processorTime returns how much of it this process has used.
func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// handled notes when handlers ran.
type handled struct {
	mu          sync.Mutex
	first, last time.Time
}

func (h *handled) begin() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.first, h.last = time.Time{}, time.Time{}
	return time.Now()
}

func (h *handled) run() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = time.Now()
	if h.first.IsZero() {
		h.first = h.last
	}
}

// keep has an engine keep the namespace, until the function that it returns is
// called.
func keep(b *testing.B, eng *engine.Engine) (stop func()) {
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- eng.Serve(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

// swarm is the nodes of a benchmark. Each has a lease, a mailbox, slots and handlers
// of its own; connections, and what a process knows of the namespace, are shared.
type swarm struct {
	kind   string // that its nodes run, and the name of their queue
	queues bool   // they take what waits in the queue, and not only what is pinned to them
	handle attempt.Handler

	ns       streams.Namespace
	lease    time.Duration
	running  errgroup.Group
	links    []*link
	handling context.Context
}

// link is a connection that some nodes share.
type link struct {
	pub   *jetstreams.Publisher
	work  *streams.Work
	clock *streams.Clock
	store *store.Store
	logs  *logs.Log
}

// start starts n nodes, and returns when they are there.
func (s *swarm) start(b *testing.B, srv *server.Server, n int) (stop func()) {
	b.Helper()
	const each = 200 // nodes a connection
	ctx, cancel := context.WithCancel(context.Background())
	s.ns, s.lease, s.handling = streams.DefaultNamespace, benchLease, ctx
	var joining errgroup.Group
	joining.SetLimit(32)
	for range (n + each - 1) / each { // before there is so much to do that an answer is late
		l, err := s.link(natstest.Connect(b, srv))
		if err != nil {
			b.Fatal(err)
		}
		s.links = append(s.links, l)
	}
	for i := range n {
		joining.Go(func() error { return s.join(ctx, s.links[i/each], fmt.Sprint("n", i)) })
	}
	if err := joining.Wait(); err != nil {
		b.Fatal(err)
	}
	return func() {
		cancel()
		if err := s.running.Wait(); err != nil {
			b.Error(err)
		}
		for _, l := range s.links {
			l.pub.Close()
		}
	}
}

// link opens the namespace on a connection.
func (s *swarm) link(nc *nats.Conn) (*link, error) {
	pub, err := jetstreams.New(nc, jetstreams.Options{})
	if err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	l := &link{pub: pub, clock: streams.NewClock(s.ns, pub), logs: logs.Open(pub, logs.Options{Namespace: s.ns, Logger: quiet})}
	var timers *streams.Timers
	if l.work, err = streams.NewWork(s.ns, pub); err == nil {
		timers, err = streams.NewTimers(s.ns, pub)
	}
	if err == nil {
		err = l.clock.Measure(s.handling)
	}
	l.store = store.Open(pub, store.Assets{
		Work: l.work, Timers: timers, Clock: l.clock, Limits: streams.NewLimits(s.ns, pub), Asker: nodes.NewAsker(pub, s.ns),
	}, store.Options{Namespace: s.ns, Lease: s.lease, Logger: quiet})
	return l, err
}

// join starts a node.
func (s *swarm) join(ctx context.Context, l *link, id string) error {
	quiet := slog.New(slog.DiscardHandler)
	running := attempt.NewRunning(s.lease)
	kinds, queues := []string{s.kind}, []string{s.kind}
	info := nodes.Info{Kinds: kinds, Pinned: queues, Slots: 1, Role: nodes.RoleWorker}
	if s.queues {
		info.Queues, info.Pinned = queues, nil
	}
	node, err := nodes.Join(ctx, l.pub, nodes.Options{
		Namespace: s.ns, ID: id, Lease: s.lease, Logger: quiet, Info: info,
		Runs: running.Runs, End: running.Cancel, Load: running.Count,
	})
	if err != nil {
		return err
	}
	runner := attempt.New(ctx, ctx, attempt.Options{
		Namespace: s.ns, Node: node, Kinds: map[string]attempt.Kind{s.kind: {Handle: s.handle}}, Store: l.store, Logs: l.logs, Clock: l.clock, Running: running, Logger: quiet,
	})
	in := intake.New(l.work, intake.Options{
		Queues: queues, Mailbox: id, MailOnly: !s.queues, Slots: 1, Ready: node.Ready, Take: runner.Take, Logger: quiet,
		Shape: func(context.Context, string) (streams.Shape, error) { return streams.Shape{AckWait: s.lease}, nil },
	})
	s.running.Go(func() error { return node.Run(ctx) })
	s.running.Go(func() error {
		defer runner.Wait()
		return in.Run(ctx)
	})
	return nil
}
