package kv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/publish"
	"github.com/nats-io/nats.go"
)

var (
	// ErrContended is returned when a write lost every race that it was allowed.
	ErrContended = errors.New("too much contention")

	// ErrKeep can be returned by the function given to [Bucket.Edit] to leave
	// the value as it is.
	ErrKeep = errors.New("keep value")
)

// maxRaces bounds how often a write starts again after losing a race.
const maxRaces = 16

// Edit replaces the value of key with the result of change. It calls change
// again, on the newer value, whenever another writer gets in between, so change
// must not have side effects. If change returns [ErrKeep], Edit writes nothing
// and returns the entry that it read; any other error is returned as it is.
// The time of the entry that Edit wrote is not known, and left out.
//
// A write whose answer is lost is settled by reading and writing again, for
// which Edit waits as long as ctx allows. The error wraps [publish.ErrUnknown]
// if that is not possible: ctx has ended, or others wrote meanwhile, maybe over
// a change that had been stored.
func (b *Bucket[T]) Edit(ctx context.Context, key string, change func(T) (T, error), opts ...WriteOptions) (Entry[T], error) {
	return b.edit(ctx, key, func(was Entry[T]) (T, error) { return change(was.Value) }, opts)
}

func (b *Bucket[T]) edit(ctx context.Context, key string, change func(Entry[T]) (T, error), opts []WriteOptions) (Entry[T], error) {
	for race := range maxRaces {
		cur, err := b.Get(ctx, key)
		if err != nil {
			return Entry[T]{}, err
		}
		d, err := b.draft(cur, change, opts)
		if errors.Is(err, ErrKeep) {
			return cur, nil
		}
		if err != nil {
			return Entry[T]{}, err
		}
		ack, err := b.pub.Publish(ctx, d.msg)
		switch {
		case err == nil:
			return d.entry(key, ack.Sequence), nil
		case errors.Is(err, publish.ErrUnknown):
			return b.settle(ctx, key, d)
		case !conflict(err):
			return Entry[T]{}, b.failed("edit", key, err)
		}
		if err := pause(ctx, race); err != nil {
			return Entry[T]{}, b.failed("edit", key, err)
		}
	}
	return Entry[T]{}, b.failed("edit", key, fmt.Errorf("%w: lost %d races", ErrContended, maxRaces))
}

// settle finds out what became of a draft whose answer was lost. As long as the
// draft may still land it sends it again: of two equal conditional writes only
// one can succeed.
func (b *Bucket[T]) settle(ctx context.Context, key string, d *draft[T]) (Entry[T], error) {
	for race := 0; ; race++ {
		s, err := b.reread(ctx, key)
		switch {
		case errors.Is(err, ErrNotFound), err == nil && s.sequence != d.base && !same(s, d.msg):
			return Entry[T]{}, b.failed("edit", key, fmt.Errorf("%w: others wrote after its answer was lost", publish.ErrUnknown))
		case err != nil:
			return Entry[T]{}, b.failed("edit", key, fmt.Errorf("%w: %w", publish.ErrUnknown, err))
		case s.sequence != d.base:
			return d.entry(key, s.sequence), nil
		}
		ack, err := b.pub.Publish(ctx, d.msg)
		if err == nil {
			return d.entry(key, ack.Sequence), nil
		}
		if !Unknown(err) && !errors.Is(err, publish.ErrUnsent) {
			return Entry[T]{}, b.failed("edit", key, fmt.Errorf("%w: %w", publish.ErrUnknown, err))
		}
		if err := pause(ctx, race); err != nil {
			return Entry[T]{}, b.failed("edit", key, fmt.Errorf("%w: %w", publish.ErrUnknown, err))
		}
	}
}

// reread reads the last message of key after a write whose answer was lost. It
// waits for the server until ctx ends, since nobody else can tell.
func (b *Bucket[T]) reread(ctx context.Context, key string) (stored, error) {
	for race := 0; ; race++ {
		s, err := b.last(ctx, key)
		if !errors.Is(err, publish.ErrUnsent) && !errors.Is(err, publish.ErrUnknown) || ctx.Err() != nil {
			return s, err
		}
		if err := pause(ctx, race); err != nil {
			return s, err
		}
	}
}

// draft is a change that was made and may have been sent.
type draft[T any] struct {
	base  uint64 // the revision that it replaces
	value T
	msg   *nats.Msg
}

func (d *draft[T]) entry(key string, rev uint64) Entry[T] {
	return Entry[T]{Key: key, Value: d.value, Revision: rev}
}

// draft makes a change to cur.
func (b *Bucket[T]) draft(cur Entry[T], change func(Entry[T]) (T, error), opts []WriteOptions) (*draft[T], error) {
	next, err := change(cur)
	if err != nil {
		return nil, err
	}
	msg, err := b.encode(cur.Key, next, cur.Revision, opts)
	if err != nil {
		return nil, b.failed("edit", cur.Key, err)
	}
	return &draft[T]{cur.Revision, next, msg}, nil
}

// same reports whether s is what msg wrote. Since the headers include the
// revision that msg expected, no other write can look like it unless it says
// the same.
func same(s stored, msg *nats.Msg) bool {
	return slices.Equal(s.data, msg.Data) && maps.EqualFunc(s.header, msg.Header, slices.Equal)
}

// pause waits a little longer after each lost race, at random so that writers
// do not meet again.
func pause(ctx context.Context, race int) error {
	timer := time.NewTimer(rand.N(time.Millisecond << min(race, 6)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
