package attempt

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/engine/logs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/obs"
	"github.com/millrace/millrace/internal/wait"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

const (
	// leftPause is how long a slot stays taken after the server refused what an
	// item asked for: the next one would fare no better, if storage is full.
	leftPause = time.Second
	// warnEvery bounds how often the log warns of that, in seconds.
	warnEvery = 60
	// flushPatience is how long an outcome waits for what the handler said to be
	// stored, not counting the time in which NATS is away.
	flushPatience = 2 * time.Second
	// maxUndecided is how many outcomes may be under way at once, beyond which
	// their slots stay taken.
	maxUndecided = 1024
)

// Kind is how the jobs of a kind are run here.
type Kind struct {
	// Handle runs an attempt, with all that is around it, see [Wrap].
	Handle Handler
	// MaxAttempts is how many failures end a job that does not say it itself.
	MaxAttempts int
	// Timeout bounds an attempt. Default: none.
	Timeout time.Duration
	// Heartbeat is how long an attempt may go without a sign of life. Default:
	// for ever.
	Heartbeat time.Duration
	// Retry says how long to wait between attempts.
	Retry machine.Retry
}

// Options configures a [Runner]. All of it is required but the metrics and the
// logger.
type Options struct {
	Namespace streams.Namespace
	Node      *nodes.Node     // that claims
	Kinds     map[string]Kind // by name
	Store     *store.Store
	Logs      *logs.Log
	Clock     *streams.Clock
	Running   *Running     // of the node
	Metrics   *obs.Metrics // nil if nobody wants them
	// Logger hears how attempts end. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Runner runs the jobs of the items that it is given. Make one with [New].
type Runner struct {
	opts     Options
	handling context.Context // ends handlers
	storing  context.Context // ends the storing of outcomes
	crew     *crew
	decided  chan struct{} // has a token for each outcome that is under way
	warned   atomic.Int64  // when the log warned that an item was left, in seconds since 1970
}

// New returns a runner whose handlers end with handling, and which stores their
// outcomes until storing ends.
func New(handling, storing context.Context, opts Options) *Runner {
	return &Runner{
		opts: opts.withDefaults(), handling: handling, storing: storing, crew: newCrew(), decided: make(chan struct{}, maxUndecided),
	}
}

// Wait waits until no attempt is left, and the outcomes of all are decided.
// Nothing must be taken any more.
func (r *Runner) Wait() { r.crew.wait() }

// Take takes an item that has a slot, and gives it a goroutine.
func (r *Runner) Take(ctx context.Context, t *intake.Taken, err error) {
	r.opts.Running.hold(t.Delivery)
	if err != nil {
		r.opts.Logger.ErrorContext(ctx, "message in the work queue is no item", "err", err)
		r.handBack(t, r.opts.Running.lease) // to whoever knows it
		return
	}
	r.crew.do(func() { r.attempt(ctx, t) })
}

// handBack gives an item that has not started to others, after a delay.
func (r *Runner) handBack(t *intake.Taken, delay time.Duration) {
	r.opts.Running.release(t.Delivery)
	if err := t.Nak(delay); err != nil {
		r.opts.Logger.Debug("item comes back at another time", "queue", t.Queue, "err", err)
	}
	t.Free()
}

// attempt claims the job of a delivery, runs it, finishes it and acknowledges
// the delivery, in this order. It gives its slot back when the handler has
// returned.
func (r *Runner) attempt(taking context.Context, t *intake.Taken) {
	lease, _ := r.opts.Node.Lease()
	if taking.Err() != nil || lease.Err() != nil || !t.Open() {
		r.handBack(t, 0)
		return
	}
	token := uuid.NewString()
	// A claim that is under way when the worker stops is seen through: a job
	// that was claimed unknowingly would look like one whose node died.
	entry, ok, err := r.opts.Store.Deliver(r.storing, t.Delivery, token, r)
	if !ok {
		r.answered(taking, t.Delivery, err)
		t.Decided()
		if refusal := new(jetstream.APIError); errors.As(err, &refusal) {
			wait.For(taking, leftPause)
		}
		t.Free()
		return
	}
	says := r.reporter(entry, token)
	var ev machine.Event
	defer func() { r.finish(says, t, ev) }() // also if the handler ends its goroutine
	ev = r.handle(taking, lease, says, t)
}

// finish stores what an attempt leads to and acknowledges its delivery. It gives
// its slot back before, unless too many outcomes are under way. What the handler
// said goes into the log first, so that whoever reads along has everything when
// the job ends; its last report goes along with the outcome.
func (r *Runner) finish(says *reporter, t *intake.Taken, ev machine.Event) {
	token := says.token
	r.opts.Running.returned(token)
	r.decided <- struct{}{}
	t.Free()
	defer func() { <-r.decided }()

	entry, last := says.close()
	if ev == nil {
		ev = r.crashed(entry.Value, token, &PanicError{Value: "the handler ended its goroutine (runtime.Goexit)"})
	}
	says.lines.Flush(r.storing, flushPatience)
	defer says.lines.Close()
	stored, fate, err := r.opts.Store.Finish(r.storing, entry, token, lastWords(ev, last))
	if err != nil {
		r.opts.Logger.Warn("outcome is left to others", "job", entry.Key, "err", err)
		r.opts.Running.end(token)
		return
	}
	d := r.opts.Running.end(token)
	r.tell(ev, fate, entry.Value, stored.Value)
	if fate.Acknowledge() {
		err = d.Ack()
	}
	if err != nil {
		r.opts.Logger.Debug("item comes back", "job", entry.Key, "err", err)
	}
}

// tell logs what users want to hear of an attempt that has ended: that it
// failed, or that nobody wanted its outcome.
func (r *Runner) tell(ev machine.Event, fate store.Fate, j, now machine.Job) {
	switch erred, failed := ev.(machine.Erred); {
	case fate == store.Stale || fate == store.Ended:
		r.opts.Metrics.Stale(j.Kind)
		r.opts.Logger.Warn("outcome is stale", "job", j.ID, "kind", j.Kind, "attempt", j.Attempt, "job_state", now.State)
	case failed && now.State == machine.Cancelled:
		r.opts.Logger.Info("attempt was cancelled", "job", j.ID, "kind", j.Kind, "attempt", j.Attempt)
	case failed:
		r.opts.Logger.Warn("attempt failed", "job", j.ID, "kind", j.Kind, "attempt", j.Attempt, "state", now.State, "err", erred.Error.Message)
	}
}

// answered notes that a delivery has led to nothing here. If it was adopted by
// an attempt, that keeps it.
func (r *Runner) answered(ctx context.Context, d *streams.Delivery, err error) {
	if !r.opts.Running.adopted(d) {
		r.opts.Running.release(d)
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	level := slog.LevelDebug
	if now, last := time.Now().Unix(), r.warned.Load(); now-last >= warnEvery && r.warned.CompareAndSwap(last, now) {
		level = slog.LevelWarn
	}
	r.opts.Logger.Log(ctx, level, "item is left", "queue", d.Queue, "job", d.Queue+"."+d.Local, "err", err)
}

var _ store.Runner = (*Runner)(nil)

// Identity implements [store.Runner].
func (r *Runner) Identity() (string, uint64) { return r.opts.Node.ID(), r.opts.Node.Incarnation() }

// Begin implements [store.Runner].
func (r *Runner) Begin(job, token string, d *streams.Delivery) (string, uint64) {
	r.opts.Running.begin(job, token, d)
	return r.Identity()
}

// End implements [store.Runner].
func (r *Runner) End(_, token string) { r.opts.Running.refused(token) }

// Runs implements [store.Runner].
func (r *Runner) Runs(job, token string) bool { return r.opts.Running.Runs(job, token) }

// Adopt implements [store.Runner].
func (r *Runner) Adopt(_, token string, d *streams.Delivery) { r.opts.Running.adopt(token, d) }

// Handles implements [store.Runner].
func (r *Runner) Handles(kind string) (int, bool) {
	k, ok := r.opts.Kinds[kind]
	return k.MaxAttempts, ok
}
