package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/attempt"
	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/nodes"
)

// errDrained is why a worker takes no more.
var errDrained = errors.New("engine: the worker is drained")

// ending is how a worker was asked to end, in two steps that cannot be undone.
type ending struct {
	drain chan struct{} // closed when it is to take no more
	hurry chan struct{} // closed when it is not to wait for its handlers either

	mu   sync.Mutex
	runs int           // how often it runs: once, as a rule
	idle chan struct{} // closed when it does not run
}

func newEnding() *ending {
	e := &ending{drain: make(chan struct{}), hurry: make(chan struct{}), idle: make(chan struct{})}
	close(e.idle)
	return e
}

// begin notes a run, until the function that it returns is called.
func (e *ending) begin() (end func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.runs++; e.runs == 1 {
		e.idle = make(chan struct{})
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.runs--; e.runs == 0 {
			close(e.idle)
		}
	}
}

// ask closes one of the two channels that ask, if it is open, and returns the
// one that says when the worker does not run any more.
func (e *ending) ask(how chan struct{}) (idle <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-how:
	default:
		close(how)
	}
	return e.idle
}

func (e *ending) drained() bool {
	select {
	case <-e.drain:
		return true
	default:
		return false
	}
}

// Drain ends [Worker.Run] without ending handlers: the worker takes no more,
// hands back what has not started, so that other workers have it at once, and
// waits for as long as its handlers run and their outcomes are not stored. Run
// returns nil then, and so does Drain. Meanwhile the process stays a node, which
// others see drain, and goes on being the owner if it is.
//
// If ctx ends before, Run goes on as when its own context ended: the handlers'
// contexts end with [ErrStopping], and it waits for the grace period. Drain waits
// for that, too, and returns why ctx ended.
//
// A worker that was drained never takes again. To stop the workers of a node for
// some time, or from elsewhere, see [Engine.Drain].
func (w *Worker) Drain(ctx context.Context) error {
	ended := w.ending.ask(w.ending.drain)
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	<-w.ending.ask(w.ending.hurry)
	return context.Cause(ctx)
}

// untilDrained returns a context that ends with ctx, or when the worker is
// drained. The caller calls stop when it does not need it any more.
func (w *Worker) untilDrained(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-w.ending.drain:
			cancel(errDrained)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil); <-ended }
}

// unlessDrained returns err, or nothing if it came of the end of a context that
// untilDrained made: a worker that was drained has nothing to start.
func (w *Worker) unlessDrained(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errDrained) {
		return nil
	}
	return err
}

// awaitDrained waits until no attempt is left, ctx ends, or somebody is in a
// hurry.
func (w *Worker) awaitDrained(ctx context.Context, attempts *attempt.Runner) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		attempts.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	case <-w.ending.hurry:
	}
}

// undrained is the gate of a node that can be asked to take nothing, see
// [Engine.Drain].
func undrained(node *nodes.Node) intake.Gate {
	return func(string) (open bool, changed <-chan struct{}) {
		drained, changed := node.Drained()
		return !drained, changed
	}
}

// takers are the intakes of the workers that run on this node.
type takers struct {
	mu  sync.Mutex
	all []*intake.Intake
}

// takes notes an intake, until the function that it returns is called.
func (e *Engine) takes(in *intake.Intake) (end func()) {
	t := &e.takers
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, in)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.all = slices.DeleteFunc(t.all, func(other *intake.Intake) bool { return other == in })
	}
}

// list returns the intakes there are.
func (t *takers) list() []*intake.Intake {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.all)
}

// lookForMail has the workers of this node look into its mailbox.
func (e *Engine) lookForMail() {
	for _, in := range e.takers.list() {
		in.Look()
	}
}

// idle waits until nothing is being taken on this node, and nothing lies between
// its delivery and the start of its handler. After a gate was closed for all
// queues nothing starts here once idle has returned nil.
func (e *Engine) idle(ctx context.Context) error {
	for _, in := range e.takers.list() {
		if err := in.Idle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Drain asks a node to take no more jobs, and returns when it has stored that and
// takes none any more: it has handed back what had not started, and nothing
// starts there from then on. What runs there goes on, see [Engine.AwaitIdle]; the
// node keeps its lease, and goes on serving and being the owner if it does. It
// stays drained until [Engine.Undrain], also when it starts again under an ID
// that it was given, within a day.
//
// Drain asks until it is answered, or ctx ends: whether the node is drained is
// not known then, and asking again settles it. It returns [ErrOffline] for a node
// that is not there.
func (e *Engine) Drain(ctx context.Context, node string) error {
	return nodes.NewAsker(e.pub, e.ns).Drain(ctx, node)
}

// Undrain asks a node that was drained by [Engine.Drain] to take jobs again, and
// returns when it has stored that. It does nothing to one that was not.
func (e *Engine) Undrain(ctx context.Context, node string) error {
	return nodes.NewAsker(e.pub, e.ns).Undrain(ctx, node)
}

// idleLook is how often a drained node is asked whether it still runs something.
const idleLook = 250 * time.Millisecond

// AwaitIdle waits until a drained node runs nothing any more and the outcomes of
// what ran are stored, or until it is gone. It returns an error if ctx ends
// before, or if the node takes again.
func (e *Engine) AwaitIdle(ctx context.Context, node string) error {
	asker := nodes.NewAsker(e.pub, e.ns)
	for {
		load, err := asker.Load(ctx, node)
		switch {
		case errors.Is(err, nodes.ErrOffline):
			return nil
		case err != nil:
			return fmt.Errorf("engine: wait until node %s is idle: %w", node, err)
		case !load.Draining:
			return fmt.Errorf("engine: wait until node %s is idle: it takes jobs: drain it first", node)
		case load.Running == 0:
			return nil
		}
		wait.For(ctx, idleLook)
	}
}
