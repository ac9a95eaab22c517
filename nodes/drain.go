package nodes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/kv"
)

// A node that was asked to drain takes nothing new, until it is asked to take
// again. That wish lives in the memory of the process, which alone acts on it,
// and is stored in its description, so that it outlives the process: the next
// one under the same ID, if that was given, begins with it. The reply comes when
// the wish is stored and nothing is being taken any more. So, for whoever asked,
//
//	the process dies before it stored the wish   nothing has happened
//	it dies after that, or its answer is lost    it takes nothing, and neither
//	                                             does its successor
//
// and both times asking again settles it, since the wish is what counts and not
// how often it is uttered.

// ErrOffline is returned when a node cannot be asked because it is not there.
var ErrOffline = errors.New("it is offline")

// drainPatience is how long a node may take to answer such a request. It tries
// no longer, since whoever asked asks again.
const drainPatience = 5 * time.Second

// Load is what a node says of itself.
type Load struct {
	Running  int  // how many jobs it runs
	Draining bool // it takes nothing new
}

// Drained reports whether the node was asked to take nothing new, and returns a
// channel that is closed when that changes.
func (n *Node) Drained() (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.info.Drained, n.mu.turned
}

// turn makes the node take nothing new, or take again, from now on, and returns
// how often that has changed.
func (n *Node) turn(drained bool) (turns int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.setDrained(drained)
	return n.mu.turns
}

// adopt begins with the wish that a former process under the same ID has left in
// the description. It has to be called when that process cannot write any more.
func (n *Node) adopt(left Info) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.lease == nil && n.opts.ID != "" {
		n.setDrained(left.Drained)
	}
}

// setDrained changes the wish. The caller holds the lock.
func (n *Node) setDrained(drained bool) {
	if n.mu.info.Drained != drained {
		n.mu.info.Drained = drained
		n.mu.turns++
		close(n.mu.turned)
		n.mu.turned = make(chan struct{})
	}
}

// heed acts on a request to drain or to take again. The request itself is heeded
// at once; its answer, which takes longer, holds up no other one.
func (n *Node) heed(ctx context.Context, msg *nats.Msg, drained bool) {
	turns := n.turn(drained)
	n.opts.Logger.InfoContext(ctx, "node was asked to drain or to take again", "node", n.id, "drained", drained)
	n.heeding.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, drainPatience)
		defer cancel()
		err := n.settle(ctx, drained)
		r := reply{Incarnation: n.held()}
		switch {
		case ctx.Err() != nil || r.Incarnation == 0:
			return // whoever asked asks again
		case err != nil:
			r.Error = err.Error()
		case n.turned() != turns: // it may have taken something between
			r.Error = "somebody asked for the opposite meanwhile"
		}
		n.reply(msg, r)
	})
}

// settle stores the wish and, if that is to drain, waits until nothing is being
// taken any more.
func (n *Node) settle(ctx context.Context, drained bool) error {
	for {
		lease, err := n.registered(ctx)
		if err == nil {
			err = n.describe(ctx, lease)
		}
		if err == nil {
			break
		}
		n.redescribe()
		if !passing(err) && !errors.Is(err, kv.ErrLeaseLost) {
			return fmt.Errorf("this is not stored yet: %w", err)
		}
		if !wait.For(ctx, again) {
			return context.Cause(ctx)
		}
	}
	if drained {
		return n.opts.Settle(ctx)
	}
	return nil
}

// turned returns how often the wish has changed.
func (n *Node) turned() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.turns
}

// Drain asks a node to take nothing new, and returns when it has stored that and
// takes nothing any more: nothing starts there from then on, also after a new
// start under the same ID, until [Asker.Undrain]. It asks until it is answered,
// or ctx ends. It returns [ErrOffline] if the node is not there.
func (a *Asker) Drain(ctx context.Context, node string) error {
	return a.order(ctx, node, doDrain)
}

// Undrain asks a node to take again. It returns when the node has stored that,
// or [ErrOffline] if it is not there.
func (a *Asker) Undrain(ctx context.Context, node string) error {
	return a.order(ctx, node, doUndrain)
}

// order makes a request until it is answered, or the node is gone.
func (a *Asker) order(ctx context.Context, node, do string) error {
	_, err := a.insist(ctx, node, request{Do: do}, drainPatience)
	if err != nil {
		return fmt.Errorf("nodes: %s node %s: %w", do, node, err)
	}
	return nil
}

// Load asks a node what it runs. It asks until it is answered, or ctx ends. It
// returns [ErrOffline] if the node is not there.
func (a *Asker) Load(ctx context.Context, node string) (Load, error) {
	r, err := a.insist(ctx, node, request{Do: doAlive}, patience)
	if err != nil {
		return Load{}, fmt.Errorf("nodes: ask node %s for its load: %w", node, err)
	}
	return Load{Running: r.Running, Draining: r.Draining}, nil
}

// insist makes a request until a registered process answers it. A node that was
// silent once is looked for: it may be about to connect, or gone.
func (a *Asker) insist(ctx context.Context, node string, req request, patience time.Duration) (reply, error) {
	if err := name.Check("node", node); err != nil {
		return reply{}, err
	}
	for {
		r, err := call(ctx, a.nc, a.ns.CtlSubject(node), req, patience)
		switch {
		case err == nil && r.Incarnation != 0:
			return r, nil
		case errors.Is(err, errRefused):
			return reply{}, err
		case errors.Is(err, errSilent):
			if err := a.mustBeThere(ctx, node); err != nil {
				return reply{}, err
			}
		}
		if !wait.For(ctx, again) {
			return reply{}, context.Cause(ctx)
		}
	}
}

// mustBeThere returns [ErrOffline] if the leader knows no beat of a node. If
// that cannot be found out now, it returns nothing.
func (a *Asker) mustBeThere(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := a.beats.Get(ctx, beatKey(node)); !errors.Is(err, kv.ErrNotFound) {
		return nil
	}
	info, err := a.infos.Get(ctx, infoKey(node))
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return fmt.Errorf("%w, and has not been there within the last day: check its ID", ErrOffline)
	case err != nil:
		return nil
	case info.Value.Drained:
		return fmt.Errorf("%w, and was asked to drain before: it takes nothing if it comes back within a day", ErrOffline)
	}
	return fmt.Errorf("%w: it takes nothing while it is, and does when it comes back", ErrOffline)
}
