package attempt

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/engine/fault"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
)

// maxReason is how much a record keeps of why an attempt was handed back, in
// bytes.
const maxReason = 2 << 10

// erring is a failure under the policy of its kind, still without its reason.
func erring(hold machine.Hold, kind Kind) machine.Erred {
	return machine.Erred{Hold: hold, Retry: kind.Retry, Random: rand.Float64()}
}

// crashed is what an attempt leads to whose handler did not return.
func (r *Runner) crashed(j machine.Job, token string, crash *PanicError) machine.Event {
	ev := erring(machine.Hold{Token: token, At: r.opts.Clock.Now()}, r.opts.Kinds[j.Kind])
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

// checkResult refuses what could not be stored. Another attempt would fare no better.
func checkResult(result json.RawMessage) error {
	if len(result) > store.MaxValue { // before it is read
		return Fail(fmt.Errorf("the result has %d bytes, and up to %d are stored: put it elsewhere and return a reference", len(result), store.MaxValue))
	}
	if err := machine.CheckValue(result); err != nil {
		return Fail(fmt.Errorf("the result cannot be stored: %w", err))
	}
	return nil
}
