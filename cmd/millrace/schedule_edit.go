package main

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
)

// revisionFlag says which revision an edit is of.
type revisionFlag struct {
	Revision uint64 `help:"Change this revision of the schedule, and no other: see schedule get. The exit status is 3 if another one is there, which is printed." placeholder:"N"`
}

type schedulePauseCmd struct {
	scheduleName
	revisionFlag
	Note string `help:"Why, for people." placeholder:"TEXT"`
}

// Run pauses a schedule.
func (c schedulePauseCmd) Run(ctx context.Context, e *env) error {
	return c.with(ctx, e, func(eng *engine.Engine) error {
		s, err := eng.PauseSchedule(ctx, c.Name, engine.ScheduleEdit{Revision: c.Revision, Note: c.Note})
		if err != nil {
			return err
		}
		return describe(e, s, []field{{"schedule " + c.Name, "paused"}})
	})
}

type scheduleResumeCmd struct {
	scheduleName
	revisionFlag
	Note string `help:"Something for people to know." placeholder:"TEXT"`
}

// Run resumes a schedule.
func (c scheduleResumeCmd) Run(ctx context.Context, e *env) error {
	return c.with(ctx, e, func(eng *engine.Engine) error {
		s, err := eng.ResumeSchedule(ctx, c.Name, engine.ScheduleEdit{Revision: c.Revision, Note: c.Note})
		if err != nil {
			return err
		}
		return describe(e, s, []field{{"schedule " + c.Name, "resumed"}})
	})
}

type scheduleDeleteCmd struct {
	scheduleName
	revisionFlag
}

// Run deletes a schedule.
func (c scheduleDeleteCmd) Run(ctx context.Context, e *env) error {
	return c.with(ctx, e, func(eng *engine.Engine) error {
		if err := eng.DeleteSchedule(ctx, c.Name, engine.ScheduleEdit{Revision: c.Revision}); err != nil {
			return err
		}
		return describe(e, engine.Applied{Key: "schedule." + c.Name, Action: "deleted"}, []field{{"schedule " + c.Name, "deleted"}})
	})
}

// showConflict prints the current definition after an edit that was of another one.
func (e *env) showConflict(err error) {
	var conflict *engine.ConflictError
	if !errors.As(err, &conflict) || conflict.Current == nil {
		return
	}
	printing := e.yaml
	if e.Output == "json" {
		printing = e.json
	}
	if err := printing(*conflict.Current); err != nil {
		fmt.Fprintf(e.stderr, "millrace: print the current definition: %s\n", show.Plain(err.Error(), math.MaxInt))
	}
}
