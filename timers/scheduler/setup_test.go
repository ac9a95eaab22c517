package scheduler_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers/scheduler"
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

// world is a namespace on a server, and somebody who looks on, and does what people
// and workers would.
type world struct {
	testing.TB
	srv *server.Server
	*process
	definitions *kv.Bucket[scheduler.Stored]
}

// bubble runs f in a bubble in which a namespace is ready. It begins a second before
// a minute.
func bubble(t *testing.T, f func(w *world)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, srv)
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(2*time.Minute - time.Second)))
		f(w)
	})
}

func newWorld(t testing.TB, srv *server.Server) *world {
	t.Helper()
	w := &world{TB: t, srv: srv}
	pub := publisher(t, w.link(nil))
	must(streams.Ensure(t.Context(), ns, pub, streams.Options{Lease: lease, Logger: quiet}))(t)
	w.process = newProcess(t, pub)
	w.definitions = scheduler.Bucket(pub, ns, quiet)
	return w
}

// link is the network of one process. What it writes about jobs and schedules may be
// disturbed.
func (w *world) link(decide func(natstest.Write) natstest.Fault) *natstest.Link {
	return natstest.NewLink(w, w.srv, decide, "$KV."+ns.Bucket(streams.Jobs)+".>", "$KV."+ns.Bucket(streams.Cursor)+".>", "mr.default.work.>", "mr.default.timer.>")
}

func publisher(t testing.TB, link *natstest.Link) *publish.Publisher {
	t.Helper()
	pub := must(publish.New(link.Connect(t)))(t)
	t.Cleanup(pub.Close)
	return pub
}

// process is a process as far as NATS can tell, with a store.
type process struct {
	*store.Store
	pub  *publish.Publisher
	jobs *kv.Bucket[machine.Job]
}

func newProcess(t testing.TB, pub *publish.Publisher) *process {
	t.Helper()
	clock := streams.NewClock(ns, pub)
	must(0, clock.Measure(t.Context()))(t)
	assets := store.Assets{
		Work: must(streams.NewWork(ns, pub))(t), Timers: must(streams.NewTimers(ns, pub))(t),
		Limits: streams.NewLimits(ns, pub), Clock: clock, Asker: nodes.NewAsker(pub, ns),
	}
	opts := store.Options{Namespace: ns, Lease: lease, Logger: quiet, Declines: scheduler.OpenDefinitions(pub, ns, quiet).Declines}
	return &process{
		Store: store.Open(pub, assets, opts), pub: pub, jobs: kv.Open(pub, ns.Bucket(streams.Jobs), store.Codec()),
	}
}

// must returns a function that gives v, or fails the test.
func must[V any](v V, err error) func(testing.TB) V {
	return func(t testing.TB) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// owner is a process that is an owner, as it believes.
type owner struct {
	*scheduler.Scheduler
	*process
	lease *kv.Lease
	link  *natstest.Link
	stop  func()
}

// own lets a process be an owner, under a key of its own, so that there can be
// several.
func (w *world) own(key string, decide func(natstest.Write) natstest.Fault) *owner {
	w.Helper()
	return w.ownFor(key, lease, decide)
}

func (w *world) ownFor(key string, lease time.Duration, decide func(natstest.Write) natstest.Fault) *owner {
	w.Helper()
	return w.ownBy(key, lease, w.link(decide))
}

// ownBy lets a process be an owner that has a link.
func (w *world) ownBy(key string, lease time.Duration, link *natstest.Link) *owner {
	w.Helper()
	p := newProcess(w, publisher(w, link))
	held := kv.Open(p.pub, ns.Bucket(streams.Leases), kv.JSON[kv.Held]())
	l := must(kv.Take(w.Context(), held, "test-"+key, key, kv.LeaseOptions{TTL: lease, Logger: quiet}))(w)
	s := scheduler.New(p.pub, scheduler.Options{Owner: l, Clock: p.Clock, Store: p.Store, Logger: quiet})
	o := &owner{Scheduler: s, process: p, lease: l, link: link}
	o.stop = w.loops(
		func(ctx context.Context) error { _ = l.Keep(ctx); return nil }, // tests end the lease
		s.Run,
	)
	return o
}

// loops runs functions until the test ends, or until stop is called.
func (w *world) loops(all ...func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, f := range all {
		running.Go(func() {
			if err := f(ctx); err != nil {
				w.Error(err)
			}
		})
	}
	stop = func() { cancel(); running.Wait() }
	w.Cleanup(stop)
	return stop
}

// apply stores a schedule, as people do: a new one, or another one in its place.
func (w *world) apply(s spec.Schedule) {
	w.Helper()
	if s.Job == "" {
		s.Job = "q.k"
	}
	must(0, s.Validate())(w)
	must(w.definitions.Put(w.Context(), scheduler.Key(s.Name), func(was kv.Entry[scheduler.Stored]) (scheduler.Stored, error) {
		next := scheduler.Stored{Schedule: s}
		if was.Revision == 0 {
			return next, nil
		}
		if next.Created = was.Value.Created; next.Created.IsZero() {
			next.Created = was.Stored
		}
		if s.SameCalendar(was.Value.Schedule) && (s.IsPaused() || !was.Value.IsPaused()) {
			if next.Since = was.Value.Since; next.Since.IsZero() {
				next.Since = was.Stored
			}
		}
		return next, nil
	}))(w)
}

// drop deletes a schedule.
func (w *world) drop(name string) {
	w.Helper()
	must(0, w.definitions.Drop(w.Context(), scheduler.Key(name), nil))(w)
}

// ticks returns the jobs of a schedule, the oldest tick first.
func (w *world) ticks(name string) []machine.Job {
	w.Helper()
	synctest.Wait()
	var list []machine.Job
	for _, entry := range must(w.jobs.ListStale(w.Context(), ">"))(w) {
		if j := entry.Value; j.Tick != nil && j.Tick.Schedule == name {
			list = append(list, j)
		}
	}
	slices.SortFunc(list, func(a, b machine.Job) int { return a.Tick.At.Compare(b.Tick.At) })
	return list
}
