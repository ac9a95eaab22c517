// Package store is jobs as they are stored. Everybody who moves a job does it
// through this package.
//
// A [Store] applies events of [machine] to records in the jobs bucket, by
// compare-and-swap, and carries out what a stored record owes:
//
//	submit.go    a job comes to be, or is found
//	deliver.go   an item reaches a node: the delivery table
//	report.go    an attempt says how far it is
//	unique.go    one job at a time holds a key
//	blob.go      what is too large for a record
//	finish.go    an attempt ends
//	cancel.go    somebody wants a job to end
//	redrive.go   somebody wants one that has ended to run once more
//	fire.go      a timer is due
//	delete.go    a job that has ended goes
//	owe.go       what follows from a stored record
//	heal.go      what should follow is looked for, and made up for
//	pin.go       a job for one node, and what becomes of it without that node
//	family.go    a job and its children
//	outset.go    a delayed job with children is due
//	fork.go      children are made
//	ending.go    the owner hears that one has ended
//	turn.go      the owner rules on a job of a schedule
//	signal.go    the owner hears of one
//	recall.go    children end, or go, with their parent
//
// Start reading at [Store.Submit], then at [Store.Deliver] and [Store.Finish].
//
// The record decides. Items and timers are hints: one that is stale, or there
// twice, starts nothing; one that is missing is made again by whoever meets the
// record. An item is believed in one thing, that a claim may be tried at its
// revision: before anything else is done about a job its record is read. Items
// carry their revision, so those of a job that was deleted are told from those
// of the next one under its ID.
//
// Every write here may be the last thing that this process does, and every
// answer may be lost. A lost answer means that the outcome is unknown: the
// record is read from the leader, tokens are compared, and where nothing is
// there yet the write is repeated on the same revision, which settles it.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// ErrNotFound is returned for a job that is not there.
var ErrNotFound = errors.New("store: no such job")

// Entry is a job at one revision.
type Entry = kv.Entry[machine.Job]

// Options configures a [Store].
type Options struct {
	Namespace streams.Namespace
	// Lease is the lease of the namespace's nodes.
	Lease time.Duration
	// Retention says how long the record of a job of a queue stays after the
	// job has ended in a state, ten minutes at least. It is asked at every end
	// of a job. Default [DefaultRetention].
	Retention func(queue string, s machine.State) time.Duration
	// Snapshot returns the shares of a delayed job with children, when it is due:
	// none if no node fits. Default: such jobs are left to another process.
	Snapshot func(ctx context.Context, j machine.Job) ([]machine.Share, error)
	// Declines is asked before the first claim of a job that the clock made, and before
	// the dispatch of one with children: see [machine.Job.Unchecked]. It returns why the
	// schedule does not let the job run, as it is now, or nil if it does. Default: they
	// all run.
	Declines func(ctx context.Context, j machine.Job) (*machine.Declined, error)
	// Moved is told of each transition that this store has stored: the job as
	// it was, without a state if it is new, and as it is. It is not told if the
	// answer was lost. It must not block. Default: nobody is told.
	Moved func(before, after machine.Job)
	// Conflicted is told of each transition that was not stored because the
	// record had changed. It must not block. Default: nobody is told.
	Conflicted func()
	// Logger is told what happened to jobs that is not an error of the
	// caller's. Default slog.Default.
	Logger *slog.Logger
}

// Assets is what a [Store] moves jobs with. All of it is required.
type Assets struct {
	Work   *streams.Work
	Timers *streams.Timers
	Limits *streams.Limits
	Clock  *streams.Clock
	Asker  *nodes.Asker
}

// Store moves jobs. It is safe for concurrent use.
type Store struct {
	Assets
	ns    streams.Namespace
	lease time.Duration

	retention  func(queue string, s machine.State) time.Duration
	snapshot   func(ctx context.Context, j machine.Job) ([]machine.Share, error)
	declines   func(ctx context.Context, j machine.Job) (*machine.Declined, error)
	moved      func(before, after machine.Job)
	conflicted func()

	log  *slog.Logger
	pub  *publish.Publisher
	jobs *kv.Bucket[machine.Job]

	keys  *kv.Bucket[holder] // unique keys
	blobs *blobs.Blobs

	parent atomic.Pointer[machine.Job] // of the child that was claimed last: its identity and input
}

// Open returns the store of a namespace whose assets are there.
func Open(pub *publish.Publisher, assets Assets, opts Options) *Store {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Retention == nil {
		opts.Retention = DefaultRetention
	}
	if opts.Snapshot == nil {
		opts.Snapshot = noSnapshot
	}
	if opts.Declines == nil {
		opts.Declines = func(context.Context, machine.Job) (*machine.Declined, error) { return nil, nil }
	}
	if opts.Moved == nil {
		opts.Moved = func(machine.Job, machine.Job) {}
	}
	if opts.Conflicted == nil {
		opts.Conflicted = func() {}
	}
	return &Store{
		Assets: assets, ns: opts.Namespace, lease: opts.Lease, retention: opts.Retention, log: opts.Logger, pub: pub,
		snapshot: opts.Snapshot, declines: opts.Declines, moved: opts.Moved, conflicted: opts.Conflicted,
		jobs: kv.Open(pub, opts.Namespace.Bucket(streams.Jobs), Codec(), kv.Options{Logger: opts.Logger}),
		keys: keysOf(pub, opts.Namespace), blobs: blobs.Open(pub, opts.Namespace),
	}
}

// Get reads a job from the leader. It returns [ErrNotFound] for one that is
// not there.
func (s *Store) Get(ctx context.Context, id string) (Entry, error) {
	entry, err := s.jobs.Get(ctx, id)
	if errors.Is(err, kv.ErrNotFound) {
		return entry, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return entry, err
}

// Recent visits jobs, the most recently changed first, until visit returns
// false. An empty queue means all. What it sees may be some milliseconds old.
func (s *Store) Recent(ctx context.Context, queue string, visit func(Entry) bool) error {
	filter := ">"
	if queue != "" {
		filter = queue + ".*"
	}
	return s.jobs.Recent(ctx, filter, visit)
}

// Watch calls visit for every change of a job, from now on, until ctx ends. It
// costs the server a consumer.
func (s *Store) Watch(ctx context.Context, queue string, visit func(kv.Event[machine.Job])) error {
	filter := ">"
	if queue != "" {
		filter = queue + ".*"
	}
	return s.jobs.Watch(ctx, filter, visit)
}

// move stores what follows from an event and returns the job as it is stored
// then. If the outcome of the write is unknown that is what the leader says,
// with or without the event: the caller compares tokens.
func (s *Store) move(ctx context.Context, entry Entry, ev machine.Event) (Entry, error) {
	next, err := entry.Value.Apply(ev)
	if err != nil {
		return entry, err
	}
	if next.State.Final() && !entry.Value.State.Final() {
		s.seal(&next, s.Limits.Shrink(ctx, s.kept(next)))
	}
	revision, err := s.jobs.Update(ctx, entry.Key, next, entry.Revision, keep(next))
	if errors.Is(err, kv.ErrConflict) {
		s.conflicted()
	}
	switch {
	case err == nil:
		s.moved(entry.Value, next)
		return Entry{Key: entry.Key, Value: next, Revision: revision}, nil
	case kv.Unknown(err) || errors.Is(err, publish.ErrUnsent):
		return s.read(ctx, entry.Key)
	}
	return entry, err
}

// read gets a job for a decision, however long that takes: it gives up only
// with ctx, or if the record is not there or unreadable, or the store is closed.
func (s *Store) read(ctx context.Context, id string) (Entry, error) {
	for try := 0; ; try++ {
		entry, err := s.Get(ctx, id)
		if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreadable) || closed(err) {
			return entry, err
		}
		if err := s.pause(ctx, try); err != nil {
			return Entry{}, err
		}
	}
}

// pause waits before another try, longer from try to try.
func (s *Store) pause(ctx context.Context, try int) error {
	const shortest, longest = 20 * time.Millisecond, time.Second
	wait := min(shortest<<min(try, 10), longest)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(wait):
		return nil
	}
}
