package store_test

import (
	"context"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// process is a node with a store in a process of its own, as far as NATS can
// tell. It takes deliveries of queue q, and runs what it is told to run.
type process struct {
	*store.Store
	w      *world
	link   *natstest.Link
	pub    *publish.Publisher
	work   *streams.Work
	node   *nodes.Node
	leave  func()
	puller *streams.Puller

	// snapshot is what it finds when a delayed job with children is due.
	snapshot func() ([]machine.Share, error)
	// declines is what the schedules say of their jobs; nil: they all run.
	declines func(machine.Job) (*machine.Declined, error)

	mu      sync.Mutex
	fates   []fate
	tells   []string // attempts that it was told to end
	kinds   map[string]int
	runs    map[string]string            // token → job
	ended   map[string]int               // token → how often
	adopted map[string]*streams.Delivery // by token
}

// fate is what shall happen to the next write on a subject.
type fate struct {
	filter string
	fault  natstest.Fault
}

// process starts a node under an ID. It has handlers for kind k.
func (w *world) process(id string) *process {
	w.Helper()
	p := &process{w: w, kinds: map[string]int{"q.k": 0}, runs: map[string]string{}, ended: map[string]int{}, adopted: map[string]*streams.Delivery{}}
	p.link = natstest.NewLink(w, w.srv, p.decide, slices.Concat(writes, []string{answers, itemReads})...)
	nc := p.link.Connect(w, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	p.pub = must(publish.New(nc))(w)
	w.Cleanup(p.pub.Close)
	p.work = must(streams.NewWork(ns, p.pub))(w)
	clock := streams.NewClock(ns, p.pub)
	if err := clock.Measure(w.Context()); err != nil {
		w.Fatal(err)
	}
	assets := store.Assets{
		Work: p.work, Timers: must(streams.NewTimers(ns, p.pub))(w), Limits: streams.NewLimits(ns, p.pub),
		Clock: clock, Asker: nodes.NewAsker(p.pub, ns),
	}
	opts := store.Options{Namespace: ns, Lease: lease, Logger: quiet, Declines: func(_ context.Context, j machine.Job) (*machine.Declined, error) {
		if p.declines == nil {
			return nil, nil
		}
		return p.declines(j)
	}}
	if !w.blind {
		opts.Snapshot = func(context.Context, machine.Job) ([]machine.Share, error) { return p.snapshot() }
	}
	p.Store = store.Open(p.pub, assets, opts)
	p.join(id)
	if err := p.work.Serve(w.Context(), "q", streams.Shape{AckWait: lease}); err != nil {
		w.Fatal(err)
	}
	p.puller = must(p.work.Puller("q", ""))(w)
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), time.Second)
		defer cancel()
		if err := p.puller.Close(ctx); err != nil {
			w.Log(err) // it may have crashed
		}
	})
	return p
}

// join registers the node and keeps it registered until leave is called.
func (p *process) join(id string) {
	p.w.Helper()
	p.node = must(nodes.Join(p.w.Context(), p.pub, nodes.Options{Namespace: ns, ID: id, Lease: lease, Runs: p.Runs, End: p.told, Logger: quiet}))(p.w)
	p.leave = p.w.loop(p.node.Run)
}

// told notes that an attempt is to end.
func (p *process) told(job, token, _ string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tells = append(p.tells, job+" "+token)
}

// toldToEnd reports whether the node was told to end an attempt.
func (p *process) toldToEnd(job, token string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.tells, job+" "+token)
}

// crash ends the process as SIGKILL would.
func (p *process) crash() {
	p.link.Down()
	p.leave()
}

// fail decides the fate of the next write on a subject that matches filter.
func (p *process) fail(filter string, fault natstest.Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fates = append(p.fates, fate{filter, fault})
}

// failNth decides the fate of the n-th write from now on, from 1.
func (p *process) failNth(n int, fault natstest.Fault) {
	for range n - 1 {
		p.fail(">", natstest.Pass)
	}
	p.fail(">", fault)
}

func (p *process) decide(write natstest.Write) natstest.Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, f := range p.fates {
		if server.SubjectMatchesFilter(write.Subject, f.filter) {
			p.fates = slices.Delete(p.fates, i, i+1)
			return f.fault
		}
	}
	return natstest.Pass
}

// writes returns what the process wrote on subjects that match filter.
func (p *process) writes(filter string) (list []natstest.Write) {
	for _, write := range p.link.Writes() {
		if server.SubjectMatchesFilter(write.Subject, filter) {
			list = append(list, write)
		}
	}
	return list
}

// take waits for the next item of the queue.
func (p *process) take() *streams.Delivery {
	p.w.Helper()
	d := p.takeWithin(time.Minute)
	if d == nil {
		p.w.Fatal("no item came within a minute")
	}
	return d
}

// takeWithin returns the next item of the queue, or nil if none comes.
func (p *process) takeWithin(wait time.Duration) (taken *streams.Delivery) {
	p.w.Helper()
	for start := time.Now(); taken == nil && time.Since(start) < wait; {
		_, err := p.puller.Pull(p.w.Context(), 1, wait, func(d *streams.Delivery, err error) {
			if err != nil {
				p.w.Error(err)
			}
			taken = d
		})
		if err != nil {
			p.w.Fatal(err)
		}
	}
	return taken
}

// deliver does with a delivery what the table says, under a token.
func (p *process) deliver(d *streams.Delivery, token string) (store.Entry, bool) {
	p.w.Helper()
	entry, ok, err := p.Deliver(p.w.Context(), d, token, p)
	if err != nil {
		p.w.Errorf("deliver %s.%s: %v", d.Queue, d.Local, err)
	}
	return entry, ok
}

// start takes the next item and runs its job, under a token.
func (p *process) start(token string) (store.Entry, *streams.Delivery) {
	p.w.Helper()
	d := p.take()
	entry, ok := p.deliver(d, token)
	if !ok {
		p.w.Fatalf("job %s does not run here", entry.Key)
	}
	return entry, d
}

// begin takes items until one leads to an attempt, under a token.
func (p *process) begin(token string) (store.Entry, *streams.Delivery) {
	p.w.Helper()
	for range 100 {
		d := p.take()
		if entry, ok := p.deliver(d, token); ok {
			return entry, d
		}
	}
	p.w.Fatal("no job runs here")
	return store.Entry{}, nil
}

// runOnce waits for the next attempt, under a token, and lets it succeed. When
// everything that was under way has come, nothing is left.
func (p *process) runOnce(token string) {
	p.w.Helper()
	entry, d := p.begin(token)
	p.finish(entry, token, done(token), d)
	time.Sleep(longGone)
	p.settle()
	p.w.wantItems(entry.Key, 0)
	p.w.wantTimers(entry.Key)
}

// die runs f, which ends as the process does, at a fault that was decided.
func (p *process) die(f func(context.Context)) {
	p.w.Helper()
	stop := p.w.loop(func(ctx context.Context) error { f(ctx); return nil })
	for start := time.Now(); p.pending() > 0; time.Sleep(time.Second / 10) {
		if time.Since(start) > time.Minute {
			p.w.Fatal("the process lives on")
		}
	}
	synctest.Wait()
	stop()
	p.leave()
}

// pending returns how many fates are still to come.
func (p *process) pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.fates)
}

// forget loses the memory of an attempt.
func (p *process) forget(token string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.runs, token)
}

// Identity implements [store.Runner].
func (p *process) Identity() (string, uint64) { return p.node.ID(), p.node.Incarnation() }

// Begin implements [store.Runner].
func (p *process) Begin(job, token string, _ *streams.Delivery) (string, uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.runs[token] = job
	return p.Identity()
}

// End implements [store.Runner].
func (p *process) End(_, token string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.runs, token)
	p.ended[token]++
}

// ends returns how often the node ended what runs under a token.
func (p *process) ends(token string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended[token]
}

// Runs implements [store.Runner].
func (p *process) Runs(job, token string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runs[token] == job
}

// Adopt implements [store.Runner].
func (p *process) Adopt(_, token string, d *streams.Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.adopted[token] = d
}

// adoptedBy returns the delivery that the attempt under a token has adopted.
func (p *process) adoptedBy(token string) *streams.Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.adopted[token]
}

// Handles implements [store.Runner].
func (p *process) Handles(kind string) (int, bool) {
	limit, ok := p.kinds[kind]
	return limit, ok
}

// timer returns a timer of a job, as it is stored.
func (p *process) timer(id, purpose string) streams.Timer {
	p.w.Helper()
	stream := must(p.w.js.Stream(p.w.Context(), ns.TimerStream()))(p.w)
	msg := must(stream.GetLastMsgForSubject(p.w.Context(), "mr.default.timer.*."+purpose+"."+id))(p.w)
	return must(p.Timers.Get(p.w.Context(), msg.Sequence))(p.w)
}

// cancelTimer takes a timer away.
func (p *process) cancelTimer(timer streams.Timer) {
	p.w.Helper()
	if err := p.Timers.Cancel(p.w.Context(), timer); err != nil {
		p.w.Fatal(err)
	}
}

// claims is the claim of the node, under a token. It runs the job.
func (p *process) claims(token string) machine.Event {
	node, incarnation := p.Begin("q.1", token, nil)
	return claimed(node, incarnation, token)
}

// job returns the record of a new job of queue q.
func job(local string) machine.Job {
	return machine.Job{ID: "q." + local, Kind: "q.k", State: machine.Pending, Created: time.Now().UTC()}
}

// submit creates a job and offers it.
func (p *process) submit(j machine.Job) store.Entry {
	p.w.Helper()
	entry, created, err := p.Submit(p.w.Context(), j)
	if err != nil || !created {
		p.w.Fatalf("submit %s: created %v, %v", j.ID, created, err)
	}
	return entry
}

// again offers a job once more, as it is stored or as it was.
func (p *process) again(entry store.Entry) {
	p.w.Helper()
	queue, local, _ := name.SplitJobID(entry.Key)
	_, record, err := store.Codec().Encode(entry.Value)
	if err == nil {
		err = p.work.Offer(p.w.Context(), streams.Item{Queue: queue, Local: local, Record: record, Revision: entry.Revision})
	}
	if err != nil {
		p.w.Fatal(err)
	}
}

// hold is what the holder of a token says now.
func hold(token string) machine.Hold { return machine.Hold{Token: token, At: time.Now().UTC()} }

// done is the success of the attempt under a token.
func done(token string) machine.Event {
	return machine.Done{Hold: hold(token), Result: []byte(`"ok"`)}
}

// erred is the failure of the attempt under a token. The next one is due soon.
func erred(token string) machine.Event {
	return machine.Erred{Hold: hold(token), Error: machine.Error{Message: "boom"}, After: soon}
}

// finish stores an outcome and acknowledges as the fate says.
func (p *process) finish(entry store.Entry, token string, ev machine.Event, d *streams.Delivery) store.Fate {
	p.w.Helper()
	_, fate, err := p.Finish(p.w.Context(), entry, token, ev)
	if err == nil && fate.Acknowledge() {
		err = d.Ack()
	}
	p.forget(token)
	if err != nil {
		p.w.Errorf("finish %s: %v", entry.Key, err)
	}
	return fate
}
