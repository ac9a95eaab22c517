package attempt

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/fault"
	"github.com/millrace/millrace/kv"
)

// What ends the context of a handler, as its [context.Cause].
var (
	// ErrLeaseLost means that the node could not renew its lease in time:
	// another node may run the job already.
	ErrLeaseLost = kv.ErrLeaseLost
	// ErrTimeout means that the attempt took longer than [Kind].Timeout.
	ErrTimeout = errors.New("engine: the attempt took too long")
	// ErrHeartbeat means that the handler gave no sign of life for as long as
	// [Kind].Heartbeat says.
	ErrHeartbeat = errors.New("engine: the attempt gave no sign of life")
	// ErrCancelled means that somebody cancelled the job, or that its deadline
	// has passed.
	ErrCancelled = errors.New("engine: the job was cancelled")
	// ErrStopping means that the worker ends.
	ErrStopping = errors.New("engine: the worker stops")
)

// errShut is why a job is handed back that was claimed as its gate was closed.
var errShut = errors.New("engine: its node drains, or its queue is paused")

// The codes of attempts that ended by [ErrTimeout] and [ErrHeartbeat], and the
// names under which those travel.
const (
	codeTimeout   = "timeout"
	codeHeartbeat = "heartbeat"
)

func init() {
	fault.RegisterValue(codeTimeout, ErrTimeout)
	fault.RegisterValue(codeHeartbeat, ErrHeartbeat)
}

// Fail returns an error that ends the job without another attempt. Its code is
// that of err, or "fail".
func Fail(err error) error { return &failure{err} }

type failure struct{ err error }

func (f *failure) Error() string { return textOf(f.err, "it failed for good, and gave no error") }
func (f *failure) Unwrap() error { return f.err }

// RetryAfter returns an error that fails the attempt like err, and says how long
// to wait before the next one, whatever the job's policy says.
func RetryAfter(d time.Duration, err error) error { return &retryAfter{d, err} }

type retryAfter struct {
	wait time.Duration
	err  error
}

func (r *retryAfter) Error() string {
	return textOf(r.err, "it asked to be tried again, and gave no error")
}
func (r *retryAfter) Unwrap() error { return r.err }

// textOf returns the text of an error, or another one for none.
func textOf(err error, none string) string {
	if err == nil {
		return none
	}
	return err.Error()
}

// Snooze returns an error that hands the job back without counting a failure,
// to be tried again after d by any worker.
func Snooze(d time.Duration) error { return &snooze{d} }

type snooze struct{ wait time.Duration }

func (s *snooze) Error() string { return fmt.Sprintf("snoozed for %v", s.wait) }
