package kv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace/internal/publish"
)

// After returns the first change after a revision of a key that matches filter,
// which may have wildcards, as the leader has it: a value, or the marker of a key
// that was deleted. It returns [ErrNotFound] if there is none. Whoever asks again
// with the revision of what it got has seen, in the end, the last change of every
// key. What cannot be decoded is an error, and the event says what it is about.
func (b *Bucket[T]) After(ctx context.Context, filter string, revision uint64) (Event[T], error) {
	m, err := b.pub.Message(ctx, b.Stream(), publish.Query{Sequence: revision + 1, Next: b.prefix + filter})
	if publish.Gone(err) {
		err = ErrNotFound
	}
	s := storedOf(m)
	if err == nil && s.sequence <= revision {
		err = errors.New("the answer is of an older revision")
	}
	if err != nil {
		return Event[T]{}, b.failed("read", filter, err)
	}
	event := Event[T]{Deleted, Entry[T]{
		Key: strings.TrimPrefix(s.subject, b.prefix), Revision: s.sequence, Stored: s.time,
	}}
	if s.marker() {
		return event, nil
	}
	event.Kind = Put
	if event.Entry.Value, err = b.codec.Decode(s.header, s.data); err != nil {
		return event, b.failed("read", event.Entry.Key, fmt.Errorf("decode revision %d: %w", s.sequence, err))
	}
	return event, nil
}
