package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/attempt"
	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/engine/triggers"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/nodes"
)

// WorkerOptions configures a [Worker]. The zero value of a field means its
// default.
type WorkerOptions struct {
	// Slots is how many handlers run at once, over all queues. Default 10.
	Slots int
	// Queues are the queues to take jobs from. Default: those of the
	// definitions.
	Queues []string
	// PinnedOnly leaves alone what waits in the queues for whoever has a slot: the
	// worker takes what is pinned to its node, such as the parts of broadcasts, and
	// shards. A fleet of thousands of such workers costs the queues nothing.
	PinnedOnly bool
	// Middleware is around all handlers, the first outermost.
	Middleware []Middleware
	// Grace is how long Run waits at its end for handlers whose context has
	// ended, and for their outcomes to be stored. Default 10s.
	Grace time.Duration
	// NoOwner keeps this process from being the owner, which fires timers,
	// judges dead nodes and looks after jobs. Otherwise it stands for owner
	// while no process serves, see [Engine.Serve].
	NoOwner bool
}

func (o WorkerOptions) withDefaults() WorkerOptions {
	if o.Slots == 0 {
		o.Slots = 10
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	return o
}

func (o WorkerOptions) validate() error {
	var errs []error
	if o.Slots < 0 {
		errs = append(errs, fmt.Errorf("engine: worker: slots is %d: use 1 or more", o.Slots))
	}
	if o.Grace < 0 {
		errs = append(errs, fmt.Errorf("engine: worker: grace is %v: use a positive one", o.Grace))
	}
	for _, queue := range o.Queues {
		errs = append(errs, name.Check("queue", queue))
	}
	return errors.Join(errs...)
}

// Worker runs the jobs of the definitions that it was given.
type Worker struct {
	eng      *Engine
	opts     WorkerOptions
	kinds    map[string]attempt.Kind
	queues   []string // of their definitions
	triggers []triggers.Rule
	ending   *ending // how it was asked to end
}

// Worker returns a worker for the given definitions. It does nothing before
// [Worker.Run].
func (e *Engine) Worker(opts WorkerOptions, defs ...Definition) (*Worker, error) {
	o := opts.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	w := &Worker{eng: e, opts: o, kinds: map[string]attempt.Kind{}, ending: newEnding()}
	var errs []error
	for _, def := range defs {
		errs = append(errs, def.register(w))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(w.opts.Queues) == 0 {
		slices.Sort(w.queues)
		w.opts.Queues = slices.Compact(w.queues)
	}
	return w, nil
}

func (w *Worker) add(d *definition) error {
	if _, twice := w.kinds[d.kind]; twice {
		return fmt.Errorf("engine: worker: kind %s has two handlers", d.kind)
	}
	w.kinds[d.kind] = attempt.Kind{
		Handle:      attempt.Wrap(d.handle, w.eng.metrics, slices.Concat(w.opts.Middleware, d.opts.Middleware)...),
		MaxAttempts: d.opts.MaxAttempts, Timeout: d.opts.Timeout, Heartbeat: d.opts.Heartbeat, Retry: d.opts.Retry,
	}
	w.queues = append(w.queues, d.opts.Queue)
	return nil
}

// Run takes jobs and runs them until ctx ends. Then it takes no more, hands
// back what has not started, ends the contexts of its handlers with
// [ErrStopping], and waits for them and their outcomes for the grace period. It
// returns nil then, or an error if handlers were left. [Worker.Drain] ends it
// without ending the handlers.
//
// While NATS is away it keeps what it has and resumes on its return. It ends by
// itself only if the node's ID is taken by another process.
func (w *Worker) Run(ctx context.Context) error {
	defer w.ending.begin()()
	entering, entered := w.untilDrained(ctx)
	defer entered()
	member, err := w.eng.enter(entering, role{
		kinds: slices.Collect(maps.Keys(w.kinds)), queues: w.opts.Queues, pinnedOnly: w.opts.PinnedOnly, slots: w.opts.Slots,
	})
	if err != nil {
		return w.unlessDrained(entering, err)
	}
	if err := w.eng.triggers.Prepare(entering, w.triggers); err != nil {
		return both(w.unlessDrained(entering, err), member.leave(ctx))
	}
	working, stop := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-member.ended:
			stop(errNodeGone)
		case <-working.Done():
		}
	}()
	err = w.run(working, member)
	stop(nil)
	<-watched
	return both(err, member.leave(ctx))
}

// both returns two errors as one, in one line.
func both(a, b error) error {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	return fmt.Errorf("%w; %w", a, b)
}

// run has four lives, one inside the other: items are taken until ctx ends or
// the worker is drained; everything else that a worker does goes on until ctx
// ends or the handlers of a drained one have returned; handlers run until then,
// and their outcomes are stored until the grace ends; deliveries are kept alive
// until nobody has one.
func (w *Worker) run(ctx context.Context, member *membership) error {
	alive, dead := context.WithCancel(context.WithoutCancel(ctx))
	keeping := make(chan struct{})
	go func() {
		defer close(keeping)
		w.eng.running.KeepAlive(alive)
	}()

	handling, halt := context.WithCancelCause(alive)
	attempts := w.attempts(handling, alive, member.node)
	in := w.intake(attempts, member.node)
	defer w.eng.takes(in)()
	working, stop := context.WithCancelCause(ctx)
	var others errgroup.Group
	w.look(working, &others, member.node)

	taking, stopTaking := w.untilDrained(ctx)
	err := in.Run(taking)
	<-taking.Done() // also if there are no queues
	if w.ending.drained() && ctx.Err() == nil {
		others.Go(func() error { member.drain(working); return nil })
		w.awaitDrained(ctx, attempts)
	}
	stopTaking()
	stop(ErrStopping)
	err = both(err, others.Wait())
	halt(ErrStopping)
	err = both(err, w.await(attempts))
	dead()
	<-keeping
	return err
}

// attempts returns what runs jobs in one run of the worker.
func (w *Worker) attempts(handling, storing context.Context, node *nodes.Node) *attempt.Runner {
	e := w.eng
	return attempt.New(handling, storing, attempt.Options{
		Namespace: e.ns, Node: node, Kinds: w.kinds, Store: e.store, Logs: e.logs, Clock: e.clock,
		Running: e.running, Metrics: e.metrics, Logger: e.log,
	})
}

// intake returns what takes items for them.
func (w *Worker) intake(attempts *attempt.Runner, node *nodes.Node) *intake.Intake {
	mailbox := node.ID()
	if len(w.opts.Queues) == 0 {
		mailbox = "" // nothing of it is for this worker
	}
	return intake.New(w.eng.work, intake.Options{
		Queues: w.opts.Queues, Mailbox: mailbox, MailOnly: w.opts.PinnedOnly, Slots: w.opts.Slots, Ready: node.Ready,
		Gates: []intake.Gate{w.eng.book.Gate, undrained(node)}, Shape: w.eng.shape, Take: attempts.Take, Logger: w.eng.log,
	})
}

// look starts what a worker looks after besides jobs, until ctx ends: events,
// the server's clock, the definitions of queues, and what the owner does.
func (w *Worker) look(ctx context.Context, g *errgroup.Group, node *nodes.Node) {
	for _, trigger := range w.triggers {
		g.Go(func() error { return w.eng.triggers.Run(ctx, trigger) })
	}
	g.Go(func() error { return w.eng.triggers.StandIn(ctx) })
	g.Go(func() error { return w.eng.clock.Run(ctx) })
	g.Go(func() error { return w.eng.book.Run(ctx) })
	if !w.opts.NoOwner {
		g.Go(func() error { return w.eng.stand(ctx, node.ID(), true) })
	}
}

// await waits for the attempts under way, but no longer than the grace.
func (w *Worker) await(attempts *attempt.Runner) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		attempts.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-time.After(w.opts.Grace):
		return fmt.Errorf("engine: worker: handlers did not end, or their outcomes could not be stored, within %v: their jobs will run again elsewhere", w.opts.Grace)
	}
}
