package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
)

type broadcastCmd struct {
	Start  broadcastStartCmd  `cmd:"" default:"withargs" help:"Run a job once on every node that has its kind and the labels of --selector. The word start may be left out."`
	Get    broadcastGetCmd    `cmd:"" help:"Print a broadcast or a sharded job, with its parts."`
	List   broadcastListCmd   `cmd:"" help:"List broadcasts, the most recently changed first."`
	Cancel broadcastCancelCmd `cmd:"" help:"Cancel broadcasts and sharded jobs, with the parts that have not ended. Those that run are told to end."`
	Retry  broadcastRetryCmd  `cmd:"" help:"Let broadcasts and sharded jobs that have ended go on, with the parts that did not succeed, each where it was."`
}

type broadcastGetCmd struct {
	ID   string `arg:"" help:"ID of the broadcast: queue, dot, local ID."`
	Wait bool   `help:"Wait until it has ended; the exit status is 1 if it did not succeed."`
}

// Run prints a broadcast.
func (c broadcastGetCmd) Run(ctx context.Context, e *env) error {
	if err := checkJobID(c.ID); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	info, err := broadcast(ctx, e, eng, c.ID)
	if err != nil {
		return err
	}
	if !c.Wait {
		return e.describeParts(info, info)
	}
	info, err = e.await(ctx, eng, c.ID)
	if err != nil {
		return err
	}
	return errors.Join(e.describeParts(info, info), info.Err())
}

// broadcast reads a broadcast, which has to be there.
func broadcast(ctx context.Context, e *env, eng *engine.Engine, id string) (engine.BroadcastInfo, error) {
	info, err := eng.GetBroadcast(ctx, id)
	if errors.Is(err, engine.ErrNotFound) {
		err = fmt.Errorf("there is no broadcast %s in namespace %s: it never was, or its time has passed: see millrace broadcast list", id, e.Namespace)
	}
	return info, err
}

// describeParts prints a broadcast, or what has more fields than one as JSON, and a
// table of its parts.
func (e *env) describeParts(info engine.BroadcastInfo, value any) error {
	if err := describe(e, value, jobFields(info.JobInfo)); err != nil || e.Output == "json" || len(info.Parts) == 0 {
		return err
	}
	fmt.Fprintln(e.stdout)
	return list(e, info.Parts, partColumns(info))
}

// partColumns returns the columns of the parts of a broadcast, or of the shards of
// a sharded job.
func partColumns(info engine.BroadcastInfo) []column[engine.PartInfo] {
	columns := []column[engine.PartInfo]{{"node", func(p engine.PartInfo) string { return p.Node }}}
	if sharded(info) {
		columns = slices.Insert(columns, 0, column[engine.PartInfo]{"shard", partName})
		if slices.ContainsFunc(info.Parts, func(p engine.PartInfo) bool { return p.Parameter != "" }) {
			columns = slices.Insert(columns, 1, column[engine.PartInfo]{"parameter", func(p engine.PartInfo) string { return p.Parameter }})
		}
	}
	return append(columns,
		column[engine.PartInfo]{"state", func(p engine.PartInfo) string { return p.State }},
		column[engine.PartInfo]{"attempts", attempts},
		column[engine.PartInfo]{"took", func(p engine.PartInfo) string { return show.Took(p.Started, p.Ended) }},
		column[engine.PartInfo]{"result", partResult},
		column[engine.PartInfo]{"error", func(p engine.PartInfo) string { return show.Message(p.Error) }},
	)
}

func sharded(info engine.BroadcastInfo) bool { return info.Children != nil && info.Children.Shards }

// partName returns what tells a part from its siblings: the node, or the shard.
func partName(p engine.PartInfo) string {
	if p.Shard != nil {
		return strconv.Itoa(*p.Shard)
	}
	return p.Node
}

// attempts returns how often a part was started, or nothing for never.
func attempts(p engine.PartInfo) string {
	if len(p.Attempts) == 0 {
		return ""
	}
	return strconv.Itoa(p.Attempts[len(p.Attempts)-1].Number)
}

// partResult returns the result of a part, if it says anything.
func partResult(p engine.PartInfo) string {
	if string(p.Result) == "null" {
		return ""
	}
	return string(p.Result)
}

type broadcastListCmd struct {
	State string `help:"Only broadcasts in this state." placeholder:"STATE"`
	Queue string `help:"Only broadcasts of this queue." placeholder:"QUEUE"`
	Limit int    `help:"How many broadcasts at most." default:"100"`
}

// Run prints broadcasts.
func (c broadcastListCmd) Run(ctx context.Context, e *env) error {
	if c.Limit < 1 {
		return usage(fmt.Errorf("--limit is %d: use 1 or more", c.Limit))
	}
	if err := checkWhich(c.State, c.Queue); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	found, err := eng.Broadcasts(ctx, engine.BroadcastFilter{Queue: c.Queue, State: c.State, Limit: c.Limit})
	if err != nil {
		return err
	}
	return list(e, found, broadcastColumns)
}

var broadcastColumns = []column[engine.BroadcastInfo]{
	{"broadcast", func(b engine.BroadcastInfo) string { return b.ID }},
	{"kind", func(b engine.BroadcastInfo) string { return b.Kind }},
	{"state", func(b engine.BroadcastInfo) string { return b.State }},
	{"parts", func(b engine.BroadcastInfo) string { return partCount(b.Children) }},
	{"created", func(b engine.BroadcastInfo) string { return show.Time(b.Created) }},
	{"took", func(b engine.BroadcastInfo) string { return show.Took(b.Created, b.Finished) }},
	{"error", func(b engine.BroadcastInfo) string { return show.Message(b.Error) }},
}

type broadcastCancelCmd struct {
	IDs []string `arg:"" name:"id" help:"IDs of the broadcasts: queue, dot, local ID."`
}

// Run cancels broadcasts and prints them. It goes on after one that cannot be cancelled.
func (c broadcastCancelCmd) Run(ctx context.Context, e *env) error {
	return eachBroadcast(ctx, e, c.IDs, func(eng *engine.Engine, id string) error {
		_, err := eng.Cancel(ctx, id)
		if err != nil {
			return jobCancelCmd{}.explain(ctx, e, eng, id, err)
		}
		info, err := broadcast(ctx, e, eng, id)
		if err != nil {
			return err
		}
		if len(c.IDs) == 1 {
			return e.describeParts(info, info)
		}
		return describe(e, info, []field{{"broadcast " + id, info.State}})
	})
}

type broadcastRetryCmd struct {
	IDs []string `arg:"" name:"id" help:"IDs of the broadcasts: queue, dot, local ID."`
}

// Run retries broadcasts. It goes on after one that cannot be retried.
func (c broadcastRetryCmd) Run(ctx context.Context, e *env) error {
	return eachBroadcast(ctx, e, c.IDs, func(eng *engine.Engine, id string) error {
		if _, err := eng.Retry(ctx, id); err != nil {
			return whyNotRetried(ctx, e, eng, id, err)
		}
		return describe(e, retried{id, "retried"}, []field{{"broadcast " + id, "retried"}})
	})
}

// eachBroadcast does something to each of some broadcasts, and refuses other jobs.
func eachBroadcast(ctx context.Context, e *env, ids []string, do func(eng *engine.Engine, id string) error) error {
	var wrong []error
	for _, id := range ids {
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
	for _, id := range ids {
		_, err := broadcast(ctx, e, eng, id)
		if err == nil {
			err = do(eng, id)
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}
