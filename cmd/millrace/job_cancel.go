package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/engine"
)

type jobCancelCmd struct {
	ID string `arg:"" help:"ID of the job: queue, dot, local ID."`
}

// Run cancels a job and prints it.
func (c jobCancelCmd) Run(ctx context.Context, e *env) error {
	return one(ctx, e, c.ID, func(eng *engine.Engine) (engine.JobInfo, error) {
		info, err := eng.Cancel(ctx, c.ID)
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			err = c.explain(ctx, eng, err)
		}
		return info, err
	})
}

// explain says what about the job keeps it from being cancelled.
func (c jobCancelCmd) explain(ctx context.Context, eng *engine.Engine, err error) error {
	job, getErr := eng.Get(ctx, c.ID)
	switch {
	case getErr != nil:
		return err
	case job.Ended():
		return fmt.Errorf("job %s has %s already", c.ID, job.State)
	}
	return err
}
