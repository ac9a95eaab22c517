package actor

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/engine"
)

// Work is what a handler is told to do: the input of a job. The zero value
// succeeds at once.
type Work struct {
	// For is how long an attempt takes, in milliseconds.
	For int `json:"for,omitempty"`
	// Snooze is how many attempts ask to be run again after [SnoozeFor]: the first
	// ones. Fail is how many fail: the next ones. Attempts are counted as the
	// engine counts them, those included that were lost.
	Snooze int `json:"snooze,omitempty"`
	Fail   int `json:"fail,omitempty"`
	// Burn keeps a processor busy meanwhile, instead of waiting.
	Burn bool `json:"burn,omitempty"`
	// Deaf finishes the work although the context has ended.
	Deaf bool `json:"deaf,omitempty"`
	// Stall never answers, until the context ends.
	Stall bool `json:"stall,omitempty"`

	// Schedule and Tick are what a schedule tells of itself, if one made the job.
	Schedule string    `json:"schedule,omitempty"`
	Tick     time.Time `json:"tick,omitzero"`
}

// SnoozeFor is how long a job is snoozed whose work says so.
const SnoozeFor = 300 * time.Millisecond

// Result is what a handler returns: which run of it that was.
type Result struct {
	Nonce string `json:"nonce"`
}

// errPlanned is why attempts fail.
var errPlanned = errors.New("failed on purpose")

// Kind returns the kind of the jobs of a queue.
func Kind(queue string) string { return queue + ".do" }

// Job defines the jobs of a queue, which do their [Work]. Their failures are
// bounded by maxAttempts; 0 is the engine's default.
func (a *Actor) Job(queue string, maxAttempts int) *engine.Job[Work, Result] {
	return engine.NewJob(Kind(queue), a.handle, engine.JobOptions{Queue: queue, MaxAttempts: maxAttempts})
}

// handle runs an attempt: its start is written first, and its end last.
func (a *Actor) handle(ctx context.Context, w Work) (Result, error) {
	of := engine.JobFrom(ctx)
	nonce, err := a.Start(of, w)
	if err != nil {
		return Result{}, err
	}
	outcome, err := w.do(ctx, of.Attempt)
	if failed := a.End(of, nonce, End{Outcome: outcome, Cause: cause(ctx), Err: err}); failed != nil {
		return Result{}, failed
	}
	return Result{Nonce: nonce}, err
}

// do does the work of an attempt, and says how that ends.
func (w Work) do(ctx context.Context, attempt int) (outcome string, err error) {
	if !w.spend(ctx) {
		return ledger.Obeyed, context.Cause(ctx)
	}
	switch {
	case attempt <= w.Snooze:
		return ledger.Snoozed, engine.Snooze(SnoozeFor)
	case attempt <= w.Snooze+w.Fail:
		return ledger.Failed, errPlanned
	}
	return ledger.Succeeded, nil
}

// spend lets the time of an attempt pass. It returns false if the context has
// ended before, unless the work is deaf to that.
func (w Work) spend(ctx context.Context) bool {
	over := ctx.Done()
	if w.Deaf {
		over = nil
	}
	timer := time.NewTimer(time.Duration(w.For) * time.Millisecond)
	defer timer.Stop()
	passed := timer.C
	if w.Stall {
		passed = nil
	}
	var burning chan struct{} // if it is there it is always ready
	if w.Burn {
		burning = make(chan struct{})
		close(burning)
	}
	for {
		select {
		case <-over:
			return false
		case <-passed:
			return true
		case <-burning:
		}
	}
}
