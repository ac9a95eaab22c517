package nodes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// StandOptions configures [Stand]. The zero value of a field means its default.
type StandOptions struct {
	// Namespace is whose owner is to be found. Default
	// streams.DefaultNamespace.
	Namespace streams.Namespace

	// Node is the ID of this process as a node. It is required.
	Node string

	// Lease is the lease of the namespace, see [streams.Settings]. It is
	// required.
	Lease time.Duration

	// Logger hears who becomes owner and who ceases to be. Default
	// slog.Default.
	Logger *slog.Logger
}

func (o StandOptions) withDefaults() StandOptions {
	if o.Namespace == "" {
		o.Namespace = streams.DefaultNamespace
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// candidate stands for owner.
type candidate struct {
	opts   StandOptions
	holder string
	leases *kv.Bucket[kv.Held]
}

// Stand makes this process the owner whenever nobody else is, until ctx ends;
// then it returns nil. While it is, it runs lead with a context that ends with
// ctx or with the lease, whichever is first. When the lease is lost it waits
// until lead has returned, and stands again. At the end, or when lead returns by
// itself, it gives the lease to whoever waits for it; what lead returned in the
// latter case is then the result.
func Stand(ctx context.Context, pub *publish.Publisher, opts StandOptions, lead func(context.Context, *kv.Lease) error) error {
	opts = opts.withDefaults()
	if err := name.Check("node", opts.Node); err != nil {
		return fmt.Errorf("nodes: stand for owner: %w", err)
	}
	c := &candidate{
		opts:   opts,
		holder: opts.Node + "." + rand.Text(),
		leases: openLeases(pub, opts.Namespace),
	}
	for {
		lease, err := c.win(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("nodes: stand for owner: %w", err)
		}
		opts.Logger.InfoContext(ctx, "node is owner", "node", opts.Node, "epoch", lease.Epoch())
		done, err := c.hold(ctx, lease, lead)
		opts.Logger.InfoContext(ctx, "node is owner no more", "node", opts.Node, "epoch", lease.Epoch())
		if done {
			return err
		}
	}
}

// ownerNode returns the ID of the node that holds the owner's lease.
func ownerNode(held kv.Held) string {
	node, _, _ := strings.Cut(held.Holder, ".")
	return node
}

// win waits until this process is owner. It looks whenever the key has changed,
// and now and then, since it may not hear of a change.
func (c *candidate) win(ctx context.Context) (*kv.Lease, error) {
	opts := kv.LeaseOptions{TTL: c.opts.Lease, Logger: c.opts.Logger, Vigil: new(kv.Vigil)}
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer stop()
	var freed chan struct{} // nil until somebody else is seen to be owner
	for failures := 0; ; {
		lease, err := take(ctx, c.leases, ownerKey, c.holder, opts)
		wait := again
		switch {
		case err == nil:
			return lease, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, kv.ErrHeld):
			wait = c.opts.Lease / 3
			if freed == nil {
				freed = make(chan struct{}, 1)
				watch.Go(func() { c.watch(watching, freed) })
			}
		default:
			if failures++; failures == 1 {
				c.opts.Logger.WarnContext(ctx, "cannot stand for owner yet", "node", c.opts.Node, "err", err)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-freed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// watch tells freed when the owner's key goes.
func (c *candidate) watch(ctx context.Context, freed chan<- struct{}) {
	err := c.leases.Watch(ctx, ownerKey, func(e kv.Event[kv.Held]) {
		if e.Kind == kv.Deleted {
			select {
			case freed <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		c.opts.Logger.WarnContext(ctx, "owner not watched", "err", err)
	}
}

// hold runs lead while the lease is kept, also while lead comes to its end. It
// reports whether Stand is over.
func (c *candidate) hold(ctx context.Context, lease *kv.Lease, lead func(context.Context, *kv.Lease) error) (done bool, err error) {
	leading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(lease.Context(), func() { cancel(kv.ErrLeaseLost) })()

	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var keep sync.WaitGroup
	keep.Go(func() {
		if err := lease.Keep(keeping); err != nil {
			c.opts.Logger.WarnContext(ctx, "owner's lease lost", "node", c.opts.Node, "err", err)
		}
	})
	err = lead(leading, lease)
	early := leading.Err() == nil && lease.Valid() // leading ends a moment after the lease
	stop()
	keep.Wait()

	releasing, cancelRelease := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancelRelease()
	if err := lease.Release(releasing); err != nil {
		c.opts.Logger.InfoContext(ctx, "owner's key not deleted, it expires", "node", c.opts.Node, "err", err)
	}
	switch {
	case early:
		return true, err
	case ctx.Err() != nil:
		return true, nil
	}
	return false, nil
}
