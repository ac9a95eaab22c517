package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// consumer is how the consumer of a queue was when it was looked at.
type consumer struct {
	created   time.Time
	delivered uint64 // deliveries so far
	stalled   bool   // items and workers wait for each other
}

// requestTime bounds a request about a consumer.
const requestTime = 5 * time.Second

// tend makes sure that a queue has a consumer that delivers, and returns how many
// items it holds. One that has items, and workers that wait for them, and has
// delivered nothing since the last look, is deaf: it is made anew.
func (g *round) tend(ctx context.Context, queue string) (held int, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	c, err := g.js.Consumer(ctx, g.opts.Namespace.WorkStream(), queue)
	missing := errors.Is(err, jetstream.ErrConsumerNotFound)
	if err != nil && !missing {
		return 0, fmt.Errorf("reconcile: look at the consumer of queue %s: %w", queue, err)
	}
	if missing {
		g.opts.Logger.InfoContext(ctx, "queue had no consumer", "queue", queue)
		return 0, g.serve(ctx, queue)
	}
	info := c.CachedInfo()
	cur := consumer{
		created: info.Created, delivered: info.Delivered.Consumer,
		stalled: info.NumPending > 0 && info.NumWaiting > 0 && !info.Paused && !full(info),
	}
	last := g.consumers[queue]
	g.consumers[queue] = cur
	if cur != last || !cur.stalled {
		return int(info.NumPending) + info.NumAckPending, nil
	}
	g.opts.Logger.WarnContext(ctx, "consumer delivers nothing and is made anew", "queue", queue, "items", info.NumPending)
	if err := g.js.DeleteConsumer(ctx, g.opts.Namespace.WorkStream(), queue); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return 0, fmt.Errorf("reconcile: delete the consumer of queue %s: %w", queue, err)
	}
	return 0, g.serve(ctx, queue)
}

// full reports whether a consumer may not deliver more before something is
// acknowledged.
func full(info *jetstream.ConsumerInfo) bool {
	return info.Config.MaxAckPending > 0 && info.NumAckPending >= info.Config.MaxAckPending
}

// serve makes the consumer of a queue.
func (g *round) serve(ctx context.Context, queue string) error {
	delete(g.consumers, queue)
	if err := g.opts.Work.Serve(ctx, queue, g.opts.Lease); err != nil {
		return err
	}
	g.report.Consumers++
	return nil
}
