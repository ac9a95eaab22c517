package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/nodes"
)

// hand returns the worker's hand in one run: its handlers end with handling, and
// its outcomes are stored until storing ends.
func (w *Worker) hand(node *nodes.Node, handling, storing context.Context) *hand {
	h := &hand{Worker: w, node: node, handling: handling, storing: storing}
	h.in = intake.New(w.eng.work, intake.Options{
		Queues: w.opts.Queues, Slots: w.opts.Slots, Ready: node.Ready,
		Gates: []intake.Gate{w.eng.book.Gate, undrained(node)}, Shape: w.eng.shape, Take: h.receive, Logger: w.log,
	})
	return h
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

// idle waits until nothing is being taken on this node, and nothing lies between
// its delivery and the start of its handler. After a gate was closed for all
// queues nothing starts here once idle has returned nil.
func (e *Engine) idle(ctx context.Context) error {
	e.takers.mu.Lock()
	all := slices.Clone(e.takers.all)
	e.takers.mu.Unlock()
	for _, in := range all {
		if err := in.Idle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
