package attempt

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/obs"
)

// handle runs the handler of a job that this node holds, and says what that
// leads to. It does not start it if the worker stops by now, or has lost its
// lease. A panic in the methods of the error that the handler returned is a
// failure.
func (r *Runner) handle(taking, lease context.Context, says *reporter, t *intake.Taken) (ev machine.Event) {
	j, token := says.claimed, says.token
	defer func() {
		if p := recover(); p != nil {
			ev = r.crashed(j, token, &PanicError{Value: p, Stack: string(debug.Stack())})
		}
	}()
	hold := machine.Hold{Token: token, At: r.opts.Clock.Now()}
	switch {
	case taking.Err() != nil:
		return returned(hold, ErrStopping, time.Time{})
	case !t.Open(): // since the claim was sent
		return returned(hold, errShut, time.Time{})
	}
	if lease.Err() != nil || !r.opts.Node.Ready() { // which a process that was frozen knows first
		return returned(hold, ErrLeaseLost, time.Time{})
	}
	kind := r.opts.Kinds[j.Kind]
	ctx, cancel := context.WithCancelCause(r.handling)
	defer cancel(nil)
	r.opts.Running.endBy(token, cancel)
	defer context.AfterFunc(lease, func() {
		r.opts.Running.leaseLost(token)
		cancel(ErrLeaseLost)
	})()
	input, over := r.input(ctx, j, erring(hold, kind))
	if over != nil {
		return over
	}
	if kind.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, kind.Timeout, ErrTimeout)
		defer stop()
	}
	if kind.Heartbeat > 0 {
		defer says.watch(kind.Heartbeat, func() { cancel(ErrHeartbeat) })()
	}
	ctx = context.WithValue(obs.Extract(ctx, j.Trace), currentKey{}, r.current(says))
	t.Decided()
	result, err := kind.Handle(ctx, input)
	if err == nil {
		err = checkResult(result)
	}
	hold.At = r.opts.Clock.Now()
	return conclude(context.Cause(ctx), result, err, erring(hold, kind))
}

// current returns what a handler is told of its job.
func (r *Runner) current(says *reporter) Current {
	j := says.claimed
	c := Current{
		ID: j.ID, Kind: j.Kind, Attempt: j.Attempt, Fence: j.Fence,
		Node: j.Lease.Node, Namespace: string(r.opts.Namespace), says: says,
	}
	if p := j.Parent; p != nil {
		c.Parent, c.Part = p.ID, p.Part
		if s := p.Shard; s != nil {
			c.Shard = &Shard{Index: s.Index, Total: s.Total, Parameter: s.Parameter}
		}
	}
	return c
}
