// Package schedules is what people do to schedules: define, pause, look at and
// delete them, and have them make jobs out of turn.
//
// A definition is a [spec.Schedule] under schedule.<name> in the config bucket,
// which only people write. What follows from it, the ticks, is the work of the
// owner, which keeps a cursor for it: see package timers/scheduler. The files:
//
//	schedules.go  the definitions and their cursors
//	edit.go       who changes definitions: by revision, if he says one
//	info.go       a schedule as people see it
//	next.go       the ticks to come
//	jobs.go       the jobs that people want: now, or of ticks that are over
//
// Start reading at [Schedules.Apply].
//
// Every change is one write of one key, and nothing else has to follow: the owner
// hears of it, and whoever claims a tick's job compares the two. A schedule that
// was paused, changed or deleted starts nothing after that write that it does not
// have any more.
//
// Users meet all this in package engine, so that is what errors begin with.
package schedules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers/scheduler"
	"github.com/millrace/millrace/timers/tick"
)

// ErrNotFound is returned for a schedule that is not defined. It is a
// [store.ErrNotFound].
var ErrNotFound error = notFound{}

type notFound struct{}

func (notFound) Error() string        { return "there is no schedule of that name" }
func (notFound) Is(target error) bool { return target == store.ErrNotFound }

// ErrUnusable is returned where a definition is needed and cannot be used: it was
// not written by this package, or by a newer build.
var ErrUnusable = errors.New("its definition cannot be used, so apply another one, or delete it")

// Options configures [Schedules].
type Options struct {
	// Namespace is required.
	Namespace streams.Namespace
	// Clock is the server's. It is required.
	Clock *streams.Clock
	// Logger is told of what cannot be read. Default slog.Default.
	Logger *slog.Logger
}

// Schedules are those of a namespace. It is safe for concurrent use.
type Schedules struct {
	clock   *streams.Clock
	stored  *kv.Bucket[scheduler.Stored]
	keys    *kv.Bucket[struct{}] // of the definitions, whatever these say
	cursors *kv.Bucket[tick.Cursor]
}

// Open returns the schedules of a namespace whose assets are there.
func Open(pub *publish.Publisher, opts Options) *Schedules {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	return &Schedules{
		clock:   opts.Clock,
		stored:  scheduler.Bucket(pub, opts.Namespace, opts.Logger),
		keys:    kv.Open(pub, opts.Namespace.Bucket(streams.Config), kv.Codec[struct{}]{Decode: readNothing}),
		cursors: scheduler.Cursors(pub, opts.Namespace),
	}
}

func readNothing(nats.Header, []byte) (nothing struct{}, err error) { return nothing, nil }

// definition reads what is stored of a schedule from the leader. It returns
// [ErrNotFound] if that is nothing.
func (s *Schedules) definition(ctx context.Context, schedule string) (kv.Entry[scheduler.Stored], error) {
	entry, err := s.stored.Get(ctx, scheduler.Key(schedule))
	if errors.Is(err, kv.ErrNotFound) {
		err = ErrNotFound
	}
	return entry, err
}

// failed says what was tried, and with which schedule.
func failed(verb, schedule string, err error) error {
	return fmt.Errorf("engine: %s schedule %s: %w", verb, schedule, err)
}

// check refuses what cannot be the name of a schedule.
func check(verb, schedule string) error {
	if err := name.Check("schedule", schedule); err != nil {
		return fmt.Errorf("engine: %s: %w", verb, err)
	}
	return nil
}
