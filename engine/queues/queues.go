// Package queues is what people say about queues: how many of their jobs run at
// once, whether any may start, and how long records stay.
//
// A queue needs no definition. One that has some is a [spec.Queue] under
// queue.<name> in the config bucket, which only people write. The files:
//
//	queues.go   the definitions, as they are read
//	stored.go   the form in which they are stored
//	edit.go     who changes them
//	serve.go    the consumer that a queue gets
//	book.go     the definitions as a process knows them
//	run.go      how it hears of changes
//
// Start reading at [Queues.Apply], then at [Book].
//
// A change is one write of one key, whatever the queue holds. Nothing else has to
// follow for the queue to be paused or records to be kept longer: workers hear of
// the write. A limit is a property of the queue's consumer, which [Queues.Serve]
// makes what the definition says; if whoever changed the definition dies before,
// the owner does it.
//
// Each process has all definitions in a book: read from the leader at the start, at
// every reconnect and every 30 s, and kept by the republished bucket. While the book
// may be old, after a reconnect and before it is read again, the gates of all queues
// are shut.
//
// Users meet all this in package engine, so that is what errors begin with.
package queues

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// ErrNotFound is returned for a queue that has no definition. It is a
// [store.ErrNotFound].
var ErrNotFound error = notFound{}

type notFound struct{}

func (notFound) Error() string        { return "the queue has no definition" }
func (notFound) Is(target error) bool { return target == store.ErrNotFound }

// ErrUnreadable is returned where a definition is needed and cannot be read: it
// was not written by this package, or by a newer build.
var ErrUnreadable = errors.New("its definition cannot be read, so apply another one, or delete it")

// Options configures [Queues].
type Options struct {
	// Namespace is required.
	Namespace streams.Namespace
	// Shape makes the consumer of a queue one that has so many jobs run at
	// once, 0 for no limit, and does nothing if it is that. It is required.
	Shape func(ctx context.Context, queue string, concurrency int) error
	// Logger is told of definitions that cannot be read. Default slog.Default.
	Logger *slog.Logger
}

// Queues are the definitions of a namespace. It is safe for concurrent use.
type Queues struct {
	shape  func(ctx context.Context, queue string, concurrency int) error
	log    *slog.Logger
	stored *kv.Bucket[stored]
}

// Open returns the definitions of a namespace whose assets are there.
func Open(pub *publish.Publisher, opts Options) *Queues {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	return &Queues{shape: opts.Shape, log: opts.Logger, stored: open(pub, opts.Namespace, opts.Logger)}
}

// Definition is what is stored about a queue.
type Definition struct {
	spec.Queue
	// Problem is why it cannot be used, if it cannot: it was not written by
	// this package, or by a newer build.
	Problem error
}

// Get returns the definition of a queue from the leader. It returns
// [ErrNotFound] for a queue that has none.
func (q *Queues) Get(ctx context.Context, queue string) (Definition, error) {
	if err := name.Check("queue", queue); err != nil {
		return Definition{}, fmt.Errorf("engine: %w", err)
	}
	d, err := q.get(ctx, queue)
	if err != nil {
		return Definition{}, fmt.Errorf("engine: read queue %s: %w", queue, err)
	}
	return d, nil
}

func (q *Queues) get(ctx context.Context, queue string) (Definition, error) {
	entry, err := q.stored.Get(ctx, key(queue))
	if errors.Is(err, kv.ErrNotFound) {
		return Definition{Queue: spec.Queue{Name: queue}}, ErrNotFound
	}
	return defined(entry), err
}

// List returns all definitions, by the names of their queues. It may be some
// milliseconds behind.
func (q *Queues) List(ctx context.Context) (map[string]Definition, error) {
	entries, err := q.stored.ListStale(ctx, allKeys)
	if err != nil {
		return nil, fmt.Errorf("engine: list queues: %w", err)
	}
	all := make(map[string]Definition, len(entries))
	for _, entry := range entries {
		all[strings.TrimPrefix(entry.Key, key(""))] = defined(entry)
	}
	return all, nil
}
