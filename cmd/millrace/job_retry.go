package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/engine"
)

type jobRetryCmd struct {
	IDs []string `arg:"" name:"id" help:"IDs of the jobs: queue, dot, local ID."`
}

// Run retries jobs. It goes on after one that cannot be retried.
func (c jobRetryCmd) Run(ctx context.Context, e *env) error { return retryJobs(ctx, e, c.IDs) }

// retried is a job as retry prints it.
type retried struct {
	ID     string `json:"id"`
	Action string `json:"action"`
}

// retryJobs retries jobs, if they ended in one of the states, or in any if there
// are none.
func retryJobs(ctx context.Context, e *env, ids []string, states ...string) error {
	var wrong []error
	for _, id := range ids {
		wrong = append(wrong, checkJobID(id))
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	var errs []error
	for _, id := range ids {
		_, err := eng.Retry(ctx, id, states...)
		if err == nil {
			err = describe(e, retried{id, "retried"}, []field{{"job " + id, "retried"}})
		}
		errs = append(errs, whyNotRetried(ctx, e, eng, id, err))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// whyNotRetried says what about a job keeps it from being retried.
func whyNotRetried(ctx context.Context, e *env, eng *engine.Engine, id string, err error) error {
	if errors.Is(err, engine.ErrNotFound) {
		return notFound(e, id)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	job, getErr := eng.Get(ctx, id)
	switch {
	case getErr != nil:
		return err
	case errors.Is(err, engine.ErrNotEnded):
		return fmt.Errorf("job %s is %s: only one that has ended can be retried", id, job.State)
	case errors.Is(err, engine.ErrPart) && job.Parent != nil:
		return fmt.Errorf("job %s is a part of %s, which has ended: see millrace broadcast retry %s", id, *job.Parent, *job.Parent)
	case job.State == "succeeded" || job.State == "cancelled" || job.State == "skipped":
		return fmt.Errorf("job %s is %s, and not dead: to run it all the same, see millrace job retry --help", id, job.State)
	}
	return err
}
