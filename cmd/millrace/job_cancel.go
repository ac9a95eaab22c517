package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/engine"
)

type jobCancelCmd struct {
	ID   string `arg:"" help:"ID of the job: queue, dot, local ID."`
	Wait bool   `help:"Wait until the job has ended; the exit status is 1 if it succeeded all the same."`
}

// Run cancels a job and prints it.
func (c jobCancelCmd) Run(ctx context.Context, e *env) error {
	won := false
	err := one(ctx, e, c.ID, func(eng *engine.Engine) (engine.JobInfo, error) {
		info, err := eng.Cancel(ctx, c.ID)
		if err != nil {
			return info, c.explain(ctx, eng, err)
		}
		if info.Ended() {
			return info, nil
		}
		if c.Wait {
			info, err = c.await(ctx, eng)
			won = info.State == "succeeded"
			return info, err
		}
		if e.Output == "table" {
			fmt.Fprintf(e.stderr, "millrace: the job ends when its attempt on node %s does, which is told to: see millrace job watch %s\n", deref(info.Node), c.ID)
		}
		return info, nil
	})
	if err == nil && won {
		return fmt.Errorf("job %s has succeeded all the same", c.ID)
	}
	return err
}

// await waits until the attempt that was told to end has ended.
func (c jobCancelCmd) await(ctx context.Context, eng *engine.Engine) (engine.JobInfo, error) {
	info, err := eng.Wait(ctx, c.ID)
	if errors.Is(err, errInterrupted) {
		err = fmt.Errorf("%w; the job ends when its attempt does: see millrace job watch %s", err, c.ID)
	}
	return info, err
}

// explain says what about the job keeps it from being cancelled.
func (c jobCancelCmd) explain(ctx context.Context, eng *engine.Engine, err error) error {
	job, getErr := eng.Get(ctx, c.ID)
	if getErr == nil && job.Finished != nil && job.State != "removing" {
		return fmt.Errorf("job %s has %s already", c.ID, job.State)
	}
	return err
}
