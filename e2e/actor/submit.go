package actor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/wait"
)

// Load is jobs to submit: P0, P1 and so on, in one queue.
type Load struct {
	Queue, Prefix string
	Count         int     // how many; 0: until the context ends
	Rate          float64 // how many a second; 0: as fast as possible
	Work          Work
	MaxAttempts   int           // failures that end a job; 0: as the worker says
	At            time.Time     // when all of them are due; zero: at once
	Within        time.Duration // and how much later each may be: by a random part of it
	Delay         time.Duration // or how long each waits at least
	// QueueTimeout is after how long a job fails that nobody has started; 0: never.
	QueueTimeout time.Duration

	// Broadcast makes each of them a broadcast, and Shards a job of so many shards.
	Broadcast *Broadcast
	Shards    int
	// Deadline is after how long a broadcast, or a sharded job, fails; 0: never.
	Deadline time.Duration
}

// Broadcast is how the broadcasts of a load are to be. The zero value is the
// engine's default.
type Broadcast struct {
	OnLost, Done string
	MaxParallel  int
}

const (
	// submitters is how many submits are under way at once.
	submitters = 64
	// answerPatience is how long a submit may take before it is tried again.
	answerPatience = 10 * time.Second
	// againAfter is how long to wait before that.
	againAfter = 250 * time.Millisecond
)

// Submit submits a load. Each job is submitted again, under the same ID, until an
// answer is certain; each try is a call in the ledger. When ctx ends, what has no
// answer is left.
func (a *Actor) Submit(ctx context.Context, eng *engine.Engine, load Load) error {
	group, ctx := errgroup.WithContext(ctx)
	numbers := make(chan int)
	group.Go(func() error {
		defer close(numbers)
		load.pace(ctx, numbers)
		return nil
	})
	job := a.Job(load.Queue, load.MaxAttempts)
	for range submitters {
		group.Go(func() error {
			for n := range numbers {
				id, one := fmt.Sprint(load.Prefix, n), load
				if load.Within > 0 {
					one.At = load.At.Add(rand.N(load.Within)).Round(time.Millisecond)
				}
				err := a.insist(ctx, a.call(one, id), func(ctx context.Context) (bool, error) {
					return one.submit(ctx, eng, job, id)
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// submit submits one job of the load.
func (l Load) submit(ctx context.Context, eng *engine.Engine, job *engine.Job[Work, Result], id string) (created bool, err error) {
	switch {
	case l.Broadcast != nil:
		handle, err := job.Broadcast(ctx, eng, l.Work, engine.BroadcastOptions{
			ID: id, OnLost: engine.OnLost(l.Broadcast.OnLost), Done: engine.Done(l.Broadcast.Done), MaxParallel: l.Broadcast.MaxParallel,
			MaxAttempts: l.MaxAttempts, Deadline: l.Deadline, At: l.At, Delay: l.Delay,
		})
		return err == nil && handle.Created, err
	case l.Shards > 0:
		handle, err := job.SubmitShards(ctx, eng, l.Work, engine.ShardOptions{
			ID: id, Shards: l.Shards, MaxAttempts: l.MaxAttempts, Deadline: l.Deadline, At: l.At, Delay: l.Delay,
		})
		return err == nil && handle.Created, err
	default:
		handle, err := job.Submit(ctx, eng, l.Work, engine.SubmitOptions{ID: id, At: l.At, Delay: l.Delay, QueueTimeout: l.QueueTimeout})
		return err == nil && handle.Created, err
	}
}

// pace hands out the numbers of the jobs at the rate of the load, until ctx ends.
func (l Load) pace(ctx context.Context, numbers chan<- int) {
	began := time.Now()
	for n := 0; l.Count == 0 || n < l.Count; n++ {
		if l.Rate > 0 {
			wait.For(ctx, time.Until(began.Add(time.Duration(float64(n)/l.Rate*float64(time.Second)))))
		}
		select {
		case numbers <- n:
		case <-ctx.Done():
			return
		}
	}
}

// call is the submit of one job, as the ledger has it, which says when the job is
// due at the earliest.
func (a *Actor) call(l Load, id string) ledger.Entry {
	e := ledger.Entry{What: ledger.Call, Verb: ledger.Submit, Job: l.Queue + "." + id, Count: l.Shards}
	if !l.At.IsZero() {
		e.Due = l.At.UnixNano()
	}
	if l.Delay > 0 {
		e.Due = a.Ledger.Now() + l.Delay.Nanoseconds()
	}
	return e
}

// insist makes a call that submits a job until the answer is certain.
func (a *Actor) insist(ctx context.Context, e ledger.Entry, submit func(context.Context) (created bool, err error)) error {
	e.Process = a.Process
	for ctx.Err() == nil {
		e.At, e.Error, e.Call = 0, "", a.Ledger.Now()
		trying, cancel := context.WithTimeout(ctx, answerPatience)
		created, err := submit(trying)
		cancel()
		if e.Outcome = outcome(created, err); err != nil {
			e.Error = err.Error()
		}
		if failed := a.Ledger.Write(e); failed != nil {
			return fmt.Errorf("actor: submit %s: %w", e.Job, failed)
		}
		if err == nil {
			return nil
		}
		slog.WarnContext(ctx, "submit is tried again", "job", e.Job, "err", err)
		wait.For(ctx, againAfter)
	}
	return nil
}

// outcome says what is known of a submit. One that failed may have been stored
// all the same, unless there was no room.
func outcome(created bool, err error) string {
	switch {
	case errors.Is(err, engine.ErrFull):
		return ledger.Refused
	case err != nil:
		return ledger.Unknown
	case created:
		return ledger.Created
	}
	return ledger.Attached
}
