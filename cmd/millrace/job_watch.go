package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
)

type jobWatchCmd struct {
	IDs   []string `arg:"" name:"id" optional:"" help:"IDs of the jobs: queue, dot, local ID."`
	State string   `help:"Only changes to this state." placeholder:"STATE"`
	Queue string   `help:"Only jobs of this queue." placeholder:"QUEUE"`
	Kind  string   `help:"Only jobs of this kind." placeholder:"KIND"`
}

// errWatched ends a watch whose jobs have all ended.
var errWatched = errors.New("all have ended")

// Run prints changes of jobs as they happen.
func (c jobWatchCmd) Run(ctx context.Context, e *env) error {
	if err := checkWhich(c.State, c.Queue); err != nil {
		return err
	}
	open := map[string]bool{}
	for _, id := range c.IDs {
		if err := checkJobID(id); err != nil {
			return err
		}
		open[id] = true
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	for id := range open {
		if _, err := eng.Get(ctx, id); errors.Is(err, engine.ErrNotFound) {
			return notFound(e, id)
		} else if err != nil {
			return err
		}
	}
	return c.watch(ctx, e, eng, open)
}

// watch prints the changes of open jobs until none is open. Without any it
// prints those of all jobs that have not ended long ago.
func (c jobWatchCmd) watch(ctx context.Context, e *env, eng *engine.Engine, open map[string]bool) error {
	watching, end := context.WithCancelCause(ctx)
	defer end(nil)
	began := time.Now()
	err := eng.Watch(watching, engine.ListOptions{State: c.State, Queue: c.Queue, Kind: c.Kind}, func(j engine.JobInfo) {
		switch {
		case watching.Err() != nil, len(c.IDs) > 0 && !open[j.ID]:
			return
		case len(c.IDs) == 0 && j.Finished != nil && j.Finished.Before(began):
			return
		}
		if err := e.change(j); err != nil {
			end(err)
		}
		if j.Ended() && open[j.ID] {
			delete(open, j.ID)
			if len(open) == 0 {
				end(errWatched)
			}
		}
	})
	switch cause := context.Cause(watching); {
	case errors.Is(cause, errWatched), errors.Is(cause, errInterrupted):
		return nil
	case cause != nil:
		return cause
	}
	return err
}

// change prints one change of a job on one line.
func (e *env) change(j engine.JobInfo) error {
	if e.Output == "json" {
		return e.json(j)
	}
	line := fmt.Sprintf("%s  %-9s  %s", time.Now().Format("15:04:05.000"), j.State, j.ID)
	switch {
	case j.NextAttempt != nil:
		line += fmt.Sprintf("  %s, due %s", waitsFor(j), show.Time(j.NextAttempt))
	case j.State == "scheduled":
		line += "  waits for " + waitsFor(j)
	case j.Attempt > 0 && !j.Ended():
		line += fmt.Sprintf("  attempt %d on %s", j.Attempt, deref(j.Node))
		if why := waitsFor(j); why != "" {
			line += ", waits for " + why
		}
		if at := progress(j.Progress); at != "" {
			line += "  " + show.Plain(at, widestCell)
		}
	case j.Ended():
		line += "  after " + show.Took(j.Created, j.Finished)
	}
	if m := show.Message(j.Error); m != "" {
		line += "  " + show.Plain(m, widestCell)
	}
	_, err := fmt.Fprintln(e.stdout, line)
	return err
}
