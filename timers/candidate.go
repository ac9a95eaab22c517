package timers

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
)

// errServed says that a deputy is not needed.
var errServed = errors.New("a node that serves is registered")

// candidate stands for owner. It costs the server one core subscription: the
// leases are republished, so it hears each renewal, and the end. A watcher would cost
// a consumer, and there may be a thousand candidates.
type candidate struct {
	opts   StandOptions
	holder string // belongs to this process alone
	nc     *nats.Conn
	leases *kv.Bucket[kv.Held]
	vigil  kv.Vigil // over what somebody else has
	serves *nodes.Serves
}

const (
	// again is the pause before something that failed is tried once more.
	again = 250 * time.Millisecond
	// heardAtOnce is how much of the feed waits while the candidate looks. What
	// is more is lost, and found by looking.
	heardAtOnce = 64
)

// win waits until this process is owner. It looks at the key at the start, when
// it hears that the key is gone, when it has heard of no renewal for one lease,
// and at every reconnect.
func (c *candidate) win(ctx context.Context) (*kv.Lease, error) {
	feed := make(chan *nats.Msg, heardAtOnce)
	sub, err := c.nc.ChanSubscribe(c.opts.Namespace.LeaseFeed()+nodes.OwnerKey, feed)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	connected := c.nc.StatusChanged(nats.CONNECTED)
	defer c.nc.RemoveStatusListener(connected)
	look := time.NewTimer(0)
	defer look.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case msg := <-feed:
			if kv.IsMarker(msg.Header) {
				look.Reset(c.courtesy())
			} else {
				look.Reset(c.opts.Lease)
			}
			continue
		case <-connected:
			look.Reset(c.courtesy())
			continue
		case <-look.C:
		}
		lease, err := c.try(ctx)
		switch {
		case err == nil:
			return lease, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case c.nc.IsClosed():
			return nil, err
		case errors.Is(err, kv.ErrHeld), errors.Is(err, errServed):
			look.Reset(c.opts.Lease / 3) // unless it hears of a renewal
			continue
		}
		if failures++; failures == 1 {
			c.opts.Logger.WarnContext(ctx, "cannot stand for owner yet", "node", c.opts.Node, "err", err)
		}
		look.Reset(again)
	}
}

// courtesy is how long the candidate lets others go first. There may be a
// thousand deputies, and each of them asks for more than the key: the first
// should be owner before most of the others look.
func (c *candidate) courtesy() time.Duration {
	if !c.opts.Deputy {
		return 0
	}
	return rand.N(c.opts.Lease / 6)
}

// try takes the lease if nobody has it. A deputy does so only if nobody serves.
func (c *candidate) try(ctx context.Context) (*kv.Lease, error) {
	if c.opts.Deputy {
		if err := c.wanted(ctx); err != nil {
			return nil, err
		}
	}
	opts := kv.LeaseOptions{TTL: c.opts.Lease, Mine: true, Vigil: &c.vigil, Logger: c.opts.Logger}
	return kv.Take(ctx, c.leases, nodes.OwnerKey, c.holder, opts)
}

// wanted returns nil if a deputy has to be owner. It asks for the nodes only if
// the key is free.
func (c *candidate) wanted(ctx context.Context) error {
	cur, err := c.leases.Get(ctx, nodes.OwnerKey)
	switch {
	case errors.Is(err, kv.ErrNotFound):
	case err != nil:
		return err
	case cur.Value.Holder != c.holder && !c.vigil.Over(cur.Revision, c.opts.Lease):
		return kv.ErrHeld
	}
	served, err := c.serves.Any(ctx)
	if err == nil && served {
		err = errServed
	}
	return err
}

// awaitServe waits until a node that serves is registered. It reports false if
// ctx ended before.
func (c *candidate) awaitServe(ctx context.Context) bool {
	every := time.NewTicker(c.opts.Lease / 4)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-every.C:
		}
		if served, err := c.serves.Any(ctx); err == nil && served {
			return true // without an answer it is NATS that is away, and the lease judges that
		}
	}
}
