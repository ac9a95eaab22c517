package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/engine/attempt"
	"github.com/millrace/millrace/engine/logs"
	"github.com/millrace/millrace/engine/queues"
	"github.com/millrace/millrace/engine/reconcile"
	"github.com/millrace/millrace/engine/schedules"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/engine/triggers"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/obs"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers/scheduler"
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
	// Patience is for how long [Connect] tries again what may pass: see there.
	// Default 15s, or 2s where NATS has no JetStream.
	Patience time.Duration
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
	if o.Patience < 0 {
		errs = append(errs, fmt.Errorf("engine: connect: patience is %v: use a positive one", o.Patience))
	}
	if o.Node != "" {
		errs = append(errs, name.Check("node", o.Node))
	}
	return errors.Join(errs...)
}

// Engine is one process's view of a namespace. It is safe for concurrent use.
// However many workers it has, it is one node.
type Engine struct {
	ns          streams.Namespace
	opts        Options
	settings    streams.Settings
	log         *slog.Logger
	pub         *publish.Publisher
	work        *streams.Work
	timers      *streams.Timers
	clock       *streams.Clock
	store       *store.Store
	running     *attempt.Running
	triggers    *triggers.Triggers
	logs        *logs.Log
	queues      *queues.Queues
	schedules   *schedules.Schedules
	definitions *scheduler.Definitions
	book        *queues.Book
	member      member
	takers      takers
	metrics     *obs.Metrics                         // nil if nobody wants them
	owner       atomic.Pointer[reconcile.Reconciler] // while this process is the owner
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

// first returns the options that were given, or none.
func first[T any](opts []T) (o T) {
	if len(opts) > 0 {
		o = opts[0]
	}
	return o
}
