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

// tend makes sure that a queue has consumers that deliver, and as its definition
// wants them, and returns how many items they hold. Workers make the consumers of
// the rarer classes themselves.
func (g *round) tend(ctx context.Context, queue string) (held int, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	consumers, err := g.opts.Work.Consumers(ctx, queue)
	if err != nil {
		return 0, fmt.Errorf("reconcile: look at the consumers of queue %s: %w", queue, err)
	}
	if len(consumers) == 0 || consumers[0].Name != queue {
		g.opts.Logger.InfoContext(ctx, "queue had no consumer", "queue", queue)
		g.report.Consumers++
	}
	for _, info := range consumers {
		deaf, err := g.deaf(ctx, queue, info)
		if err != nil {
			return 0, err
		}
		if deaf {
			g.report.Consumers++
		} else {
			held += int(info.NumPending) + info.NumAckPending
		}
	}
	return held, g.serve(ctx, queue)
}

// deaf reports whether a consumer has items, and workers that wait for them, and
// has delivered nothing since the last look. Then it is deleted, to be made anew.
func (g *round) deaf(ctx context.Context, queue string, info *jetstream.ConsumerInfo) (bool, error) {
	cur := consumer{
		created: info.Created, delivered: info.Delivered.Consumer,
		stalled: info.NumPending > 0 && info.NumWaiting > 0 && !info.Paused && !full(info),
	}
	last := g.consumers[info.Name]
	g.consumers[info.Name] = cur
	if cur != last || !cur.stalled {
		return false, nil
	}
	g.opts.Logger.WarnContext(ctx, "consumer delivers nothing and is made anew", "queue", queue, "consumer", info.Name, "items", info.NumPending)
	delete(g.consumers, info.Name)
	if err := g.js.DeleteConsumer(ctx, g.opts.Namespace.WorkStream(), info.Name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return false, fmt.Errorf("reconcile: delete the consumer of queue %s: %w", queue, err)
	}
	return true, nil
}

// full reports whether a consumer may not deliver more before something is
// acknowledged.
func full(info *jetstream.ConsumerInfo) bool {
	return info.Config.MaxAckPending > 0 && info.NumAckPending >= info.Config.MaxAckPending
}

// serve brings the consumers of a queue into the shape of its definition. If that
// changes meanwhile, whoever changed it does the same, or the next patrol.
func (g *round) serve(ctx context.Context, queue string) error {
	shape, err := g.opts.Shape(ctx, queue)
	if err == nil {
		err = g.opts.Work.Serve(ctx, queue, shape)
	}
	return err
}
