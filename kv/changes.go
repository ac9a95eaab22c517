package kv

import (
	"context"
	"strings"

	"github.com/millrace/millrace/internal/direct"
)

// ChangesStale returns what was written under keys that match filter, which may
// have wildcards, from a revision on, that one included: the values, and the
// markers of keys that were deleted or have expired, in the order of revisions.
// It passes over what cannot be decoded, with a word in the log. Any replica
// answers. It may be behind, but what it lacks comes after what it has: whoever
// asks again from the last revision that it got misses no value, and no marker
// that stayed for so long. Of [Bucket.Remove] nothing is left to be told.
func (b *Bucket[T]) ChangesStale(ctx context.Context, filter string, from uint64) ([]Event[T], error) {
	var list []Event[T]
	err := b.EachStale(ctx, filter, from, func(e Event[T]) { list = append(list, e) })
	if err != nil {
		return nil, err
	}
	return list, nil
}

// EachStale is [Bucket.ChangesStale] for more than should be in memory at a time: it
// calls visit with each change.
func (b *Bucket[T]) EachStale(ctx context.Context, filter string, from uint64, visit func(Event[T])) error {
	get := direct.Get{Seq: max(from, 1), NextBySubject: b.prefix + filter, Batch: direct.Max}
	err := b.directAll(ctx, get, func(s stored) {
		if s.marker() {
			key := strings.TrimPrefix(s.subject, b.prefix)
			visit(Event[T]{Deleted, Entry[T]{Key: key, Revision: s.sequence, Stored: s.time}})
		} else if e, ok := b.value(s); ok {
			visit(Event[T]{Put, e})
		}
	})
	if err != nil {
		return b.failed("read", filter, err)
	}
	return nil
}
