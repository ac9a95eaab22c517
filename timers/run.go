package timers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// Options configures [Run]. The zero value of a field means its default.
type Options struct {
	// Namespace is whose timers fire. Default streams.DefaultNamespace.
	Namespace streams.Namespace

	// Owner is the lease under which they do, as [Stand] gives it. It is
	// required.
	Owner *kv.Lease

	// Clock tells when they are due. It is required.
	Clock *streams.Clock

	// Fire does what a timer is for: it publishes the item or applies the
	// event. It is called by many goroutines, and more than once for a timer if
	// an answer is lost or there are two owners. A timer that returns an error
	// fires again later. It is required.
	Fire func(context.Context, streams.Timer) error

	// Logger hears of timers that do not fire. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = streams.DefaultNamespace
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Owner == nil {
		errs = append(errs, errors.New("owner is required"))
	}
	if o.Clock == nil {
		errs = append(errs, errors.New("clock is required"))
	}
	if o.Fire == nil {
		errs = append(errs, errors.New("fire is required"))
	}
	return errors.Join(errs...)
}

// firing is one call of Run. What it knows of a timer is when it is due and
// where it is stored; everything else is read when it fires.
type firing struct {
	opts   Options
	pub    *publish.Publisher
	nc     *nats.Conn
	timers *streams.Timers
	wake   chan struct{} // has one element if the next entry is another than before

	mu struct {
		sync.Mutex
		waiting heap
		flying  map[uint64]bool // the sequences that fire now
		tries   map[uint64]int  // how often timers did not fire, by sequence
		away    bool            // NATS did not answer lately
		strange bool            // there was a timer that cannot be read
	}
}

// Run fires timers until ctx or the owner's lease ends, waits for those that
// are in flight, and returns nil. Apart from that only a closed connection ends
// it.
func Run(ctx context.Context, pub *publish.Publisher, opts Options) error {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return fmt.Errorf("timers: fire: %w", err)
	}
	stored, err := streams.NewTimers(opts.Namespace, pub)
	if err != nil {
		return fmt.Errorf("timers: fire: %w", err)
	}
	f := &firing{opts: opts, pub: pub, nc: pub.Conn(), timers: stored, wake: make(chan struct{}, 1)}
	f.mu.flying, f.mu.tries = make(map[uint64]bool), make(map[uint64]int)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(opts.Owner.Context(), cancel)()
	loops, looping := errgroup.WithContext(ctx)
	loops.Go(func() error { return f.load(looping) })
	loops.Go(func() error { return f.fire(looping) })
	if err := loops.Wait(); err != nil {
		return fmt.Errorf("timers: fire: %w", err)
	}
	return nil
}

// push lets an entry wait until it is due.
func (f *firing) push(e entry) {
	f.mu.Lock()
	first := f.mu.waiting.push(e)
	f.mu.Unlock()
	if first {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// forget forgets everything that waits.
func (f *firing) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.waiting = nil
}

// waiting returns how many entries wait.
func (f *firing) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mu.waiting)
}
