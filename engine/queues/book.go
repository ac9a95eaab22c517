package queues

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// BookOptions configures a [Book].
type BookOptions struct {
	// Namespace is required.
	Namespace streams.Namespace
	// Retention is for how long records stay of queues that say nothing about
	// it. It is required.
	Retention func(queue string, s machine.State) time.Duration
	// Logger is told of definitions that cannot be read. Default slog.Default.
	Logger *slog.Logger
}

// Book is all definitions as a process knows them. They are read from the leader,
// and kept by what the server tells of each change; since that can be lost, they
// are read again at every reconnect and every 30 s. It is safe for concurrent use.
type Book struct {
	opts   BookOptions
	pub    *publish.Publisher
	stored *kv.Bucket[stored]
	turn   chan struct{} // has a token while somebody runs

	reading *semaphore.Weighted // held by whoever reads

	mu struct {
		sync.Mutex
		pages   map[string]page
		upTo    uint64        // the last change that was read
		read    time.Time     // when that was
		all     time.Time     // when everything was read
		current bool          // Run is there, and has read since the connection is
		changed chan struct{} // closed at the next change
	}
}

// page is what is known of one queue. That of one that was deleted says nothing,
// and is kept so that what is told late does not bring it back.
type page struct {
	queue    spec.Queue
	revision uint64
	// unreadable says that it was known before: what is stored now cannot be
	// read, and may be a newer build's.
	unreadable bool
}

// rereadEvery is how often definitions are read without a reason.
const rereadEvery = 30 * time.Second

// NewBook returns an empty book.
func NewBook(pub *publish.Publisher, opts BookOptions) *Book {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	b := &Book{opts: opts, pub: pub, stored: open(pub, opts.Namespace, opts.Logger), turn: make(chan struct{}, 1), reading: semaphore.NewWeighted(1)}
	b.mu.pages, b.mu.changed = map[string]page{}, make(chan struct{})
	return b
}

// Get returns the definition of a queue, which is only its name if it has none.
func (b *Book) Get(queue string) spec.Queue {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.get(queue)
}

func (b *Book) get(queue string) spec.Queue {
	if p, ok := b.mu.pages[queue]; ok {
		return p.queue
	}
	return spec.Queue{Name: queue}
}

// Changed returns a channel that is closed at the next change.
func (b *Book) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.changed
}

// Gate reports whether jobs of a queue may start, and returns a channel that is
// closed when that may have changed. None may while [Book.Run] has not read the
// definitions, at its start and after a reconnect: the queue may have been paused
// meanwhile.
func (b *Book) Gate(queue string) (open bool, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.current && !b.get(queue).IsPaused(), b.mu.changed
}

// Retention returns for how long the record stays of a job of a queue that has
// ended in a state. One that was skipped stays as long as one that was cancelled.
func (b *Book) Retention(queue string, s machine.State) time.Duration {
	says := b.Get(queue).Retention
	by := map[machine.State]spec.Duration{
		machine.Succeeded: says.Succeeded, machine.Failed: says.Failed, machine.Cancelled: says.Cancelled,
		machine.Skipped: says.Cancelled,
	}
	if d := by[s]; d > 0 {
		return time.Duration(d)
	}
	return b.opts.Retention(queue, s)
}

// Load reads all definitions from the leader.
func (b *Book) Load(ctx context.Context) error {
	if b.reading.Acquire(ctx, 1) != nil {
		return fmt.Errorf("engine: read the definitions of queues: %w", context.Cause(ctx))
	}
	defer b.reading.Release(1)
	return b.load(ctx)
}

// Fresh reads what has changed, unless somebody has done so within the last 30 s.
// It is for processes in which nobody runs the book.
func (b *Book) Fresh(ctx context.Context) error {
	if b.reading.Acquire(ctx, 1) != nil {
		return fmt.Errorf("engine: read the definitions of queues: %w", context.Cause(ctx))
	}
	defer b.reading.Release(1)
	b.mu.Lock()
	fresh := time.Since(b.mu.read) < rereadEvery
	b.mu.Unlock()
	if fresh {
		return nil
	}
	return b.catchUp(ctx)
}

// forgetful is how often everything is read: half as long as markers of deleted
// keys stay.
const forgetful = 30 * time.Minute

// catchUp reads what has changed since the last time.
func (b *Book) catchUp(ctx context.Context) error {
	b.mu.Lock()
	upTo, all := b.mu.upTo, b.mu.all
	b.mu.Unlock()
	if all.IsZero() || time.Since(all) > forgetful {
		return b.load(ctx)
	}
	pages, upTo, err := b.since(ctx, upTo)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.upTo, b.mu.read = upTo, time.Now()
	for queue, p := range pages {
		b.turnTo(queue, p)
	}
	return nil
}

// load reads everything, and forgets what is not there any more. What was told
// meanwhile stays: it is of a later revision than the last one that was read.
func (b *Book) load(ctx context.Context) error {
	began := time.Now()
	pages, upTo, err := b.since(ctx, 0)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.upTo, b.mu.read, b.mu.all = upTo, time.Now(), began
	for queue, p := range pages {
		b.turnTo(queue, p)
	}
	was := len(b.mu.pages)
	maps.DeleteFunc(b.mu.pages, func(queue string, p page) bool {
		_, there := pages[queue]
		return !there && p.revision <= upTo
	})
	if len(b.mu.pages) != was {
		b.tell()
	}
	return nil
}

// since reads what has changed after a revision, and returns the last one.
func (b *Book) since(ctx context.Context, revision uint64) (map[string]page, uint64, error) {
	pages := map[string]page{}
	for {
		event, err := b.stored.After(ctx, allKeys, revision)
		if errors.Is(err, kv.ErrNotFound) {
			return pages, revision, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("engine: read the definitions of queues: %w", err)
		}
		revision = event.Entry.Revision
		queue, p := b.pageOf(event)
		pages[queue] = p
	}
}

// pageOf returns what an event says about a queue.
func (b *Book) pageOf(event kv.Event[stored]) (queue string, p page) {
	queue = strings.TrimPrefix(event.Entry.Key, key(""))
	p = page{queue: spec.Queue{Name: queue}, revision: event.Entry.Revision}
	if event.Kind == kv.Deleted {
		return queue, p
	}
	d := defined(event.Entry)
	if d.Problem != nil {
		b.opts.Logger.Warn("definition of queue passed over", "queue", queue, "err", d.Problem)
	}
	p.queue, p.unreadable = d.Queue, d.Problem != nil
	return queue, p
}

// turnTo notes what is known of a queue, unless something later is. The caller
// holds mu.
func (b *Book) turnTo(queue string, p page) {
	was := b.mu.pages[queue]
	if p.revision <= was.revision {
		return
	}
	before := b.get(queue)
	if p.unreadable {
		p.queue = before
	}
	b.mu.pages[queue] = p
	if len(spec.Diff(before, p.queue)) > 0 {
		b.tell()
	}
}

// tell wakes those who wait for a change. The caller holds mu.
func (b *Book) tell() {
	close(b.mu.changed)
	b.mu.changed = make(chan struct{})
}
