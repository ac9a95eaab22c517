package store_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
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
	// longGone is when a node that died is surely dead to everybody.
	longGone = 2 * lease

	// soon is how long jobs wait after a failure.
	soon = time.Second

	// Where the writes go whose fate tests decide.
	jobWrites    = "$KV.mr_default_jobs.>"
	workWrites   = "mr.default.work.>"
	timerWrites  = "mr.default.timer.>"
	jobDeletes   = "$JS.API.STREAM.MSG.DELETE.KV_mr_default_jobs"
	workDeletes  = "$JS.API.STREAM.MSG.DELETE.mr_default_work"
	keyWrites    = "$KV.mr_default_cursor.>"
	keyDeletes   = "$JS.API.STREAM.MSG.DELETE.KV_mr_default_cursor"
	blobWrites   = "$O.mr_default_blobs.>"
	blobDeletes  = "$JS.API.STREAM.PURGE.OBJ_mr_default_blobs"
	timerDeletes = "$JS.API.STREAM.MSG.DELETE.mr_default_timers"
	answers      = "$JS.ACK.>" // to deliveries
	itemReads    = "$JS.API.STREAM.MSG.GET.mr_default_work"
	mailWrites   = "mr.default.mail.>"
	mailDeletes  = "$JS.API.STREAM.MSG.DELETE.mr_default_mail"
	logDeletes   = "$JS.API.STREAM.PURGE.mr_default_logs"
)

// writes is everything that a process writes and waits for.
var writes = []string{jobWrites, workWrites, timerWrites, jobDeletes, workDeletes, timerDeletes, keyWrites, keyDeletes, blobWrites, blobDeletes, mailWrites, mailDeletes}

var quiet = slog.New(slog.DiscardHandler)

// world is a namespace on a server in a bubble, and somebody who looks on.
type world struct {
	*testing.T
	srv  *server.Server
	pub  *publish.Publisher
	js   jetstream.JetStream
	jobs *kv.Bucket[machine.Job]
	// blind is set if processes that start cannot find nodes.
	blind bool
}

// bubble runs f in a bubble in which a namespace is ready.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := &world{T: t, srv: srv}
		nc := natstest.Connect(t, srv)
		w.pub = must(publish.New(nc))(t)
		t.Cleanup(w.pub.Close)
		w.js = must(jetstream.New(nc))(t)
		must(streams.Ensure(t.Context(), ns, w.pub, streams.Options{Lease: lease, Logger: quiet}))(t)
		w.jobs = kv.Open(w.pub, ns.Bucket(streams.Jobs), store.Codec())
		f(t, w)
	})
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

// get reads a job.
func (w *world) get(id string) store.Entry {
	w.Helper()
	return must(w.jobs.Get(w.Context(), id))(w)
}

// change applies events to a stored job, behind everybody's back.
func (w *world) change(id string, events ...machine.Event) store.Entry {
	w.Helper()
	entry := w.get(id)
	for _, ev := range events {
		entry.Value = must(entry.Value.Apply(ev))(w)
	}
	must(w.jobs.Update(w.Context(), id, entry.Value, entry.Revision))(w)
	return w.get(id)
}

// remove takes a record away.
func (w *world) remove(id string) {
	w.Helper()
	if err := w.jobs.Remove(w.Context(), id, w.get(id).Revision); err != nil {
		w.Fatal(err)
	}
}

// items returns how many items of a job lie in the work stream, once whatever
// is under way has arrived.
func (w *world) items(id string) uint64 {
	w.Helper()
	synctest.Wait()
	queue, local, err := name.SplitJobID(id)
	if err != nil {
		w.Fatal(err)
	}
	subject := ns.WorkSubject(queue, streams.Class, local)
	stream := must(w.js.Stream(w.Context(), ns.WorkStream()))(w)
	return must(stream.Info(w.Context(), jetstream.WithSubjectFilter(subject)))(w).State.Subjects[subject]
}

// wantItems fails the test unless n items of a job are there.
func (w *world) wantItems(id string, n uint64) {
	w.Helper()
	if got := w.items(id); got != n {
		w.Errorf("%s has %d items, want %d", id, got, n)
	}
}

// timers returns the timers of a job, by their purposes.
func (w *world) timers(id string) (list []string) {
	w.Helper()
	synctest.Wait()
	stream := must(w.js.Stream(w.Context(), ns.TimerStream()))(w)
	info := must(stream.Info(w.Context(), jetstream.WithSubjectFilter("mr.default.timer.*.*."+id)))(w)
	for subject := range info.State.Subjects {
		list = append(list, strings.Split(subject, ".")[4])
	}
	slices.Sort(list)
	return list
}

// wantTimers fails the test unless a job has timers with these purposes.
func (w *world) wantTimers(id string, want ...string) {
	w.Helper()
	if got := w.timers(id); !slices.Equal(got, want) {
		w.Errorf("%s has timers %v, want %v", id, got, want)
	}
}

// want fails the test unless a job is in a state after so many attempts, with
// so many failures.
func (w *world) want(id string, state machine.State, attempt, failures int) {
	w.Helper()
	j := w.get(id).Value
	if j.State != state || j.Attempt != attempt || j.Failures != failures {
		w.Errorf("%s is %s after %d attempts with %d failures, want %s, %d, %d", id, j.State, j.Attempt, j.Failures, state, attempt, failures)
	}
}

// wantOutcomes fails the test unless the attempts of a job ended like that.
func (w *world) wantOutcomes(id string, want ...machine.Outcome) {
	w.Helper()
	var got []machine.Outcome
	for _, a := range w.get(id).Value.Attempts {
		got = append(got, a.Outcome)
	}
	if !slices.Equal(got, want) {
		w.Errorf("attempts of %s ended %v, want %v", id, got, want)
	}
}

// heard counts what is announced of the end of a job from now on.
func (w *world) heard(id string) (count func() int) {
	w.Helper()
	sub := must(w.pub.Conn().SubscribeSync(ns.EndedSubject(id)))(w)
	if err := w.pub.Conn().Flush(); err != nil {
		w.Fatal(err)
	}
	return func() int {
		w.Helper()
		synctest.Wait()
		n, _, err := sub.Pending()
		if err != nil {
			w.Fatal(err)
		}
		return n
	}
}

// serve runs an owner that judges dead nodes and fires timers.
func (w *world) serve() *process { return w.serveAs("owner") }

// serveAs is serve on a node of another ID.
func (w *world) serveAs(id string) *process {
	w.Helper()
	p := w.process(id)
	w.loop(func(ctx context.Context) error {
		opts := timers.StandOptions{Namespace: ns, Node: id, Lease: lease, Logger: quiet}
		return timers.Stand(ctx, p.pub, opts, func(ctx context.Context, l *kv.Lease) error {
			loops, ctx := errgroup.WithContext(ctx)
			loops.Go(func() error {
				return nodes.NewJudge(p.pub, nodes.JudgeOptions{Namespace: ns, Lease: lease, Owner: l, Logger: quiet}).Run(ctx)
			})
			loops.Go(func() error {
				return timers.Run(ctx, p.pub, timers.Options{Namespace: ns, Owner: l, Clock: p.Clock, Logger: quiet, Fire: p.Fire})
			})
			return loops.Wait()
		})
	})
	return p
}

// meanwhile runs f beside the test, which waits for it by wait.
func (w *world) meanwhile(f func()) (wait func()) {
	var beside sync.WaitGroup
	beside.Go(f)
	w.Cleanup(beside.Wait)
	return beside.Wait
}

// loop runs f until the test ends, or until stop is called.
func (w *world) loop(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	var loop sync.WaitGroup
	loop.Go(func() {
		if err := f(ctx); err != nil {
			w.Error(err)
		}
	})
	stop = func() { cancel(); loop.Wait() }
	w.Cleanup(stop)
	return stop
}
