package engine

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/timers"
)

// Serve makes this process one that keeps the namespace, until ctx ends: it
// registers as a node, stands for owner, judges dead nodes while it is the
// owner, and runs the triggers that are stored. Any number of processes may
// serve; one of them is the owner.
func (e *Engine) Serve(ctx context.Context) error {
	member, err := e.enter(ctx, role{serve: true})
	if err != nil {
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
	g.Go(func() error {
		opts := timers.StandOptions{Namespace: e.ns, Node: member.node.ID(), Lease: e.settings.Lease, Logger: e.log}
		return timers.Stand(serving, e.pub, opts, e.own)
	})
	g.Go(func() error { return e.triggers.Serve(serving) })
	err = g.Wait()
	if gone := member.leave(ctx); gone != nil {
		return gone
	}
	return err
}

// own is what the owner does.
func (e *Engine) own(ctx context.Context, lease *kv.Lease) error {
	return nodes.NewJudge(e.pub, nodes.JudgeOptions{
		Namespace: e.ns, Lease: e.settings.Lease, Owner: lease, Logger: e.log,
	}).Run(ctx)
}

// Ready reports whether the process can work now: the connection to NATS is
// up, and the node, if there is one, is registered.
func (e *Engine) Ready() bool {
	return e.pub.Conn().IsConnected() && e.member.ready()
}
