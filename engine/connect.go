package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/attempt"
	"github.com/millrace/millrace/engine/logs"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/engine/triggers"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers/scheduler"
)

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
//
// NATS need not be there yet. What may pass is tried again until ctx ends, or for
// [Options.Patience] after the first failure: a connection that is down or breaks,
// requests that nobody answers, streams without a leader, a JetStream that is
// unavailable. If that lasts for more than a second the logger is told, and every
// ten seconds from then on. What will not pass, such as a denied permission, is
// returned at once.
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

// open opens the namespace. All that it asks NATS for is asked by streams.Ensure,
// which tries again.
func open(ctx context.Context, pub *publish.Publisher, o Options) (*Engine, error) {
	e := &Engine{ns: streams.Namespace(o.Namespace), opts: o, log: o.Logger, pub: pub, member: member{turn: make(chan struct{}, 1)}}
	e.clock = streams.NewClock(e.ns, pub)
	e.openQueues()
	e.openSchedules()
	settings, err := streams.Ensure(ctx, e.ns, pub, streams.Options{
		Existing: o.Existing, Replicas: o.Replicas, Lease: o.Lease, Holder: o.Node,
		Patience: o.Patience, Then: e.learn, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	e.settings, e.running = settings, attempt.NewRunning(settings.Lease)
	if e.work, err = streams.NewWork(e.ns, pub); err != nil {
		return nil, err
	}
	if e.timers, err = streams.NewTimers(e.ns, pub); err != nil {
		return nil, err
	}
	e.logs = logs.Open(pub, logs.Options{Namespace: e.ns, Logger: o.Logger})
	e.definitions = scheduler.OpenDefinitions(pub, e.ns, o.Logger)
	kept := store.Options{
		Namespace: e.ns, Lease: settings.Lease, Retention: e.book.Retention, Snapshot: e.snapshot,
		Declines: e.definitions.Declines, Logger: o.Logger,
	}
	e.meter(&kept)
	e.store = store.Open(pub, store.Assets{
		Work: e.work, Timers: e.timers, Clock: e.clock, Limits: streams.NewLimits(e.ns, pub), Asker: nodes.NewAsker(pub, e.ns),
	}, kept)
	e.triggers = triggers.Open(pub, e.store, triggers.Options{Namespace: e.ns, Make: e.started, Holder: o.Node, Logger: o.Logger})
	return e, e.showMetrics()
}

// learn reads what a process has to know before it begins: the time of the server
// and the definitions of queues.
func (e *Engine) learn(ctx context.Context) error {
	if err := e.clock.Measure(ctx); err != nil {
		return err
	}
	return e.book.Load(ctx)
}

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
