package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// fleet is nodes that run the same kind, each with a connection of its own, and what
// their handlers did by their own account. It knows when each process lived, which is
// what records are compared with.
type fleet struct {
	*testing.T
	srv    *server.Server
	client *process // it submits and looks, and nothing happens to it
	slots  int      // of each node
	// unlucky says what becomes of the writes of a node; nil: they pass.
	unlucky func(node string) func(natstest.Write) natstest.Fault
	// owners is set if the nodes stand for owner, and the client does not.
	owners bool

	mu    sync.Mutex
	nodes map[string]*life // that are there, by ID
	lives []*life          // that there were
	runs  []*run
	// redriven is when somebody last wanted a job to run once more.
	redriven map[string]time.Time
}

// life is one process of a node, from its start to its end.
type life struct {
	node   string
	p      *process
	stop   func() error
	killed time.Time // when it died without a word, or zero
	halted time.Time // when it was stopped, or zero
	fallen bool      // at a write: it is dead, and nobody has noticed
	aways  []away
}

// away is when a process that lives heard from nobody. The last one may go on.
type away struct{ from, to time.Time }

// lostLease reports whether a process may have lost its lease in some time, although
// it lived.
func (l *life) lostLease(from, to time.Time) bool {
	return slices.ContainsFunc(l.aways, func(a away) bool {
		return a.from.Before(to) && a.to.After(from) && a.to.Sub(a.from) > lease/2
	})
}

// gave reports whether a process may have been found dead after some time.
func (l *life) gave(from time.Time) bool {
	return l.killed.After(from.Add(-2*lease)) || l.halted.After(from.Add(-2*lease)) || l.lostLease(from.Add(-2*lease), time.Now())
}

// cutOff is a process being away for a while, until back is called.
func (f *fleet) cutOff(l *life, cut, back func()) (until func()) {
	cut()
	from := time.Now()
	return func() {
		back()
		f.mu.Lock()
		defer f.mu.Unlock()
		l.aways = append(l.aways, away{from, time.Now()})
	}
}

// run is one call of a handler.
type run struct {
	engine.Current
	ctx    context.Context
	life   *life
	began  time.Time
	ended  time.Time // or zero: it runs, or was killed in it
	result string
	err    error
}

// gone reports whether a run ended with its process.
func (r *run) gone() bool { return r.ended.IsZero() && !r.life.killed.IsZero() }

// push is what a part or a shard is to do.
type push struct {
	// Work is how long that takes.
	Work time.Duration
	// Fails is how many attempts fail at first, by part.
	Fails map[string]int
	// Deaf is set if a handler goes on when it is to end.
	Deaf bool
}

const pushKind = "site.push"

// newFleet starts nodes with these IDs, and waits until all are known.
func newFleet(t *testing.T, srv *server.Server, ids ...string) *fleet {
	t.Helper()
	f := &fleet{T: t, srv: srv, slots: 10, nodes: map[string]*life{}, redriven: map[string]time.Time{}}
	f.open(ids...)
	return f
}

func (f *fleet) open(ids ...string) {
	f.Helper()
	f.client = start(f, f.srv, "client", nil)
	if !f.owners {
		serve(f, f.client.Engine)
	}
	for _, id := range ids {
		f.begin(id)
	}
	time.Sleep(2 * time.Second)
	synctest.Wait()
}

// begin starts a process under a node ID. One that was killed just now leaves a key
// that has to expire first.
func (f *fleet) begin(id string, labels ...string) *life {
	f.Helper()
	var decide func(natstest.Write) natstest.Fault
	if f.unlucky != nil {
		decide = f.unlucky(id)
	}
	link := natstest.NewLink(f, f.srv, decide, ">")
	l := &life{node: id, p: &process{t: f, link: link}}
	l.p.nc = link.Connect(f, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	opts := engine.Options{Node: id, Logger: slog.New(slog.DiscardHandler), Labels: map[string]string{}}
	for _, label := range labels {
		opts.Labels[label] = "yes"
	}
	var err error
	for range 60 { // its first requests may be unlucky
		if l.p.Engine, err = engine.Connect(f.Context(), l.p.nc, opts); err == nil {
			break
		}
		time.Sleep(time.Second)
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(l.p.Engine.Close)
	l.stop = l.p.run(engine.WorkerOptions{Slots: f.slots, Grace: time.Second, NoOwner: !f.owners}, f.job(l))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes[id] = l
	f.lives = append(f.lives, l)
	return l
}

// kill ends the process of a node without a word.
func (f *fleet) kill(id string) {
	f.mu.Lock()
	l := f.nodes[id]
	delete(f.nodes, id)
	f.mu.Unlock()
	if l != nil {
		f.bury(l)
	}
}

// bury ends a process whose connection may be gone already.
func (f *fleet) bury(l *life) {
	l.p.link.Down()
	f.mu.Lock()
	if l.killed.IsZero() {
		l.killed = time.Now()
	}
	f.mu.Unlock()
	_ = l.stop() // who is dead cannot store outcomes
}

// halt ends the process of a node as it would itself.
func (f *fleet) halt(id string) {
	f.mu.Lock()
	l := f.nodes[id]
	delete(f.nodes, id)
	f.mu.Unlock()
	if l != nil {
		l.halted = time.Now()
		_ = l.stop()
		l.p.link.Down()
	}
}

// job is the kind, as the process l runs it.
func (f *fleet) job(l *life) *engine.Job[push, string] {
	return engine.NewJob(pushKind, func(ctx context.Context, in push) (string, error) {
		r := f.enter(ctx, l)
		result, err := r.do(ctx, in)
		f.mu.Lock()
		defer f.mu.Unlock()
		if l.killed.IsZero() {
			r.ended, r.result, r.err = time.Now(), result, err
		}
		return result, err
	}, engine.JobOptions{Retry: engine.Retry{Delay: time.Second, Factor: 1}})
}

// enter notes that a handler was called, and that another one runs that must not.
func (f *fleet) enter(ctx context.Context, l *life) *run {
	r := &run{Current: engine.JobFrom(ctx), ctx: ctx, life: l, began: time.Now()}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !l.killed.IsZero() {
		return r // a process that is dead calls nothing
	}
	for _, other := range f.runs {
		if other.ID != r.ID {
			continue
		}
		if other.ended.IsZero() && !other.gone() && other.ctx.Err() == nil {
			f.Errorf("%s: attempt %d starts on %s while attempt %d runs under a lease on %s", r.ID, r.Attempt, l.node, other.Attempt, other.life.node)
		}
		if other.Attempt == r.Attempt {
			f.Errorf("%s: attempt %d starts on %s, and did on %s", r.ID, r.Attempt, l.node, other.life.node)
		}
	}
	f.runs = append(f.runs, r)
	return r
}

// do is what a handler does.
func (r *run) do(ctx context.Context, in push) (string, error) {
	if in.Deaf {
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-time.After(in.Work):
	}
	if r.Attempt <= in.Fails[r.Part] {
		return "", errors.New("boom")
	}
	return fmt.Sprintf("%s by %s, attempt %d", r.Part, r.Node, r.Attempt), nil
}

// of returns the runs of a part, in the order of their starts.
func (f *fleet) of(id, part string) []*run {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*run
	for _, r := range f.runs {
		if r.Parent == id && r.Part == part {
			list = append(list, r)
		}
	}
	return list
}

// startedOn returns the nodes on which parts of a job were started, in order.
func (f *fleet) startedOn(id string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, r := range f.runs {
		if r.Parent == id {
			list = append(list, r.life.node)
		}
	}
	slices.Sort(list)
	return list
}

// broadcast has every node run a part.
func (f *fleet) broadcast(in push, opts engine.BroadcastOptions) string {
	f.Helper()
	b, err := f.job(nil).Broadcast(f.Context(), f.client.Engine, in, opts)
	if err != nil {
		f.Fatal(err)
	}
	return b.ID
}

// shards submits a job in pieces.
func (f *fleet) shards(in push, opts engine.ShardOptions) string {
	f.Helper()
	s, err := f.job(nil).SubmitShards(f.Context(), f.client.Engine, in, opts)
	if err != nil {
		f.Fatal(err)
	}
	return s.ID
}
