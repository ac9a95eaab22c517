package engine

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Serve makes this process one that keeps the namespace, until ctx ends: it
// registers as a node, stands for owner, and runs the triggers that are stored. Any number of processes may
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
	g.Go(func() error { return e.stand(serving, member.node.ID(), false) })
	g.Go(func() error { return e.clock.Run(serving) })
	g.Go(func() error { return e.triggers.Serve(serving) })
	err = g.Wait()
	if gone := member.leave(ctx); gone != nil {
		return gone
	}
	return err
}

// Ready reports whether the process can work now: the connection to NATS is
// up, and the node, if there is one, is registered.
func (e *Engine) Ready() bool {
	return e.pub.Conn().IsConnected() && e.member.ready()
}
