package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/name"
)

type deadCmd struct {
	List    deadListCmd    `cmd:"" help:"List jobs that have failed for good, by kind and error, the latest first."`
	Redrive deadRedriveCmd `cmd:"" help:"Run jobs that have failed once more."`
}

type deadListCmd struct {
	Queue string `help:"Only jobs of this queue." placeholder:"QUEUE"`
	Kind  string `help:"Only jobs of this kind." placeholder:"KIND"`
	Code  string `help:"Only jobs whose error has this code." placeholder:"CODE"`
	Error string `help:"Only jobs whose error has this in its text." placeholder:"TEXT"`
	Limit int    `help:"How many groups at most." default:"100"`
}

var deadJobColumns = []column[engine.DeadGroup]{
	{"kind", func(g engine.DeadGroup) string { return g.Kind }},
	{"jobs", func(g engine.DeadGroup) string { return strconv.Itoa(g.Count) }},
	{"last", func(g engine.DeadGroup) string { return show.Time(&g.Last) }},
	{"example", func(g engine.DeadGroup) string { return g.ID }},
	{"error", func(g engine.DeadGroup) string { return g.Error.Message }},
}

// Run prints what jobs failed of.
func (c deadListCmd) Run(ctx context.Context, e *env) error {
	if c.Limit < 1 {
		return usage(fmt.Errorf("--limit is %d: use 1 or more", c.Limit))
	}
	if err := checkQueue(c.Queue); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	groups, err := eng.Dead(ctx, engine.DeadFilter{Queue: c.Queue, Kind: c.Kind, Code: c.Code, Text: c.Error})
	if err != nil {
		return err
	}
	return list(e, groups[:min(len(groups), c.Limit)], deadJobColumns)
}

type deadRedriveCmd struct {
	IDs   []string `arg:"" optional:"" name:"id" help:"IDs of the jobs: queue, dot, local ID."`
	All   bool     `help:"All jobs that have failed, instead of IDs."`
	Queue string   `help:"With --all: only jobs of this queue." placeholder:"QUEUE"`
	Kind  string   `help:"With --all: only jobs of this kind." placeholder:"KIND"`
	Code  string   `help:"With --all: only jobs whose error has this code." placeholder:"CODE"`
	Error string   `help:"With --all: only jobs whose error has this in its text." placeholder:"TEXT"`
}

// redriven is what redrive did, as it is printed.
type redriven struct {
	Redriven int `json:"redriven"`
}

// Run retries jobs that have failed: those given, or all of a kind or queue.
func (c deadRedriveCmd) Run(ctx context.Context, e *env) error {
	switch {
	case !c.All && cmp.Or(c.Queue, c.Kind, c.Code, c.Error) != "":
		return usage(errors.New("--queue, --kind, --code and --error say which of --all: add it, or leave them out"))
	case !c.All && len(c.IDs) == 0:
		return usage(errors.New("which jobs is not said: name their IDs, or use --all, with --queue, --kind, --code or --error for some of them"))
	case c.All && len(c.IDs) > 0:
		return usage(errors.New("--all takes no IDs: leave out one of them"))
	case !c.All:
		return retryJobs(ctx, e, c.IDs, "failed")
	}
	if err := checkQueue(c.Queue); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	n, err := eng.Redrive(ctx, engine.DeadFilter{Queue: c.Queue, Kind: c.Kind, Code: c.Code, Text: c.Error})
	if err != nil {
		return fmt.Errorf("%w; %d jobs are redriven, and redriving again goes on", err, n)
	}
	return describe(e, redriven{n}, []field{{"redriven", strconv.Itoa(n)}})
}

// checkQueue refuses what is no queue. Empty means all.
func checkQueue(queue string) error {
	if queue == "" {
		return nil
	}
	return usage(name.Check("queue", queue))
}
