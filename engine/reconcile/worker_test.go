package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// slots is how many jobs a worker runs at the same time.
const slots = 100

// worker is a process that runs the jobs of queue q.
type worker struct {
	*process
	w      *world
	link   *natstest.Link
	node   *nodes.Node
	leave  func() // ends the registration
	handle func(context.Context, store.Entry) machine.Event

	mu    sync.Mutex
	runs  map[string]*attempt // by token
	count int
	ends  int // how often it was told to end an attempt
}

type attempt struct {
	job      string
	delivery *streams.Delivery
}

// work runs jobs until the test ends. Each attempt ends with what handle returns.
func (w *world) work(id string, handle func(context.Context, store.Entry) machine.Event) *worker {
	w.Helper()
	k := w.join(id)
	k.handle = handle
	if err := k.Work.Serve(w.Context(), "q", streams.Shape{AckWait: lease}); err != nil {
		w.Fatal(err)
	}
	w.loops(k.pull, k.keepAlive)
	return k
}

// join registers a node that answers, and runs nothing by itself.
func (w *world) join(id string) *worker {
	w.Helper()
	link := w.link()
	k := &worker{process: newProcess(w, publisher(w, link)), w: w, link: link, runs: map[string]*attempt{}}
	k.node = must(nodes.Join(w.Context(), k.pub, nodes.Options{Namespace: ns, ID: id, Lease: lease, Runs: k.Runs, End: k.end, Logger: quiet}))(w)
	k.leave = w.loops(k.node.Run)
	return k
}

// crash ends the process as SIGKILL would.
func (k *worker) crash() {
	k.link.Down()
	k.leave()
}

// pull takes items and runs their jobs until ctx ends.
func (k *worker) pull(ctx context.Context) error {
	puller, err := k.Work.Puller("q", "")
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = puller.Close(closing) // the link may be down
	}()
	var running sync.WaitGroup
	defer running.Wait()
	free := make(chan struct{}, slots)
	for ctx.Err() == nil {
		_, err := puller.Pull(ctx, slots-len(free), 30*time.Second, func(d *streams.Delivery, err error) {
			if err != nil {
				k.w.Error(err)
				return
			}
			free <- struct{}{}
			running.Go(func() { k.run(ctx, d); <-free })
		})
		if errors.Is(err, streams.ErrNoConsumer) {
			err = k.Work.Serve(ctx, "q", streams.Shape{AckWait: lease})
		}
		if err != nil || len(free) == slots {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// run does what a delivery asks for.
func (k *worker) run(ctx context.Context, d *streams.Delivery) {
	k.mu.Lock()
	k.count++
	token := fmt.Sprint(k.node.ID(), " ", k.count)
	k.mu.Unlock()
	entry, ok, err := k.Deliver(ctx, d, token, k)
	if err != nil || !ok {
		return // it comes back
	}
	ev := k.handle(ctx, entry)
	if ev == nil {
		return // the process stops
	}
	_, fate, err := k.Finish(ctx, entry, token, ev)
	k.mu.Lock()
	d = k.runs[token].delivery
	delete(k.runs, token)
	k.mu.Unlock()
	if err == nil && fate.Acknowledge() {
		_ = d.Ack() // it comes back otherwise
	}
}

// keepAlive holds off the redelivery of what runs.
func (k *worker) keepAlive(ctx context.Context) error {
	for every := time.NewTicker(lease / 3); ; {
		select {
		case <-ctx.Done():
			every.Stop()
			return nil
		case <-every.C:
		}
		k.mu.Lock()
		for _, a := range k.runs {
			_ = a.delivery.Progress() // the link may be down
		}
		k.mu.Unlock()
	}
}

// end notes that an attempt is to end.
func (k *worker) end(string, string, string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ends++
}

// told returns how often the node was told to end an attempt.
func (k *worker) told() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ends
}

// Begin implements [store.Runner].
func (k *worker) Begin(job, token string, d *streams.Delivery) (string, uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.runs[token] = &attempt{job, d}
	return k.Identity()
}

// End implements [store.Runner].
func (k *worker) End(_, token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.runs, token)
}

// Runs implements [store.Runner].
func (k *worker) Runs(job, token string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.runs[token] != nil && k.runs[token].job == job
}

// Adopt implements [store.Runner].
func (k *worker) Adopt(job, token string, d *streams.Delivery) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.runs[token] = &attempt{job, d}
}

// Handles implements [store.Runner].
func (k *worker) Handles(string) (int, bool) { return 0, true }

// Identity implements [store.Runner].
func (k *worker) Identity() (string, uint64) { return k.node.ID(), k.node.Incarnation() }

// hold is what the holder of the token of a job says.
func hold(entry store.Entry) machine.Hold {
	return machine.Hold{Token: entry.Value.Lease.Token, At: time.Now().UTC()}
}

// succeed is a handler that takes some time.
func succeed(takes time.Duration) func(context.Context, store.Entry) machine.Event {
	return func(ctx context.Context, entry store.Entry) machine.Event {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(takes):
			return machine.Done{Hold: hold(entry)}
		}
	}
}
