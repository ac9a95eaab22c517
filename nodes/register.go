package nodes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/kv"
)

// again is the pause before something that failed is tried once more.
const again = 250 * time.Millisecond

// enter registers for the first time.
func (n *Node) enter(ctx context.Context) error {
	for failures := 0; ; {
		if n.opts.ID == "" {
			n.id = defaultID(n.opts.Info.Host)
		}
		err := n.register(ctx)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, kv.ErrHeld):
			if n.opts.ID == "" {
				continue // with other random characters
			}
			if err = n.awaitFree(ctx); err == nil {
				continue
			}
		}
		if !passing(err) {
			return err
		}
		if failures++; failures == 1 {
			n.opts.Logger.WarnContext(ctx, "cannot register yet", "node", n.id, "err", err)
		}
		if !wait.For(ctx, again) {
			return context.Cause(ctx)
		}
	}
}

// awaitFree waits until nobody holds the ID, or its vigil is over, so that
// register takes it. It returns ErrTaken as soon as it sees the key renewed.
func (n *Node) awaitFree(ctx context.Context) error {
	var first kv.Entry[kv.Held]
	for {
		cur, err := n.beats.Get(ctx, beatKey(n.id))
		switch {
		case errors.Is(err, kv.ErrNotFound):
			return nil
		case err != nil:
			return err
		case first.Revision == 0:
			first = cur
			n.opts.Logger.InfoContext(ctx, "waiting for the ID of the node to be free", "node", n.id, "holder", cur.Value.Holder)
		case cur.Revision != first.Revision:
			return fmt.Errorf("%w, %s, which is alive: stop that one or choose another ID", ErrTaken, cur.Value.Holder)
		}
		if n.vigil.Over(cur.Revision, n.opts.Lease) {
			return nil
		}
		if !wait.For(ctx, again) {
			return context.Cause(ctx)
		}
	}
}

// keepRegistered renews the lease, and registers again when it is lost, until
// ctx ends.
func (n *Node) keepRegistered(ctx context.Context) error {
	for {
		err := n.current().Keep(ctx)
		if ctx.Err() != nil {
			return nil
		}
		n.opts.Lost()
		n.opts.Logger.WarnContext(ctx, "lease lost, registering again", "node", n.id, "incarnation", n.Incarnation(), "err", err)
		if err := n.registerAgain(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// registerAgain tries until it is registered or ctx ends. It returns an error
// only if the ID belongs to another process.
func (n *Node) registerAgain(ctx context.Context) error {
	for failures := 1; ; failures++ {
		err := n.register(ctx)
		switch {
		case err == nil, ctx.Err() != nil:
			return nil
		case errors.Is(err, kv.ErrHeld):
			return fmt.Errorf("nodes: register %s again: %w: stop one of the two (%w)", n.id, ErrTaken, err)
		case failures == 1:
			n.opts.Logger.WarnContext(ctx, "cannot register yet", "node", n.id, "err", err)
		}
		wait.For(ctx, again) // register finds out that ctx has ended
	}
}

// register takes the lease and then stores the description, all of which has to
// happen before anything is claimed: see the package comment. It returns
// kv.ErrHeld if the ID belongs to another process.
func (n *Node) register(ctx context.Context) error {
	opts := kv.LeaseOptions{TTL: n.opts.Lease, Mine: true, Vigil: &n.vigil, Logger: n.opts.Logger}
	lease, err := kv.Take(ctx, n.beats, beatKey(n.id), n.holder, opts)
	if err != nil {
		return err
	}
	for err = n.describe(ctx, lease); err != nil; err = n.describe(ctx, lease) {
		if !lease.Valid() || !passing(err) {
			return errors.Join(err, giveUp(ctx, lease))
		}
		if !wait.For(ctx, again) {
			return errors.Join(context.Cause(ctx), giveUp(ctx, lease))
		}
	}
	n.mu.Lock()
	n.mu.lease = lease
	close(n.mu.next)
	n.mu.next = make(chan struct{})
	n.mu.Unlock()
	n.opts.Logger.InfoContext(ctx, "node registered", "node", n.id, "incarnation", lease.Epoch())
	return nil
}

// giveUp releases a lease, also if ctx has ended, but does not wait for NATS: the
// key expires.
func giveUp(ctx context.Context, lease *kv.Lease) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	return lease.Release(ctx)
}

// keepDescribed stores the description every few hours, and soon after storing
// it has failed.
func (n *Node) keepDescribed(ctx context.Context) {
	due := time.NewTimer(refreshEvery)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.stale:
		case <-due.C:
		}
		wait := refreshEvery
		lease := n.current()
		if err := n.describe(ctx, lease); err != nil && lease.Valid() { // otherwise, register does it
			wait = n.opts.Lease / 3
		}
		due.Reset(wait)
	}
}

// describe stores the description, as long as lease is held: whoever does not
// hold the beat does not describe the node.
func (n *Node) describe(ctx context.Context, lease *kv.Lease) error {
	if !lease.Valid() {
		return kv.ErrLeaseLost
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(lease.Context(), func() { cancel(context.Cause(lease.Context())) })()

	if n.writing.Acquire(ctx, 1) != nil {
		return context.Cause(ctx)
	}
	defer n.writing.Release(1)
	cur, err := n.infos.Get(ctx, infoKey(n.id))
	switch {
	case errors.Is(err, kv.ErrNotFound):
		n.adopt(Info{})
		_, err = n.infos.Create(ctx, infoKey(n.id), n.Info(), kv.WriteOptions{TTL: keepFor})
	case err == nil:
		n.adopt(cur.Value) // its writer does not hold the beat any more: what it still has under way meets another revision
		_, err = n.infos.Update(ctx, infoKey(n.id), n.Info(), cur.Revision, kv.WriteOptions{TTL: keepFor})
	}
	return err
}

// passing reports whether it is worth trying again: NATS is away or busy, or
// somebody else wrote at the same time.
func passing(err error) bool {
	return publish.Passing(err) || kv.Unknown(err) || errors.Is(err, kv.ErrExists) || errors.Is(err, kv.ErrContended)
}
