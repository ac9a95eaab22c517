package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/engine"
)

type jobDeleteCmd struct {
	IDs []string `arg:"" name:"id" help:"IDs of the jobs: queue, dot, local ID."`
}

// deleted is a job as delete prints it.
type deleted struct {
	ID     string `json:"id"`
	Action string `json:"action"`
}

// Run deletes jobs. It goes on after one that cannot be deleted.
func (c jobDeleteCmd) Run(ctx context.Context, e *env) error {
	var wrong []error
	for _, id := range c.IDs {
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
	for _, id := range c.IDs {
		err := eng.Delete(ctx, id)
		if err == nil {
			err = describe(e, deleted{id, "deleted"}, []field{{"job " + id, "deleted"}})
		}
		errs = append(errs, c.explain(ctx, e, eng, id, err))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// explain says what about a job keeps it from being deleted.
func (c jobDeleteCmd) explain(ctx context.Context, e *env, eng *engine.Engine, id string, err error) error {
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return notFound(e, id)
	case errors.Is(err, engine.ErrNotEnded):
		state := "not ended"
		if job, err := eng.Get(ctx, id); err == nil {
			state = job.State
		}
		return fmt.Errorf("job %s is %s: only one that has ended can be deleted: see millrace job cancel --help", id, state)
	case errors.Is(err, engine.ErrPart):
		if job, err := eng.Get(ctx, id); err == nil && job.Parent != nil {
			return fmt.Errorf("job %s is a part of %s, and goes with it: see millrace job delete %s", id, *job.Parent, *job.Parent)
		}
	}
	return err
}
