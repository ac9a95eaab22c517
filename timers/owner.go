package timers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
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

	// Deputy stands only while no node that serves is registered, and gives
	// the lease up when one is.
	Deputy bool

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

func (o StandOptions) validate() error {
	errs := []error{name.Check("namespace", string(o.Namespace)), name.Check("node", o.Node)}
	if o.Lease < time.Second {
		errs = append(errs, fmt.Errorf("lease is %v: use that of the namespace's settings", o.Lease))
	}
	return errors.Join(errs...)
}

// Stand makes this process the owner whenever nobody else is, until ctx ends;
// then it returns nil. While it is, it runs lead with a context that ends with
// ctx or with the lease, whichever is first. When the lease is lost, or given up
// by a deputy, it waits until lead has returned, and stands again. At the end, or
// when lead returns by itself, it gives the lease to whoever waits for it; what
// lead returned in the latter case is then the result.
func Stand(ctx context.Context, pub *publish.Publisher, opts StandOptions, lead func(context.Context, *kv.Lease) error) error {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return fmt.Errorf("timers: stand for owner: %w", err)
	}
	c := &candidate{
		opts:   opts,
		holder: opts.Node + "." + rand.Text(),
		nc:     pub.Conn(),
		leases: kv.Open(pub, opts.Namespace.Bucket(streams.Leases), kv.JSON[kv.Held]()),
		serves: nodes.NewServes(pub, opts.Namespace, opts.Lease),
	}
	for {
		lease, err := c.win(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("timers: stand for owner: %w", err)
		}
		opts.Logger.InfoContext(ctx, "node is owner", "node", opts.Node, "epoch", lease.Epoch())
		done, err := c.hold(ctx, lease, lead)
		opts.Logger.InfoContext(ctx, "node is owner no more", "node", opts.Node, "epoch", lease.Epoch())
		if done {
			return err
		}
	}
}

// releaseTime bounds how long the lease is tried to be given to others.
const releaseTime = 2 * time.Second

// hold runs lead while the lease is kept, also while lead comes to its end. It
// reports whether Stand is over.
func (c *candidate) hold(ctx context.Context, lease *kv.Lease, lead func(context.Context, *kv.Lease) error) (done bool, err error) {
	leading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(lease.Context(), func() { cancel(kv.ErrLeaseLost) })()

	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var loops sync.WaitGroup
	loops.Go(func() {
		if err := lease.Keep(keeping); err != nil {
			c.opts.Logger.WarnContext(ctx, "owner's lease lost", "node", c.opts.Node, "err", err)
		}
	})
	if c.opts.Deputy {
		loops.Go(func() {
			if c.awaitServe(leading) {
				cancel(errServed)
			}
		})
	}
	err = lead(leading, lease)
	early := leading.Err() == nil && lease.Valid() // leading ends a moment after the lease
	cancel(nil)
	stop()
	loops.Wait()

	releasing, cancelRelease := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
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
