package engine

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/reconcile"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/timers"
)

// stand makes this process the owner whenever nobody else is, until ctx ends. A
// deputy is that only while no process serves.
func (e *Engine) stand(ctx context.Context, node string, deputy bool) error {
	opts := timers.StandOptions{Namespace: e.ns, Node: node, Lease: e.settings.Lease, Deputy: deputy, Logger: e.log}
	return timers.Stand(ctx, e.pub, opts, e.own)
}

// own is what the owner does: it judges dead nodes, fires timers and looks for
// jobs that lost what drives them. Two owners at once do no harm.
func (e *Engine) own(ctx context.Context, lease *kv.Lease) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return nodes.NewJudge(e.pub, nodes.JudgeOptions{
			Namespace: e.ns, Lease: e.settings.Lease, Owner: lease, Logger: e.log,
		}).Run(ctx)
	})
	g.Go(func() error {
		return timers.Run(ctx, e.pub, timers.Options{
			Namespace: e.ns, Owner: lease, Clock: e.clock, Logger: e.log, Fire: e.store.Fire,
		})
	})
	g.Go(func() error {
		return reconcile.New(e.pub, reconcile.Options{
			Namespace: e.ns, Owner: lease, Clock: e.clock, Store: e.store, Work: e.work, Timers: e.timers,
			Lease: e.settings.Lease, Logger: e.log,
		}).Run(ctx)
	})
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
