package attempt

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine/machine"
)

// What the end of a handler leads to follows from what it returned, and from what
// ended its context before.
func TestConclude(t *testing.T) {
	t.Parallel()
	const nap, soon = time.Hour, time.Minute
	boom := errors.New("boom")
	hold := machine.Hold{Token: "t", At: time.Unix(1, 0)}
	returned := func(reason error, due time.Time) machine.Returned {
		return machine.Returned{Hold: hold, Reason: reason.Error(), Due: due}
	}
	erred := func(code, message string) machine.Erred {
		return machine.Erred{Hold: hold, Error: machine.Error{Code: code, Message: message}}
	}
	final := func(ev machine.Erred) machine.Erred { ev.Final = true; return ev }
	after := func(d time.Duration, ev machine.Erred) machine.Erred { ev.After = d; return ev }
	tests := []struct {
		name  string
		cause error
		err   error
		want  machine.Event
	}{
		{"success", nil, nil, machine.Done{Hold: hold, Result: json.RawMessage("1")}},
		{"success although cancelled", ErrCancelled, nil, machine.Done{Hold: hold, Result: json.RawMessage("1")}},
		{"success without a lease", ErrLeaseLost, nil, machine.Done{Hold: hold, Result: json.RawMessage("1")}},
		{"an error", nil, boom, erred("", "boom")},
		{"for good", nil, Fail(boom), final(erred("fail", "boom"))},
		{"for good, wrapped", nil, fmt.Errorf("x: %w", Fail(boom)), final(erred("fail", "x: boom"))},
		{"for good as it stops", ErrStopping, Fail(boom), final(erred("fail", "boom"))},
		{"later", nil, RetryAfter(soon, boom), after(soon, erred("", "boom"))},
		{"at once", nil, RetryAfter(-soon, boom), after(time.Millisecond, erred("", "boom"))},
		{"a nap", nil, Snooze(nap), returned(Snooze(nap), hold.At.Add(nap))},
		{"no nap", nil, Snooze(-nap), returned(Snooze(-nap), hold.At)},
		{"a nap as it stops", ErrStopping, Snooze(nap), returned(Snooze(nap), hold.At.Add(nap))},
		{"it stops", ErrStopping, boom, returned(ErrStopping, time.Time{})},
		{"the lease is lost", ErrLeaseLost, boom, returned(ErrLeaseLost, time.Time{})},
		{"cancelled", ErrCancelled, boom, erred("", "boom")},
		{"too long", ErrTimeout, boom, erred("timeout", ErrTimeout.Error()+": boom")},
		{"too long, as it says", ErrTimeout, ErrTimeout, erred("timeout", ErrTimeout.Error())},
		{"too long, and later", ErrTimeout, RetryAfter(soon, boom), after(soon, erred("timeout", ErrTimeout.Error()+": boom"))},
		{"silent", ErrHeartbeat, boom, erred("heartbeat", ErrHeartbeat.Error()+": boom")},
		{"a panic", nil, &PanicError{Value: "no"}, erred("panic", "panic: no")},
		{"a panic as it stops", ErrStopping, &PanicError{Value: "no"}, erred("panic", "panic: no")},
		{"a panic with an error that ends the job", nil, &PanicError{Value: Fail(boom)}, erred("panic", "panic: boom")},
	}
	for _, tt := range tests {
		got := conclude(tt.cause, json.RawMessage("1"), tt.err, machine.Erred{Hold: hold})
		if failed, ok := got.(machine.Erred); ok {
			failed.Error.Causes, failed.Error.Stack = nil, "" // what those are is a matter of package fault
			got = failed
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// A record keeps the beginning of the reason for which it was handed back.
func TestReturnedReason(t *testing.T) {
	t.Parallel()
	ev := returned(machine.Hold{}, errors.New(strings.Repeat("x", 2*maxReason)), time.Time{})
	if got := ev.(machine.Returned).Reason; len(got) > maxReason || !strings.HasPrefix(got, "xxx") {
		t.Errorf("the reason has %d bytes, want up to %d", len(got), maxReason)
	}
}
