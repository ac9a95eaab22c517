package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/name"
)

type scheduleCmd struct {
	List     scheduleListCmd     `cmd:"" help:"List schedules, with their next ticks."`
	Get      scheduleGetCmd      `cmd:"" help:"Print a schedule; with --output yaml as a document that apply takes."`
	Next     scheduleNextCmd     `cmd:"" help:"Print the ticks to come of a schedule, or of one in a file."`
	Pause    schedulePauseCmd    `cmd:"" help:"Keep a schedule from ticking. Jobs that run go on; those that nobody has begun are skipped."`
	Resume   scheduleResumeCmd   `cmd:"" help:"Let a schedule tick again, from now on."`
	Trigger  scheduleTriggerCmd  `cmd:"" help:"Make a job of a schedule now, also of a paused one."`
	Backfill scheduleBackfillCmd `cmd:"" help:"Make the jobs of ticks that are over."`
	Delete   scheduleDeleteCmd   `cmd:"" help:"Delete a schedule. Its jobs stay; those that nobody has begun are skipped."`
}

type scheduleListCmd struct {
	State string `help:"Only schedules in this state: active, paused, halted, ended or unusable." placeholder:"STATE"`
	After string `help:"Only names after this one: the last one of the page before." placeholder:"NAME"`
	Limit int    `help:"How many schedules at most. 0: all." default:"100"`
}

var scheduleColumns = []column[engine.ScheduleInfo]{
	{"schedule", func(s engine.ScheduleInfo) string { return s.Name }},
	{"when", when},
	{"makes", makes},
	{"state", func(s engine.ScheduleInfo) string { return string(s.State) }},
	{"next", func(s engine.ScheduleInfo) string { return show.Time(s.Next) }},
	{"last", func(s engine.ScheduleInfo) string { return show.Time(s.LastAt) }},
	{"overlap", overlap},
	{"problem", func(s engine.ScheduleInfo) string { return s.Problem }},
}

// scheduleStates are the states of schedules.
var scheduleStates = []engine.ScheduleState{
	engine.ScheduleActive, engine.SchedulePaused, engine.ScheduleHalted, engine.ScheduleEnded, engine.ScheduleUnusable,
}

// Run prints schedules.
func (c scheduleListCmd) Run(ctx context.Context, e *env) error {
	if c.State != "" && !slices.Contains(scheduleStates, engine.ScheduleState(c.State)) {
		return usage(fmt.Errorf("--state is %q: use active, paused, halted, ended or unusable", c.State))
	}
	if c.Limit < 0 {
		return usage(fmt.Errorf("--limit is %d: use 1 or more, or 0 for all", c.Limit))
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	page := engine.ScheduleList{After: c.After, Limit: c.Limit + 1} // one more tells that there are more
	if c.State != "" || c.Limit == 0 {
		page.Limit = 0
	}
	schedules, err := eng.Schedules(ctx, page)
	if err != nil {
		return err
	}
	schedules = slices.DeleteFunc(schedules, func(s engine.ScheduleInfo) bool { return c.State != "" && string(s.State) != c.State })
	more := c.Limit > 0 && len(schedules) > c.Limit
	if more {
		schedules = schedules[:c.Limit]
	}
	if err := list(e, schedules, scheduleColumns); err != nil {
		return err
	}
	if more && e.Output == "table" {
		fmt.Fprintf(e.stderr, "millrace: there are more: see --after %s, or --limit\n", schedules[c.Limit-1].Name)
	}
	return nil
}

// scheduleName is the argument of the commands about one schedule.
type scheduleName struct {
	Name string `arg:"" help:"Name of the schedule."`
}

// with connects and does something about the schedule.
func (c scheduleName) with(ctx context.Context, e *env, do func(*engine.Engine) error) error {
	if err := usage(name.Check("schedule", c.Name)); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	err = do(eng)
	if errors.Is(err, engine.ErrNotFound) {
		return fmt.Errorf("schedule %s is not in namespace %s: see millrace schedule list", c.Name, e.Namespace)
	}
	return err
}

type scheduleGetCmd struct{ scheduleName }

// Run prints a schedule.
func (c scheduleGetCmd) Run(ctx context.Context, e *env) error {
	return c.with(ctx, e, func(eng *engine.Engine) error {
		s, err := eng.GetSchedule(ctx, c.Name)
		if err != nil {
			return err
		}
		if e.Output == "yaml" {
			if s.Definition == nil {
				return fmt.Errorf("schedule %s cannot be used: %s", s.Name, s.Problem)
			}
			return e.yaml(*s.Definition)
		}
		return describe(e, s, scheduleFields(s))
	})
}

// yaml prints a value, which has JSON, as YAML.
func (e *env) yaml(v any) error {
	data, err := json.Marshal(v)
	if err == nil {
		data, err = yaml.JSONToYAML(data)
	}
	if err == nil {
		_, err = e.stdout.Write(data)
	}
	return err
}

type scheduleNextCmd struct {
	Name string `arg:"" optional:"" help:"Name of the schedule."`
	N    *int   `arg:"" optional:"" help:"How many ticks. Default: 5."`
	File string `short:"f" help:"File with schedules in YAML or JSON, or - for standard input, instead of a name: no server is asked." placeholder:"FILE"`
	Show *int   `short:"n" name:"number" help:"How many ticks, with -f." placeholder:"N"`
}

// defaultTicks is how many ticks are printed unless somebody says how many.
const defaultTicks = 5

var tickColumns = []column[engine.Tick]{
	{"tick", func(t engine.Tick) string { return t.Local.Format("Mon 2006-01-02 15:04:05.999") + " " + t.Zone }},
	{"utc", func(t engine.Tick) string { return t.At.Format("2006-01-02 15:04:05.999") }},
	{"jitter", func(t engine.Tick) string {
		return onlyIf(!t.NextAttempt.Equal(t.At), "+"+show.Length(t.NextAttempt.Sub(t.At)))
	}},
	{"note", func(t engine.Tick) string { return t.Shift }},
}

// Run prints ticks.
func (c scheduleNextCmd) Run(ctx context.Context, e *env) error {
	n := *cmp.Or(c.N, c.Show, new(defaultTicks))
	switch {
	case (c.Name == "") == (c.File == ""):
		return usage(errors.New("give the name of a schedule, or a file by -f"))
	case n < 1:
		return usage(fmt.Errorf("the number of ticks is %d: use 1 or more", n))
	case c.File != "":
		return c.foresee(e, n)
	}
	return scheduleName{c.Name}.with(ctx, e, func(eng *engine.Engine) error {
		ticks, err := eng.NextTicks(ctx, c.Name, n)
		if err != nil {
			return err
		}
		return printTicks(e, ticks)
	})
}

// foresee prints the ticks of the schedules in a file.
func (c scheduleNextCmd) foresee(e *env, n int) error {
	docs, err := e.parse([]string{c.File})
	if err != nil {
		return usage(err)
	}
	found := 0
	for _, doc := range docs {
		s, ok := doc.(engine.Schedule)
		if !ok {
			continue
		}
		ticks, err := engine.NextTicksOf(s, time.Now(), n)
		if err != nil {
			return err
		}
		if found++; len(docs) > 1 && e.Output == "table" {
			fmt.Fprintf(e.stdout, "%s\n", s.Name)
		}
		if err := printTicks(e, ticks); err != nil {
			return err
		}
	}
	if found == 0 {
		return usage(fmt.Errorf("%s has no schedule: give a file with a document of kind Schedule", c.File))
	}
	return nil
}

// printTicks prints ticks, and what there is to know of them.
func printTicks(e *env, ticks engine.Ticks) error {
	if err := list(e, ticks.Ticks, tickColumns); err != nil {
		return err
	}
	if ticks.Note == "" && len(ticks.Ticks) == 0 {
		ticks.Note = "there is no tick to come"
	}
	if ticks.Note != "" && e.Output == "table" {
		fmt.Fprintf(e.stderr, "millrace: %s\n", ticks.Note)
	}
	return nil
}
