package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/millrace/millrace/engine"
)

type jobCancelCmd struct {
	IDs   []string `arg:"" name:"id" optional:"" help:"IDs of the jobs: queue, dot, local ID."`
	Wait  bool     `help:"Wait until the jobs have ended; the exit status is 1 if one succeeded all the same."`
	All   bool     `help:"All jobs that have not ended, instead of IDs."`
	Queue string   `help:"With --all: only jobs of this queue." placeholder:"QUEUE"`
	Kind  string   `help:"With --all: only jobs of this kind." placeholder:"KIND"`
	State []string `help:"With --all: only jobs in this state: scheduled, pending, running or retrying. May be repeated." placeholder:"STATE"`
}

func (c jobCancelCmd) check() error {
	switch {
	case !c.All && (c.Queue != "" || c.Kind != "" || len(c.State) > 0):
		return errors.New("--queue, --kind and --state say which of --all: add it, or leave them out")
	case !c.All && len(c.IDs) == 0:
		return errors.New("which jobs is not said: name their IDs, or use --all, with --queue, --kind or --state for some of them")
	case c.All && len(c.IDs) > 0:
		return errors.New("--all takes no ID: leave out one of them")
	case c.All && c.Wait:
		return errors.New("--all does not wait: leave out --wait, and look with millrace job list")
	}
	var wrong []error
	for _, id := range c.IDs {
		wrong = append(wrong, checkJobID(id))
	}
	return errors.Join(wrong...)
}

// Run cancels jobs and prints them. It goes on after one that cannot be cancelled.
func (c jobCancelCmd) Run(ctx context.Context, e *env) error {
	if err := c.check(); err != nil {
		return usage(err)
	}
	if c.All {
		return c.cancelAll(ctx, e)
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	jobs, errs := make([]engine.JobInfo, len(c.IDs)), make([]error, len(c.IDs))
	for i, id := range c.IDs {
		if jobs[i], err = eng.Cancel(ctx, id); err != nil {
			errs[i] = c.explain(ctx, e, eng, id, err)
		}
	}
	for i, job := range jobs {
		if errs[i] == nil {
			errs[i] = c.print(ctx, e, eng, job)
		}
	}
	return errors.Join(errs...)
}

// print prints a job that was cancelled, once it has ended if that is asked for.
func (c jobCancelCmd) print(ctx context.Context, e *env, eng *engine.Engine, job engine.JobInfo) error {
	ending, id := !job.Ended(), job.ID
	if ending && c.Wait {
		var err error
		if job, err = eng.Wait(ctx, id); errors.Is(err, errInterrupted) {
			err = fmt.Errorf("%w; the job ends when its attempt does: see millrace job watch %s", err, id)
		}
		if err != nil {
			return err
		}
	} else if ending && e.Output == "table" {
		fmt.Fprintf(e.stderr, "millrace: the job ends when its attempt on node %s does, which is told to: see millrace job watch %s\n", deref(job.Node), id)
	}
	fields := jobFields(job)
	if len(c.IDs) > 1 {
		fields = []field{{"job " + id, job.State}}
	}
	if err := describe(e, job, fields); err != nil {
		return err
	}
	if ending && job.State == "succeeded" {
		return fmt.Errorf("job %s has succeeded all the same", id)
	}
	return nil
}

// cancelAll cancels all jobs that match and prints how many.
func (c jobCancelCmd) cancelAll(ctx context.Context, e *env) error {
	if err := checkQueue(c.Queue); err != nil {
		return err
	}
	for _, state := range c.State {
		if !slices.Contains([]string{"scheduled", "pending", "running", "retrying"}, state) {
			return usage(fmt.Errorf("--state is %q: use scheduled, pending, running or retrying", state))
		}
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	done, err := eng.CancelAll(ctx, engine.CancelFilter{Queue: c.Queue, Kind: c.Kind, States: c.State})
	if err != nil {
		return fmt.Errorf("%w; %d jobs are cancelled and %d told to end, and cancelling again goes on", err, done.Cancelled, done.Ending)
	}
	return describe(e, done, []field{{"cancelled", strconv.Itoa(done.Cancelled)}, {"told to end", strconv.Itoa(done.Ending)}})
}

// explain says what about a job keeps it from being cancelled.
func (c jobCancelCmd) explain(ctx context.Context, e *env, eng *engine.Engine, id string, err error) error {
	if errors.Is(err, engine.ErrNotFound) {
		return notFound(e, id)
	}
	job, getErr := eng.Get(ctx, id)
	if getErr == nil && job.Finished != nil && job.State != "removing" {
		return fmt.Errorf("job %s has %s already", id, job.State)
	}
	return err
}
