package kv

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/follow"
)

// headersBatch is how many messages Headers reads at a time.
const headersBatch = 5000

// Headers visits the headers of all keys that match filter, as they were stored
// when it was called, and ends with the first error of visit. A key that changes
// meanwhile may be passed over. It costs the server a consumer while it lasts,
// and no bodies.
func (b *Bucket[T]) Headers(ctx context.Context, filter string, visit func(key string, h nats.Header) error) error {
	_, last, err := b.span(ctx)
	if err != nil {
		return b.failed("list", filter, err)
	}
	if last == 0 {
		return nil
	}
	opts := follow.Options{
		Stream: b.Stream(), Filters: []string{b.prefix + filter}, Until: last, Headers: true, Batch: headersBatch, Logger: b.log,
	}
	err = follow.Run(ctx, b.pub, opts, func(msg follow.Message) error {
		if IsMarker(msg.Header) {
			return nil
		}
		return visit(strings.TrimPrefix(msg.Subject, b.prefix), msg.Header)
	})
	if err == nil && ctx.Err() != nil {
		err = b.failed("list", filter, context.Cause(ctx))
	}
	return err
}
