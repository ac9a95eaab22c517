package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/engine/attempt"
	"github.com/millrace/millrace/engine/logs"
	"github.com/millrace/millrace/engine/queues"
	"github.com/millrace/millrace/engine/reconcile"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/engine/triggers"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/obs"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// Options configures an [Engine]. The zero value of a field means its default.
type Options struct {
	// Namespace is the installation to use: one subject token. Default
	// "default".
	Namespace string
	// Node is the stable ID of this process among the nodes. Default: the
	// host's name and four random characters.
	Node string
	// Domain is the JetStream domain in which the namespace lives: it is needed
	// on a leaf node, and for a namespace of which several servers' JetStreams
	// could be meant. Default: that of the server.
	Domain string
	// Labels describe the node to those who choose among nodes.
	Labels map[string]string
	// Build names the version of the program, for lists of nodes.
	Build string
	// Existing refuses to create the namespace: it must be there.
	Existing bool
	// Replicas is how many servers keep each asset: 1, 3, or 0 for what fits
	// the cluster. It matters to the first process of a namespace.
	Replicas int
	// Lease is after how long a silent node is taken for dead, in whole
	// seconds. It matters to the first process of a namespace. Default 6s on
	// a single server, 15s on a cluster.
	Lease time.Duration
	// Logger receives what is no caller's error. Default slog.Default.
	Logger *slog.Logger
	// Registerer gets the metrics of this process, whose names begin with
	// "millrace_", until [Engine.Close]. Default: there are none.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = string(streams.DefaultNamespace)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func (o Options) validate() error {
	errs := []error{name.Check("namespace", o.Namespace), publish.CheckDomain(o.Domain)}
	if o.Node != "" {
		errs = append(errs, name.Check("node", o.Node))
	}
	return errors.Join(errs...)
}

// Engine is one process's view of a namespace. It is safe for concurrent use.
// However many workers it has, it is one node.
type Engine struct {
	ns       streams.Namespace
	opts     Options
	settings streams.Settings
	log      *slog.Logger
	pub      *publish.Publisher
	work     *streams.Work
	timers   *streams.Timers
	clock    *streams.Clock
	store    *store.Store
	running  *attempt.Running
	triggers *triggers.Triggers
	logs     *logs.Log
	queues   *queues.Queues
	book     *queues.Book
	member   member
	takers   takers
	metrics  *obs.Metrics                         // nil if nobody wants them
	owner    atomic.Pointer[reconcile.Reconciler] // while this process is the owner
}

// maxReconnectWait is the longest pause between two tries to reconnect, so
// that a process resumes within seconds of its server's return.
const maxReconnectWait = 2 * time.Second

// ConnectOptions returns the options that a connection for an [Engine] needs:
// it reconnects for ever and soon, and what is published while it is down
// fails at once instead of being sent later.
func ConnectOptions() []nats.Option {
	return []nats.Option{
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 250*time.Millisecond),
		nats.ReconnectBufSize(-1),
	}
}

// Connect opens the namespace, and creates it if it is new. The connection
// must have been made with [ConnectOptions] or what amounts to them; it stays
// the caller's to close, after the engine.
func Connect(ctx context.Context, nc *nats.Conn, opts ...Options) (*Engine, error) {
	o := first(opts).withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := checkConn(nc); err != nil {
		return nil, err
	}
	pub, err := publish.New(nc, publish.Options{Domain: o.Domain})
	if err != nil {
		return nil, fmt.Errorf("engine: connect: %w", err)
	}
	eng, err := open(ctx, pub, o)
	if err != nil {
		pub.Close()
		return nil, err
	}
	return eng, nil
}

func open(ctx context.Context, pub *publish.Publisher, o Options) (*Engine, error) {
	ns := streams.Namespace(o.Namespace)
	settings, err := streams.Ensure(ctx, ns, pub, streams.Options{
		Existing: o.Existing, Replicas: o.Replicas, Lease: o.Lease, Holder: o.Node, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	work, err := streams.NewWork(ns, pub)
	if err != nil {
		return nil, err
	}
	timers, err := streams.NewTimers(ns, pub)
	if err != nil {
		return nil, err
	}
	clock := streams.NewClock(ns, pub)
	if err := clock.Measure(ctx); err != nil {
		return nil, err
	}
	assets := store.Assets{
		Work: work, Timers: timers, Clock: clock, Limits: streams.NewLimits(ns, pub), Asker: nodes.NewAsker(pub, ns),
	}
	e := &Engine{
		ns: ns, opts: o, settings: settings, log: o.Logger, pub: pub, work: work, timers: timers, clock: clock,
		running: attempt.NewRunning(settings.Lease),
		logs:    logs.Open(pub, logs.Options{Namespace: ns, Logger: o.Logger}),
		member:  member{turn: make(chan struct{}, 1)},
	}
	if err := e.openQueues(ctx); err != nil {
		return nil, err
	}
	kept := store.Options{Namespace: ns, Lease: settings.Lease, Retention: e.book.Retention, Logger: o.Logger}
	e.meter(&kept)
	e.store = store.Open(pub, assets, kept)
	e.triggers = triggers.Open(pub, e.store, triggers.Options{Namespace: ns, Make: e.started, Holder: o.Node, Logger: o.Logger})
	return e, e.showMetrics()
}

// Close frees what the engine holds, and ends with an error whatever waits for
// an answer. Workers must have ended.
func (e *Engine) Close() {
	e.hideMetrics()
	e.pub.Close()
}

// Lease returns after how long a silent node is taken for dead in this
// namespace.
func (e *Engine) Lease() time.Duration { return e.settings.Lease }

// checkConn refuses a connection that would give up or send late.
func checkConn(nc *nats.Conn) error {
	if nc == nil {
		return errors.New("engine: connect: there is no NATS connection: make one by nats.Connect(url, engine.ConnectOptions()...)")
	}
	o := nc.Opts
	switch {
	case !o.AllowReconnect || o.MaxReconnect >= 0:
		return errors.New("engine: connect: the NATS connection gives up after some time without a server: set nats.MaxReconnects(-1), or use engine.ConnectOptions()")
	case o.ReconnectBufSize >= 0:
		return errors.New("engine: connect: the NATS connection sends late what was published while it was down: set nats.ReconnectBufSize(-1), or use engine.ConnectOptions()")
	case o.ReconnectWait > maxReconnectWait && o.CustomReconnectDelayCB == nil:
		return fmt.Errorf("engine: connect: the NATS connection waits %v between tries to reconnect: set nats.ReconnectWait to %v or less, or use engine.ConnectOptions()",
			o.ReconnectWait, maxReconnectWait)
	}
	return nil
}

// first returns the options that were given, or none.
func first[T any](opts []T) (o T) {
	if len(opts) > 0 {
		o = opts[0]
	}
	return o
}
