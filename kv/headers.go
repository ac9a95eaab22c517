package kv

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/follow"
)

// headersBatch is how many messages Headers reads at a time.
const headersBatch = 5000

// Head is a key at one revision, without its value.
type Head struct {
	Key      string
	Revision uint64
	Header   nats.Header
}

// Headers visits the headers of all keys that match filter, as they were stored
// when it was called, and ends with the first error of visit. It returns the last
// revision of the bucket by then. A key that changes meanwhile may be passed over:
// its new revision is behind that one. It costs the server a consumer while it
// lasts, and no bodies.
func (b *Bucket[T]) Headers(ctx context.Context, filter string, visit func(Head) error) (upTo uint64, err error) {
	_, last, err := b.span(ctx)
	if err != nil {
		return 0, b.failed("list", filter, err)
	}
	if last == 0 {
		return 0, nil
	}
	opts := follow.Options{
		Stream: b.Stream(), Filters: []string{b.prefix + filter}, Until: last, Headers: true, Batch: headersBatch, Logger: b.log,
	}
	err = follow.Run(ctx, b.pub, opts, func(msg follow.Message) error {
		if IsMarker(msg.Header) {
			return nil
		}
		return visit(Head{strings.TrimPrefix(msg.Subject, b.prefix), msg.Sequence, msg.Header})
	})
	if err == nil && ctx.Err() != nil {
		err = b.failed("list", filter, context.Cause(ctx))
	}
	return last, err
}
