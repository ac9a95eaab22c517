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
// A write whose answer is lost is settled by reading and writing again. The
// error wraps [publish.ErrUnknown] if that is not possible: ctx has ended, or
// others wrote meanwhile, maybe over a change that had been stored.
func (b *Bucket[T]) Edit(ctx context.Context, key string, change func(T) (T, error), opts ...WriteOptions) (Entry[T], error) {
	var lost *draft[T] // a write whose outcome is unknown
	for race := range maxRaces {
		s, err := b.last(ctx, key)
		if err == nil && s.marker() {
			err = ErrNotFound
		}
		var d *draft[T]
		switch {
		case lost != nil && err != nil:
			return Entry[T]{}, b.failed("edit", key, fmt.Errorf("%w: %w", publish.ErrUnknown, err))
		case err != nil:
			return Entry[T]{}, b.failed("edit", key, err)
		case lost == nil:
			cur, err := b.entry(s)
			if err != nil {
				return Entry[T]{}, b.failed("edit", key, err)
			}
			d, err = b.draft(cur, change, opts)
			if errors.Is(err, ErrKeep) {
				return cur, nil
			}
			if err != nil {
				return Entry[T]{}, err
			}
		case same(s, lost.msg):
			return b.entry(s)
		case s.sequence != lost.base:
			return Entry[T]{}, b.failed("edit", key, fmt.Errorf("%w: others wrote after an answer was lost", publish.ErrUnknown))
		default:
			d = lost // it may still land, but of two equal writes only one can
		}
		ack, err := b.pub.Publish(ctx, d.msg)
		switch {
		case err == nil:
			return Entry[T]{Key: key, Value: d.value, Revision: ack.Sequence}, nil
		case errors.Is(err, publish.ErrUnknown):
			lost = d
		case !conflict(err):
			return Entry[T]{}, b.failed("edit", key, err)
		}
		if err := pause(ctx, race); err != nil && lost == nil {
			return Entry[T]{}, b.failed("edit", key, err)
		}
	}
	return Entry[T]{}, b.failed("edit", key, fmt.Errorf("%w: lost %d races", ErrContended, maxRaces))
}

// draft is a change that was made and may have been sent.
type draft[T any] struct {
	base  uint64 // the revision that it replaces
	value T
	msg   *nats.Msg
}

func (b *Bucket[T]) draft(cur Entry[T], change func(T) (T, error), opts []WriteOptions) (*draft[T], error) {
	next, err := change(cur.Value)
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
