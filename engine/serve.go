package engine

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
)

// Serve makes this process one that keeps the namespace, until ctx ends: it
// registers as a node, stands for owner, judges dead nodes while it is the
// owner, and runs the triggers that are stored. Any number of processes may
// serve; one of them is the owner.
func (e *Engine) Serve(ctx context.Context) error {
	node, ended, leave, err := e.enter(ctx, role{serve: true})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	g, serving := errgroup.WithContext(serving)
	g.Go(func() error {
		select {
		case <-ended:
			return errNodeGone
		case <-serving.Done():
			return nil
		}
	})
	g.Go(func() error {
		opts := nodes.StandOptions{Namespace: e.ns, Node: node.ID(), Lease: e.settings.Lease, Logger: e.log}
		return nodes.Stand(serving, e.pub, opts, e.own)
	})
	g.Go(func() error { return e.runStoredTriggers(serving) })
	return errors.Join(g.Wait(), leave())
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
	if !e.pub.Conn().IsConnected() {
		return false
	}
	e.member.mu.Lock()
	defer e.member.mu.Unlock()
	return e.member.users == 0 || e.member.node.Ready()
}
