package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/fault"
	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/obs"
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
)

// errShut is why a job is handed back that was claimed as its gate was closed.
var errShut = errors.New("engine: its node drains, or its queue is paused")

// receive takes an item that has a slot, and gives it a goroutine.
func (h *hand) receive(ctx context.Context, t *intake.Taken, err error) {
	h.eng.running.hold(t.Delivery)
	if err != nil {
		h.log.ErrorContext(ctx, "message in the work queue is no item", "err", err)
		h.handBack(t, h.eng.settings.Lease) // to whoever knows it
		return
	}
	h.attempts.Go(func() { h.attempt(ctx, t) })
}

// handBack gives an item that has not started to others, after a delay.
func (h *hand) handBack(t *intake.Taken, delay time.Duration) {
	h.eng.running.release(t.Delivery)
	if err := t.Nak(delay); err != nil {
		h.log.Debug("item comes back at another time", "queue", t.Queue, "err", err)
	}
	t.Free()
}

// attempt claims the job of a delivery, runs it, finishes it and acknowledges
// the delivery, in this order. It gives its slot back when the handler has
// returned.
func (h *hand) attempt(taking context.Context, t *intake.Taken) {
	lease, _ := h.node.Lease()
	if taking.Err() != nil || lease.Err() != nil || !h.in.Open(t.Queue) {
		h.handBack(t, 0)
		return
	}
	token := uuid.NewString()
	// A claim that is under way when the worker stops is seen through: a job
	// that was claimed unknowingly would look like one whose node died.
	entry, ok, err := h.eng.store.Deliver(h.storing, t.Delivery, token, h)
	if !ok {
		h.answered(taking, t.Delivery, err)
		t.Decided()
		if refusal := new(jetstream.APIError); errors.As(err, &refusal) {
			pause(taking, leftPause)
		}
		t.Free()
		return
	}
	r := h.reporter(entry, token)
	var ev machine.Event
	defer func() { h.finish(r, t, ev) }() // also if the handler ends its goroutine
	ev = h.handle(taking, lease, r, t)
}

// finish stores what an attempt leads to and acknowledges its delivery. It gives
// its slot back before, unless too many outcomes are under way. What the handler
// said goes into the log first, so that whoever reads along has everything when
// the job ends; its last report goes along with the outcome.
func (h *hand) finish(r *reporter, t *intake.Taken, ev machine.Event) {
	token := r.token
	h.eng.running.returned(token)
	h.decided <- struct{}{}
	t.Free()
	defer func() { <-h.decided }()

	entry, last := r.close()
	if ev == nil {
		ev = h.crashed(entry.Value, token, &PanicError{Value: "the handler ended its goroutine (runtime.Goexit)"})
	}
	r.lines.Flush(h.storing, flushPatience)
	defer r.lines.Close()
	stored, fate, err := h.eng.store.Finish(h.storing, entry, token, lastWords(ev, last))
	if err != nil {
		h.log.Warn("outcome is left to others", "job", entry.Key, "err", err)
		h.eng.running.end(token)
		return
	}
	d := h.eng.running.end(token)
	h.tell(ev, fate, entry.Value, stored.Value)
	if fate.Acknowledge() {
		err = d.Ack()
	}
	if err != nil {
		h.log.Debug("item comes back", "job", entry.Key, "err", err)
	}
}

// tell logs what users want to hear of an attempt that has ended: that it
// failed, or that nobody wanted its outcome.
func (h *hand) tell(ev machine.Event, fate store.Fate, j, now machine.Job) {
	switch erred, failed := ev.(machine.Erred); {
	case fate == store.Stale || fate == store.Ended:
		h.eng.metrics.Stale(j.Kind)
		h.log.Warn("outcome is stale", "job", j.ID, "kind", j.Kind, "attempt", j.Attempt, "job_state", now.State)
	case failed && now.State == machine.Cancelled:
		h.log.Info("attempt was cancelled", "job", j.ID, "kind", j.Kind, "attempt", j.Attempt)
	case failed:
		h.log.Warn("attempt failed", "job", j.ID, "kind", j.Kind, "attempt", j.Attempt, "state", now.State, "err", erred.Error.Message)
	}
}

// answered notes that a delivery has led to nothing here. If it was adopted by
// an attempt, that keeps it.
func (h *hand) answered(ctx context.Context, d *streams.Delivery, err error) {
	if !h.eng.running.adopted(d) {
		h.eng.running.release(d)
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	level := slog.LevelDebug
	if now, last := time.Now().Unix(), h.warned.Load(); now-last >= warnEvery && h.warned.CompareAndSwap(last, now) {
		level = slog.LevelWarn
	}
	h.log.Log(ctx, level, "item is left", "queue", d.Queue, "job", d.Queue+"."+d.Local, "err", err)
}

// handle runs the handler of a job that this node holds, and says what that
// leads to. It does not start it if the worker stops by now, or has lost its
// lease. A panic in the methods of the error that the handler returned is a
// failure.
func (h *hand) handle(taking, lease context.Context, r *reporter, t *intake.Taken) (ev machine.Event) {
	j, token := r.claimed, r.token
	defer func() {
		if p := recover(); p != nil {
			ev = h.crashed(j, token, &PanicError{Value: p, Stack: string(debug.Stack())})
		}
	}()
	hold := machine.Hold{Token: token, At: h.eng.clock.Now()}
	switch {
	case taking.Err() != nil:
		return returned(hold, ErrStopping, time.Time{})
	case !h.in.Open(t.Queue): // since the claim was sent
		return returned(hold, errShut, time.Time{})
	}
	if lease.Err() != nil || !h.node.Ready() { // which a process that was frozen knows first
		return returned(hold, ErrLeaseLost, time.Time{})
	}
	def := h.handlers[j.Kind]
	ctx, cancel := context.WithCancelCause(h.handling)
	defer cancel(nil)
	h.eng.running.endBy(token, cancel)
	defer context.AfterFunc(lease, func() {
		h.eng.running.leaseLost(token)
		cancel(ErrLeaseLost)
	})()
	input, over := h.input(ctx, j, erring(hold, def))
	if over != nil {
		return over
	}
	if def.opts.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, def.opts.Timeout, ErrTimeout)
		defer stop()
	}
	if def.opts.Heartbeat > 0 {
		defer r.watch(def.opts.Heartbeat, func() { cancel(ErrHeartbeat) })()
	}
	ctx = context.WithValue(obs.Extract(ctx, j.Trace), currentKey{}, Current{
		ID: j.ID, Kind: j.Kind, Attempt: j.Attempt, Fence: j.Fence,
		Node: j.Lease.Node, Namespace: string(h.eng.ns), reporter: r,
	})
	t.Decided()
	result, err := def.handle(ctx, input)
	if err == nil {
		err = checkResult(result)
	}
	hold.At = h.eng.clock.Now()
	return conclude(context.Cause(ctx), result, err, erring(hold, def))
}

// erring is a failure under the policy of a definition, still without its
// reason.
func erring(hold machine.Hold, def *definition) machine.Erred {
	return machine.Erred{Hold: hold, Retry: def.opts.Retry, Random: rand.Float64()}
}

// crashed is what an attempt leads to whose handler did not return.
func (h *hand) crashed(j machine.Job, token string, crash *PanicError) machine.Event {
	ev := erring(machine.Hold{Token: token, At: h.eng.clock.Now()}, h.handlers[j.Kind])
	ev.Error = fault.Encode(crash)
	return ev
}

// returned is what an attempt leads to that ended without a failure.
func returned(hold machine.Hold, reason error, due time.Time) machine.Event {
	return machine.Returned{Hold: hold, Reason: fault.Clip(reason.Error(), maxReason), Due: due}
}

// conclude says what the end of a handler leads to, given what ended its
// context first, if anything did, and the failure that it would be. A panic is a
// failure whatever ended the context, and whatever it was called with.
func conclude(cause error, result json.RawMessage, err error, ev machine.Erred) machine.Event {
	var nap *snooze
	var final *failure
	var later *retryAfter
	var crash *PanicError
	var code, otherwise string // of the failure: whatever the error says, and if it says nothing
	switch {
	case err == nil:
		return machine.Done{Hold: ev.Hold, Result: result}
	case errors.As(err, &crash):
	case errors.As(err, &nap):
		return returned(ev.Hold, nap, ev.At.Add(max(nap.wait, 0)))
	case errors.As(err, &final):
		ev.Final, otherwise = true, "fail"
	case errors.Is(cause, ErrLeaseLost), errors.Is(cause, ErrStopping):
		return returned(ev.Hold, cause, time.Time{})
	case errors.Is(cause, ErrTimeout):
		if !errors.Is(err, ErrTimeout) {
			err = fmt.Errorf("%w: %w", ErrTimeout, err)
		}
		code = codeTimeout
	case errors.Is(cause, ErrHeartbeat):
		if !errors.Is(err, ErrHeartbeat) {
			err = fmt.Errorf("%w: %w", ErrHeartbeat, err)
		}
		code = codeHeartbeat
	}
	if errors.As(err, &later) {
		ev.After = max(later.wait, time.Millisecond)
	}
	ev.Error = fault.Encode(err)
	ev.Error.Code = cmp.Or(code, ev.Error.Code, otherwise)
	return ev
}

// maxReason is how much a record keeps of why an attempt was handed back, in
// bytes.
const maxReason = 2 << 10
