package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/nodes"
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
	case !errors.Is(err, engine.ErrRunning):
		return err
	case offline(ctx, eng, deref(job.Node)):
		return fmt.Errorf("job %s is running, and node %s is offline: a worker with kind %s will take the job over", c.ID, deref(job.Node), job.Kind)
	}
	return fmt.Errorf("job %s is running: only one that has not started can be cancelled", c.ID)
}

// offline reports whether a node is known not to be there.
func offline(ctx context.Context, eng *engine.Engine, id string) bool {
	members, err := eng.Nodes(ctx)
	return err == nil && !slices.ContainsFunc(members, func(m nodes.Member) bool {
		return m.ID == id && m.State != nodes.Offline
	})
}
