package reconcile_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/reconcile"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers"
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
	// tick is how often the reconciler looks at the clock.
	tick = time.Second
	// seen is when the reader has seen, and checked, what was stored before.
	seen = 12 * time.Second
	// soon is within what everything heals whose stream or consumer was
	// destroyed.
	soon = 30 * time.Second
)

var quiet = slog.New(slog.DiscardHandler)

// world is a namespace on a server in a bubble, and somebody who looks on.
type world struct {
	*testing.T
	srv *server.Server
	*process
	js    jetstream.JetStream
	links []*natstest.Link // all that there are
}

// bubble runs f in a bubble in which a namespace is ready.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		f(t, newWorld(t, srv))
	})
}

func newWorld(t *testing.T, srv *server.Server) *world {
	t.Helper()
	w := &world{T: t, srv: srv}
	pub := publisher(t, w.link())
	must(streams.Ensure(t.Context(), ns, pub, streams.Options{Lease: lease, Logger: quiet}))(t)
	w.js = must(jetstream.New(pub.Conn()))(t)
	w.process = newProcess(t, pub)
	return w
}

// link is the network of one process.
func (w *world) link() *natstest.Link {
	link := natstest.NewLink(w, w.srv, nil, "$KV.>")
	w.links = append(w.links, link)
	return link
}

// restart stops the server and starts it again after a while.
func (w *world) restart(away time.Duration) {
	w.Helper()
	dir := filepath.Dir(w.srv.JetStreamConfig().StoreDir)
	natstest.Stop(w.srv, w.links...)
	time.Sleep(away)
	w.srv = natstest.Start(w, dir)
	for _, link := range w.links {
		link.Reroute(w.srv)
	}
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
	if err := clock.Measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	assets := store.Assets{
		Work: must(streams.NewWork(ns, pub))(t), Timers: must(streams.NewTimers(ns, pub))(t),
		Limits: streams.NewLimits(ns, pub), Clock: clock, Asker: nodes.NewAsker(pub, ns),
	}
	return &process{
		Store: store.Open(pub, assets, store.Options{Namespace: ns, Lease: lease, Logger: quiet}),
		pub:   pub, jobs: kv.Open(pub, ns.Bucket(streams.Jobs), store.Codec()),
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

// owner is a process that is the owner, with what it runs.
type owner struct {
	*reconcile.Reconciler
	lease *kv.Lease
	stop  func()
	link  *natstest.Link
	pub   *publish.Publisher

	mu      sync.Mutex
	waiting map[string]int // how often it met jobs that wait for children, or for a turn
}

// own lets a process reconcile, under a key of its own, so that there can be
// several. Its log may go somewhere.
func (w *world) own(key string, log ...slog.Handler) *owner {
	w.Helper()
	logger := quiet
	if len(log) > 0 {
		logger = slog.New(log[0])
	}
	link := w.link()
	p := newProcess(w, publisher(w, link))
	held := kv.Open(p.pub, ns.Bucket(streams.Leases), kv.JSON[kv.Held]())
	l := must(kv.Take(w.Context(), held, "test-"+key, key, kv.LeaseOptions{TTL: lease, Logger: quiet}))(w)
	o := &owner{lease: l, link: link, pub: p.pub, waiting: map[string]int{}}
	o.Reconciler = reconcile.New(p.pub, reconcile.Options{
		Namespace: ns, Lease: lease, Owner: l, Clock: p.Clock, Store: p.Store, Work: p.Work, Timers: p.Timers, Logger: logger,
		Members: p.members, Waiting: o.meet, Turn: func(schedule, id string) { o.meet(schedule + " " + id) },
	})
	o.stop = w.loops(
		func(ctx context.Context) error { _ = l.Keep(ctx); return nil }, // tests end the lease
		o.Run,
	)
	return o
}

// fire lets a process be the owner who fires timers and judges nodes.
func (w *world) fire() (stop func()) {
	w.Helper()
	p := newProcess(w, publisher(w, w.link()))
	return w.loops(func(ctx context.Context) error {
		opts := timers.StandOptions{Namespace: ns, Node: "timers", Lease: lease, Logger: quiet}
		return timers.Stand(ctx, p.pub, opts, func(ctx context.Context, l *kv.Lease) error {
			var both sync.WaitGroup
			both.Go(func() {
				judge := nodes.NewJudge(p.pub, nodes.JudgeOptions{Namespace: ns, Lease: lease, Owner: l, Logger: quiet})
				if err := judge.Run(ctx); err != nil {
					w.Error(err)
				}
			})
			defer both.Wait()
			return timers.Run(ctx, p.pub, timers.Options{Namespace: ns, Owner: l, Clock: p.Clock, Fire: p.Fire, Logger: quiet})
		})
	})
}

// loops runs functions until the test ends, or until stop is called.
func (w *world) loops(all ...func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
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

// job is a new job of queue q.
func job(local string) machine.Job {
	return machine.Job{ID: "q." + local, Kind: "q.k", State: machine.Pending, Created: time.Now().UTC()}
}

// submit submits n jobs, each changed by change, and returns their IDs.
func (w *world) submit(n int, prefix string, change func(*machine.Job)) []string {
	w.Helper()
	ids := make([]string, n)
	var all sync.WaitGroup
	for i := range n {
		j := job(fmt.Sprint(prefix, i))
		if change != nil {
			change(&j)
		}
		ids[i] = j.ID
		if err := w.pub.Room(w.Context()); err != nil {
			w.Fatal(err)
		}
		all.Add(1)
		w.SubmitAsync(j, func(_ store.Entry, err error) {
			if err != nil {
				w.Error(err)
			}
			all.Done()
		})
	}
	all.Wait()
	return ids
}

// create stores the record of a job, and nothing that follows from it.
func (w *world) create(j machine.Job) {
	w.Helper()
	must(w.jobs.Create(w.Context(), j.ID, j))(w)
}

// change applies events to a stored job, behind everybody's back.
func (w *world) change(id string, events ...machine.Event) store.Entry {
	w.Helper()
	entry := must(w.Get(w.Context(), id))(w)
	for _, ev := range events {
		entry.Value = must(entry.Value.Apply(ev))(w)
	}
	must(w.jobs.Update(w.Context(), id, entry.Value, entry.Revision))(w)
	return must(w.Get(w.Context(), id))(w)
}

// claimed is a node taking a job.
func claimed(node *nodes.Node, token string) machine.Event {
	return machine.Claimed{Claimant: machine.Claimant{
		Lease: machine.Lease{Node: node.ID(), Incarnation: node.Incarnation(), Token: token}, At: time.Now().UTC(),
	}}
}

// subjects returns how many messages a stream of the namespace has on each subject.
func (w *world) subjects(stream, filter string) map[string]uint64 {
	w.Helper()
	s := must(w.js.Stream(w.Context(), stream))(w)
	return must(s.Info(w.Context(), jetstream.WithSubjectFilter(filter)))(w).State.Subjects
}

// items returns which of some jobs have an item.
func (w *world) items(ids ...string) (n int) {
	w.Helper()
	synctest.Wait()
	all := w.subjects(ns.WorkStream(), ">")
	for _, id := range ids {
		queue, local, _ := name.SplitJobID(id)
		if all[ns.WorkSubject(queue, streams.Class, local)] > 0 {
			n++
		}
	}
	return n
}

// purge deletes all messages of a stream.
func (w *world) purge(stream string) {
	w.Helper()
	s := must(w.js.Stream(w.Context(), stream))(w)
	if err := s.Purge(w.Context()); err != nil {
		w.Fatal(err)
	}
}

// purgeSubject deletes the messages of a stream on a subject.
func (w *world) purgeSubject(stream, subject string) {
	w.Helper()
	s := must(w.js.Stream(w.Context(), stream))(w)
	if err := s.Purge(w.Context(), jetstream.WithPurgeSubject(subject)); err != nil {
		w.Fatal(err)
	}
}

// ended returns what reports whether some jobs have all ended in a state, or in
// whatever state for "".
func (w *world) ended(ids []string, state machine.State) func() bool {
	const some = 50
	return func() bool {
		w.Helper()
		for len(ids) > 0 {
			next := ids[:min(some, len(ids))]
			for _, entry := range must(w.jobs.GetManyStale(w.Context(), next))(w) {
				if s := entry.Value.State; !s.Final() || state != "" && s != state {
					return false
				}
			}
			ids = ids[len(next):]
		}
		return true
	}
}

// wantHealed fails the test unless a reconciler has healed just that.
func (w *world) wantHealed(o *owner, want map[store.Lack]int) {
	w.Helper()
	if diff := cmp.Diff(want, o.Healed()); diff != "" && len(want)+len(o.Healed()) > 0 {
		w.Errorf("healed (-want +got):\n%s", diff)
	}
}

// within fails the test unless ok is true soon.
func (w *world) within(limit time.Duration, what string, ok func() bool) {
	w.Helper()
	start := time.Now()
	for tick := time.NewTicker(time.Second); !ok(); <-tick.C {
		if time.Since(start) > limit {
			w.Fatalf("not within %v: %s", limit, what)
		}
	}
	w.Logf("after %v: %s", time.Since(start).Round(time.Millisecond), what)
}
