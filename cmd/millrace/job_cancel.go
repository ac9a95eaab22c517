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
	ID    string   `arg:"" optional:"" help:"ID of the job: queue, dot, local ID."`
	Wait  bool     `help:"Wait until the job has ended; the exit status is 1 if it succeeded all the same."`
	All   bool     `help:"All jobs that have not ended, instead of one."`
	Queue string   `help:"With --all: only jobs of this queue." placeholder:"QUEUE"`
	Kind  string   `help:"With --all: only jobs of this kind." placeholder:"KIND"`
	State []string `help:"With --all: only jobs in this state: scheduled, pending, running or retrying. May be repeated." placeholder:"STATE"`
}

func (c jobCancelCmd) check() error {
	switch {
	case !c.All && (c.Queue != "" || c.Kind != "" || len(c.State) > 0):
		return errors.New("--queue, --kind and --state say which of --all: add it, or leave them out")
	case !c.All && c.ID == "":
		return errors.New("which job is not said: give its ID, or use --all, with --queue, --kind or --state for some of them")
	case c.All && c.ID != "":
		return errors.New("--all takes no ID: leave out one of them")
	case c.All && c.Wait:
		return errors.New("--all does not wait: leave out --wait, and look with millrace job list")
	}
	return nil
}

// Run cancels a job and prints it, or many.
func (c jobCancelCmd) Run(ctx context.Context, e *env) error {
	if err := c.check(); err != nil {
		return usage(err)
	}
	if c.All {
		return c.cancelAll(ctx, e)
	}
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
