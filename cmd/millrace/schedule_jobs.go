package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
)

type scheduleTriggerCmd struct {
	scheduleName
	Input string `help:"JSON, @FILE, or - for standard input, in place of the schedule's input." placeholder:"JSON"`
	At    string `help:"Time that the job is for, such as 2026-12-24T18:00:00Z, which is tick.time in its input. It runs now in any case; triggering the same time again attaches to the job that is there. Default: now." placeholder:"TIME"`
	Wait  bool   `help:"Wait until the job has ended; the exit status is 1 if it did not succeed."`
}

// Run makes a job and prints it.
func (c scheduleTriggerCmd) Run(ctx context.Context, e *env) error {
	input, err := e.jsonText("--input", c.Input)
	at, wrong := dueFlags{At: c.At}.at()
	if err := errors.Join(err, usage(wrong)); err != nil {
		return err
	}
	return c.with(ctx, e, func(eng *engine.Engine) error {
		job, err := eng.TriggerSchedule(ctx, c.Name, engine.ScheduleRun{At: at, Input: input})
		if err != nil {
			return err
		}
		info, err := job.Get(ctx)
		if err != nil {
			return err
		}
		if input == nil {
			input = info.Input // of the schedule
		}
		s := sent{job.ID, job.Created, input, c.Wait}
		if info.Children != nil {
			return e.submittedParts(ctx, eng, s)
		}
		return e.submittedJob(ctx, eng, s)
	})
}

type scheduleBackfillCmd struct {
	scheduleName
	From string `arg:"" help:"First moment: a time such as 2026-12-24T18:00:00Z, a date in the schedule's zone, or how long ago it is, such as 7d."`
	To   string `arg:"" help:"Moment that is not in it any more, written in the same ways, or now."`
}

// Run makes jobs and prints how many.
func (c scheduleBackfillCmd) Run(ctx context.Context, e *env) error {
	return c.with(ctx, e, func(eng *engine.Engine) error {
		s, err := eng.GetSchedule(ctx, c.Name)
		if err != nil {
			return err
		}
		zone := time.UTC
		if s.Definition != nil && s.Definition.Zone != "" {
			if zone, err = time.LoadLocation(s.Definition.Zone); err != nil {
				return err
			}
		}
		now := time.Now()
		from, err := readMoment("FROM", c.From, now, zone)
		to, wrong := time.Time{}, error(nil) // now, by the server's clock
		if c.To != "now" {
			to, wrong = readMoment("TO", c.To, now, zone)
		}
		if err := errors.Join(err, wrong); err != nil {
			return usage(err)
		}
		done, err := eng.BackfillSchedule(ctx, c.Name, from, to)
		if err != nil && len(done.Jobs) > 0 {
			return fmt.Errorf("%w; %s made, and doing it again goes on", err, show.Count(done.Made, "job"))
		}
		if err != nil {
			return err
		}
		fields := []field{{"made", strconv.Itoa(done.Made)}, {"attached", onlyIf(done.Attached > 0, strconv.Itoa(done.Attached))}}
		if n := len(done.Jobs); n > 0 {
			fields = append(fields, field{"first", done.Jobs[0]}, field{"last", done.Jobs[n-1]})
		}
		return describe(e, done, fields)
	})
}

// readMoment reads a moment of the past as people write it.
func readMoment(what, text string, now time.Time, zone *time.Location) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly, "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateTime} {
		if at, err := time.ParseInLocation(layout, text, zone); err == nil {
			return at, nil
		}
	}
	if ago, err := spec.ParseDuration(text); err == nil {
		return now.Add(-time.Duration(ago)), nil
	}
	return time.Time{}, fmt.Errorf("%s is %q, which is no time: write it like 2026-12-24T18:00:00Z, 2026-12-24, or 7d for a week ago", what, text)
}
