package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/broadcast/plan"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// Options configures a [Reconciler]. The zero value of a field means its default.
type Options struct {
	// Namespace is whose jobs are looked at. Default streams.DefaultNamespace.
	Namespace streams.Namespace

	// Lease is the lease of the namespace, see [streams.Settings]. It is
	// required.
	Lease time.Duration

	// Owner is the lease under which the reconciler works, as timers.Stand gives
	// it. It is required.
	Owner *kv.Lease

	// Clock tells how old a record is and what is due. It is required.
	Clock *streams.Clock

	// Store heals. It is required.
	Store *store.Store

	// Work and Timers are what jobs are driven by. They are required.
	Work   *streams.Work
	Timers *streams.Timers

	// Shape reads from the leader how a queue is to be served. Default: by the
	// lease, without a limit.
	Shape func(ctx context.Context, queue string) (streams.Shape, error)

	// Members reads the nodes that are there, for jobs that need another place.
	// It may be some milliseconds behind. Default: there are none.
	Members func(ctx context.Context) ([]plan.Node, error)

	// Waiting is told of each job that waits for its children, whenever it is
	// met. It must not block. Default: nobody is told.
	Waiting func(id string)

	// Turn is told of each job that waits for a turn of its schedule, whenever it is
	// met. It must not block. Default: nobody is told.
	Turn func(schedule, id string)

	// Healed is told of each thing that a job lacked and has again. It must not
	// block. Default: nobody is told.
	Healed func(store.Lack)

	// Logger hears of what was healed. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = streams.DefaultNamespace
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Members == nil {
		o.Members = func(context.Context) ([]plan.Node, error) { return nil, nil }
	}
	if o.Waiting == nil {
		o.Waiting = func(string) {}
	}
	if o.Turn == nil {
		o.Turn = func(string, string) {}
	}
	if o.Shape == nil {
		shape := streams.Shape{AckWait: o.Lease}
		o.Shape = func(context.Context, string) (streams.Shape, error) { return shape, nil }
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Lease < time.Second {
		errs = append(errs, fmt.Errorf("lease is %v: use that of the namespace's settings", o.Lease))
	}
	required := map[string]bool{
		"owner": o.Owner == nil, "clock": o.Clock == nil, "store": o.Store == nil, "work": o.Work == nil, "timers": o.Timers == nil,
	}
	for what, missing := range required {
		if missing {
			errs = append(errs, fmt.Errorf("%s is required", what))
		}
	}
	return errors.Join(errs...)
}

// Reconciler looks for jobs that lost what drives them. Make one with [New].
type Reconciler struct {
	opts Options
	pub  *publish.Publisher
	js   jetstream.JetStream
	asks chan *nats.Msg // requests to look at everything now
	wake chan struct{}  // has one element if a node was found dead
	stir chan struct{}  // has one element if a node has come or changed

	// What outlives a round. It belongs to the goroutine that checks.
	waiting   []*nats.Msg         // those who asked since the round began
	again     map[string]record   // what to look at again soon, by job
	consumers map[string]consumer // how they were the last time, by name
	warned    time.Time           // when the log said that something failed
	unsaid    map[store.Lack]int  // what was healed and is not in the log yet

	places  places
	parents parents

	// stranded is what somebody has pointed at: jobs whose nodes may be dead.
	stranded struct {
		sync.Mutex
		ids []string
	}

	whole atomic.Pointer[index] // of the last round that has read all jobs

	totals struct {
		sync.Mutex
		healed map[store.Lack]int
	}
}

// New returns a reconciler that does nothing before [Reconciler.Run].
func New(pub *publish.Publisher, opts Options) *Reconciler {
	r := &Reconciler{
		opts: opts.withDefaults(), pub: pub, asks: make(chan *nats.Msg, maxAsks), wake: make(chan struct{}, 1),
		stir: make(chan struct{}, 1), again: make(map[string]record), consumers: make(map[string]consumer),
		unsaid: make(map[store.Lack]int),
	}
	r.totals.healed = make(map[store.Lack]int)
	return r
}

// Healed returns how many jobs lacked what since the reconciler was made. A
// healthy system heals nothing.
func (r *Reconciler) Healed() map[store.Lack]int {
	r.totals.Lock()
	defer r.totals.Unlock()
	return maps.Clone(r.totals.healed)
}

// Run looks for jobs that lack something until ctx or the owner's lease ends, and
// then returns nil. Errors of NATS do not end it, but for a closed connection.
func (r *Reconciler) Run(ctx context.Context) error {
	if err := r.opts.validate(); err != nil {
		return fmt.Errorf("reconcile: look at jobs: %w", err)
	}
	js, err := r.pub.JetStream()
	if err != nil {
		return fmt.Errorf("reconcile: look at jobs: %w", err)
	}
	r.js = js
	deaf, err := r.feed()
	if err != nil {
		return fmt.Errorf("reconcile: listen to nodes: %w", err)
	}
	defer deaf()
	sub, err := r.pub.Conn().ChanSubscribe(askSubject(r.opts.Namespace), r.asks)
	if err != nil {
		return fmt.Errorf("reconcile: listen to requests: %w", err)
	}
	defer func() {
		_ = sub.Unsubscribe() // fails only on a closed connection
		for range len(r.asks) {
			r.waiting = append(r.waiting, <-r.asks)
		}
		dismiss(r.waiting)
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(r.opts.Owner.Context(), cancel)()
	var sweeping sync.WaitGroup
	sweeping.Go(func() { r.sweep(ctx) })
	defer func() { cancel(); sweeping.Wait() }()

	for ctx.Err() == nil {
		if err := r.round(ctx); err != nil {
			return fmt.Errorf("reconcile: look at jobs: %w", err)
		}
	}
	return nil
}

// count adds to what was healed.
func (r *Reconciler) count(lacks []store.Lack) {
	r.totals.Lock()
	defer r.totals.Unlock()
	for _, lack := range lacks {
		r.totals.healed[lack]++
		if r.opts.Healed != nil {
			r.opts.Healed(lack)
		}
	}
}
