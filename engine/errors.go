package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/kv"
)

// ErrNotFound is returned for a job or a trigger that is not there.
var ErrNotFound = store.ErrNotFound

// ErrRunning is returned by [Engine.Cancel] for a job that has started.
var ErrRunning = store.ErrRunning

// What ends the context of a handler, as its [context.Cause].
var (
	// ErrLeaseLost means that the node could not renew its lease in time:
	// another node may run the job already.
	ErrLeaseLost = kv.ErrLeaseLost
	// ErrTimeout means that the attempt took longer than JobOptions.Timeout.
	ErrTimeout = errors.New("engine: the attempt took too long")
	// ErrStopping means that the worker ends. A handler that returns an
	// error then is handed back, to run again elsewhere.
	ErrStopping = errors.New("engine: the worker stops")
)

// Fail returns an error that ends the job without another attempt.
func Fail(err error) error { return &failure{err} }

type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// Snooze returns an error that hands the job back without counting a failure,
// to be tried again after d. Until then it stays with this worker, without a
// slot.
func Snooze(d time.Duration) error { return &snooze{d} }

type snooze struct{ wait time.Duration }

func (s *snooze) Error() string { return fmt.Sprintf("snoozed for %v", s.wait) }

// JobError is why a job that was waited for has no result.
type JobError struct {
	ID      string
	State   string // failed or cancelled
	Message string // of the last error
	Code    string // of the last error, or empty
}

// Error names the job, how it ended and why.
func (e *JobError) Error() string {
	return fmt.Sprintf("job %s %s: %s", e.ID, e.State, e.Message)
}
