package engine

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/broadcast"
	"github.com/millrace/millrace/engine/reconcile"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/timers"
	"github.com/millrace/millrace/timers/scheduler"
)

// Serve makes this process one that keeps the namespace, until ctx ends: it
// registers as a node, stands for owner, and runs the triggers that are stored.
// Any number of processes may serve; one of them is the owner.
func (e *Engine) Serve(ctx context.Context) error {
	member, err := e.enter(ctx, role{serve: true})
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return nil // asked to stop before it was there
	case err != nil:
		return err
	}
	serving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	g, serving := errgroup.WithContext(serving)
	g.Go(func() error {
		select {
		case <-member.ended:
			return errNodeGone
		case <-serving.Done():
			return nil
		}
	})
	g.Go(func() error { return e.stand(serving, member.node.ID(), false) })
	g.Go(func() error { return e.clock.Run(serving) })
	g.Go(func() error { return e.book.Run(serving) })
	g.Go(func() error { return e.triggers.Serve(serving) })
	err = g.Wait()
	if gone := member.leave(ctx); gone != nil {
		return gone
	}
	return err
}

// stand makes this process the owner whenever nobody else is, until ctx ends. A
// deputy is that only while no process serves.
func (e *Engine) stand(ctx context.Context, node string, deputy bool) error {
	opts := timers.StandOptions{Namespace: e.ns, Node: node, Lease: e.settings.Lease, Deputy: deputy, Logger: e.log}
	return timers.Stand(ctx, e.pub, opts, e.own)
}

// own is what the owner does: it judges dead nodes, fires timers, lets schedules
// tick, looks for jobs that lost what drives them, and counts the children of those
// that wait. Two owners at once do no harm.
func (e *Engine) own(ctx context.Context, lease *kv.Lease) error {
	g, ctx := errgroup.WithContext(ctx)
	ticker := scheduler.New(e.pub, scheduler.Options{
		Namespace: e.ns, Owner: lease, Clock: e.clock, Store: e.store, Logger: e.log,
	})
	var keeper *broadcast.Keeper
	reconciler := reconcile.New(e.pub, reconcile.Options{
		Namespace: e.ns, Owner: lease, Clock: e.clock, Store: e.store, Work: e.work, Timers: e.timers,
		Lease: e.settings.Lease, Shape: e.shape, Members: e.members,
		Waiting: func(id string) { keeper.Seen(id) }, Turn: ticker.Wants,
		Healed: e.healed, Logger: e.log,
	})
	keeper = broadcast.New(e.pub, broadcast.Options{
		Namespace: e.ns, Owner: lease, Store: e.store, Asker: nodes.NewAsker(e.pub, e.ns),
		Stranded: reconciler.Look, Logger: e.log,
	})
	verdict := func() { reconciler.Wake(); keeper.Verdict() }
	g.Go(func() error {
		return nodes.NewJudge(e.pub, nodes.JudgeOptions{
			Namespace: e.ns, Lease: e.settings.Lease, Owner: lease, Verdict: verdict, Logger: e.log,
		}).Run(ctx)
	})
	g.Go(func() error {
		return timers.Run(ctx, e.pub, timers.Options{
			Namespace: e.ns, Owner: lease, Clock: e.clock, Logger: e.log, Fire: e.store.Fire,
		})
	})
	g.Go(func() error { return keeper.Run(ctx) })
	g.Go(func() error { return ticker.Run(ctx) })
	g.Go(func() error { return reconciler.Run(ctx) })
	e.owner.Store(reconciler)
	defer e.owner.CompareAndSwap(reconciler, nil)
	return g.Wait()
}

// Healed is what the owner found and healed when it was asked to look, see
// [Engine.Reconcile].
type Healed = reconcile.Report

// Reconcile asks the owner to look at every job now, and returns what it found
// that had lost what drives it. The owner does so by itself all the time; a
// healthy system heals nothing. Jobs that moved within the last ten seconds are
// not looked at.
func (e *Engine) Reconcile(ctx context.Context) (Healed, error) {
	return reconcile.Ask(ctx, e.pub, e.ns)
}

// Ready reports whether the process can work now: the connection to NATS is
// up, and the node, if there is one, is registered.
func (e *Engine) Ready() bool {
	return e.pub.Conn().IsConnected() && e.member.ready()
}

// Joined reports whether the process is ready as a node, that is since it serves or
// runs a worker: what the readiness of such a process is.
func (e *Engine) Joined() bool { return e.Ready() && e.member.used() }
