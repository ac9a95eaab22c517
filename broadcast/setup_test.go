package broadcast_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/broadcast"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
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
	// moment is more than enough for a keeper that hears of everything.
	moment = time.Second
	// polled is when a keeper that hears nothing has read a few children.
	polled = 21 * time.Second
)

var quiet = slog.New(slog.DiscardHandler)

// world is a namespace on a server in a bubble, and somebody who looks on and does
// what nodes would.
type world struct {
	*testing.T
	srv *server.Server
	*process
}

// bubble runs f in a bubble in which a namespace is ready.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) { f(t, newWorld(t, srv)) })
}

func newWorld(t *testing.T, srv *server.Server) *world {
	t.Helper()
	w := &world{T: t, srv: srv}
	pub := publisher(t, w.link(nil))
	must(streams.Ensure(t.Context(), ns, pub, streams.Options{Lease: lease, Logger: quiet}))(t)
	w.process = newProcess(t, pub)
	return w
}

// link is the network of one process. What it writes about jobs may be disturbed.
func (w *world) link(decide func(natstest.Write) natstest.Fault) *natstest.Link {
	return natstest.NewLink(w, w.srv, decide, "$KV."+ns.Bucket(streams.Jobs)+".>", "mr.default.mail.>", "mr.default.timer.>")
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

// keeping is a process that is the owner and keeps.
type keeping struct {
	*broadcast.Keeper
	*process
	lease *kv.Lease
	link  *natstest.Link
	stop  func()
}

// keep lets a process keep, under a key of its own, so that there can be several.
func (w *world) keep(key string, decide func(natstest.Write) natstest.Fault) *keeping {
	w.Helper()
	return w.keepOver(w.link(decide), key)
}

// keepOver is keep with a network of its own.
func (w *world) keepOver(link *natstest.Link, key string) *keeping {
	w.Helper()
	p := newProcess(w, publisher(w, link))
	held := kv.Open(p.pub, ns.Bucket(streams.Leases), kv.JSON[kv.Held]())
	l := must(kv.Take(w.Context(), held, "test-"+key, key, kv.LeaseOptions{TTL: lease, Logger: quiet}))(w)
	k := &keeping{process: p, lease: l, link: link, Keeper: broadcast.New(p.pub, broadcast.Options{
		Owner: l, Store: p.Store, Asker: nodes.NewAsker(p.pub, ns), Logger: quiet,
	})}
	k.stop = w.loops(
		func(ctx context.Context) error { _ = l.Keep(ctx); return nil }, // tests end the lease
		k.Run,
	)
	synctest.Wait()
	return k
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

// parent is a broadcast to n nodes, n000 and so on, which nobody is. It may be changed.
func parent(n int, change func(*machine.Fan)) machine.Job {
	fan := &machine.Fan{Total: n, OnLost: machine.ElseFail, Done: machine.GoalAll}
	for i := range n {
		fan.Shares = append(fan.Shares, machine.Share{Node: fmt.Sprintf("n%03d", i), Incarnation: 1})
	}
	if change != nil {
		change(fan)
	}
	return machine.Job{ID: "q.1", Kind: "q.k", State: machine.Waiting, Created: time.Now().UTC(), Fan: fan}
}

// sharded makes a sharded job of it.
func sharded(fan *machine.Fan) {
	fan.Shards = true
	for i := range fan.Shares {
		fan.Shares[i].Parameter = fmt.Sprint("p", i)
	}
}

// submit submits a job, and makes its children.
func (w *world) submit(j machine.Job) {
	w.Helper()
	_, _, err := w.Submit(w.Context(), j)
	must(0, err)(w)
}

// child returns child i of q.1, as it is stored.
func (w *world) child(i int) store.Entry {
	w.Helper()
	parent := w.get("q.1").Value
	shares := must(w.Shares(w.Context(), parent))(w)
	return w.get(store.ChildID("q.1", store.PartName(*parent.Fan, shares, i)))
}

func (w *world) get(id string) store.Entry {
	w.Helper()
	return must(w.Get(w.Context(), id))(w)
}

// change applies events to a stored job, and carries out nothing of what it owes.
func (w *world) change(entry store.Entry, events ...machine.Event) store.Entry {
	w.Helper()
	for _, ev := range events {
		entry.Value = must(entry.Value.Apply(ev))(w)
	}
	entry.Revision = must(w.jobs.Update(w.Context(), entry.Key, entry.Value, entry.Revision))(w)
	return entry
}

// claim lets the node of child i run it.
func (w *world) claim(i int) store.Entry {
	w.Helper()
	child := w.child(i)
	return w.change(child, machine.Claimed{Claimant: machine.Claimant{
		Lease: machine.Lease{Node: child.Value.Pin.Node, Incarnation: 1, Token: child.Key}, At: time.Now().UTC(),
	}})
}

// silently lets child i end in a state, and tells nobody.
func (w *world) silently(i int, how machine.State) store.Entry {
	w.Helper()
	now := time.Now().UTC()
	hold := func(child store.Entry) machine.Hold { return machine.Hold{Token: child.Key, At: now} }
	switch how {
	case machine.Succeeded:
		child := w.claim(i)
		return w.change(child, machine.Done{Hold: hold(child), Result: json.RawMessage(fmt.Sprintf(`{"from":%d}`, i))})
	case machine.Failed:
		child := w.claim(i)
		return w.change(child, machine.Erred{Hold: hold(child), Final: true, Error: machine.Error{Message: "no"}})
	case machine.Lost:
		return w.change(w.child(i), machine.Deserted{At: now})
	case machine.Cancelled:
		return w.change(w.child(i), machine.Stopped{At: now})
	}
	w.Fatalf("no child ends as %s", how)
	return store.Entry{}
}

// end lets child i end in a state.
func (w *world) end(i int, how machine.State) {
	w.Helper()
	must(0, w.Owe(w.Context(), w.silently(i, how)))(w)
}

// open returns which children have not ended.
func (w *world) open() (list []int) {
	w.Helper()
	for i, s := range w.states() {
		if s != "" && !s.Final() {
			list = append(list, i)
		}
	}
	return list
}

// states returns the states of the children, "" for those that are not there.
func (w *world) states() []machine.State {
	w.Helper()
	parent := w.get("q.1").Value
	shares := must(w.Shares(w.Context(), parent))(w)
	byID := map[string]machine.State{}
	for _, entry := range must(w.jobs.ListStale(w.Context(), "q.*"))(w) {
		byID[entry.Key] = entry.Value.State
	}
	states := make([]machine.State, len(shares))
	for i := range states {
		states[i] = byID[store.ChildID("q.1", store.PartName(*parent.Fan, shares, i))]
	}
	return states
}

// wantOpen fails the test unless just these children are open.
func (w *world) wantOpen(want ...int) {
	w.Helper()
	if got := w.open(); !slices.Equal(got, want) {
		w.Errorf("open are %v, want %v", got, want)
	}
}

// wantEnded fails the test unless q.1 has ended like that.
func (w *world) wantEnded(state machine.State, message string, tally machine.Tally) {
	w.Helper()
	j := w.get("q.1").Value
	got := ""
	if j.Error != nil {
		got = j.Error.Message
	}
	if j.State != state || got != message {
		w.Errorf("it is %s: %q, want %s: %q", j.State, got, state, message)
	}
	if diff := cmp.Diff(tally, j.Fan.Tally); diff != "" {
		w.Errorf("tally (-want +got):\n%s", diff)
	}
}

// wantWaiting fails the test unless q.1 goes on.
func (w *world) wantWaiting() {
	w.Helper()
	if s := w.get("q.1").Value.State; s != machine.Waiting {
		w.Errorf("it is %s, want waiting", s)
	}
}
