package engine

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/attempt"
	"github.com/millrace/millrace/engine/fault"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// ErrNotFound is returned for a job, a trigger or a node that is not there.
var ErrNotFound = store.ErrNotFound

// ErrNotEnded is returned by [Engine.Delete] and [Engine.Retry] for a job that
// has not ended.
var ErrNotEnded = store.ErrNotEnded

// ErrPart is returned by [Engine.Delete] for a part of a broadcast, or a shard, which
// goes with its broadcast, and by [Engine.Retry] for one whose broadcast has ended:
// retry that.
var ErrPart = store.ErrParent

// ErrOffline is returned for a node that cannot be asked because it is not
// there.
var ErrOffline = nodes.ErrOffline

// ErrFull is returned by submits when 90 % of a storage limit is used: the rest
// is for the jobs that are there.
var ErrFull = streams.ErrFull

// What ends the context of a handler, as its [context.Cause].
var (
	// ErrLeaseLost means that the node could not renew its lease in time:
	// another node may run the job already.
	ErrLeaseLost = attempt.ErrLeaseLost
	// ErrTimeout means that the attempt took longer than JobOptions.Timeout.
	ErrTimeout = attempt.ErrTimeout
	// ErrHeartbeat means that the handler did not call [Current.Heartbeat] or
	// [Current.Progress] for as long as JobOptions.Heartbeat says.
	ErrHeartbeat = attempt.ErrHeartbeat
	// ErrCancelled means that somebody cancelled the job, or that its deadline
	// has passed. A handler that returns an error then ends it so; one that
	// succeeds all the same has won.
	ErrCancelled = attempt.ErrCancelled
	// ErrStopping means that the worker ends. A handler that returns an
	// error then is handed back, to run again elsewhere.
	ErrStopping = attempt.ErrStopping
)

// RegisterError makes errors of type T keep their type on their way: wherever one
// is in the chain of an error that a handler returns, [errors.As] finds it in
// what [Handle.Wait] and [JobInfo.Err] return, in every process that has
// registered the type under the same name. They travel as their JSON, up to
// 4 KiB. The name is one token or several with dots, such as
// "payment.declined", and the code of such an error, unless the chain has a
// method Code() string before.
//
// It is to be called when the program starts, like gob.Register, and panics if
// the name has another meaning already.
func RegisterError[T error](name string) { fault.Register[T](name) }

// RegisterSentinel makes an error that callers compare, such as one made by
// errors.New in a variable, keep its identity on its way: [errors.Is] finds it
// where [RegisterError] lets [errors.As] find a type.
func RegisterSentinel(name string, err error) { fault.RegisterValue(name, err) }

// Fail returns an error that ends the job without another attempt. Its code is
// that of err, or "fail".
func Fail(err error) error { return attempt.Fail(err) }

// RetryAfter returns an error that fails the attempt like err, and says how long
// to wait before the next one, whatever the job's [Retry] says.
func RetryAfter(d time.Duration, err error) error { return attempt.RetryAfter(d, err) }

// Snooze returns an error that hands the job back without counting a failure,
// to be tried again after d by any worker.
func Snooze(d time.Duration) error { return attempt.Snooze(d) }

// JobError is why a job that was waited for has no result.
type JobError struct {
	ID      string
	State   string // failed or cancelled
	Message string // of the last error
	Code    string // of the last error, or empty

	err error
}

// Error names the job, how it ended and why.
func (e *JobError) Error() string {
	return fmt.Sprintf("job %s %s: %s", e.ID, e.State, e.Message)
}

// Unwrap returns the last error as it arrived, with what is registered in it: see
// [RegisterError].
func (e *JobError) Unwrap() error { return e.err }

// Is makes a job that was cancelled an [ErrCancelled] for whoever waits for it.
func (e *JobError) Is(target error) bool {
	return target == ErrCancelled && e.State == string(machine.Cancelled)
}

// absent is what an error says of something that is not there and is no job.
type absent string

func (a absent) Error() string        { return string(a) }
func (a absent) Is(target error) bool { return target == ErrNotFound }
