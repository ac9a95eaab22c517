package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
)

// shardFlags cut a job in numbered pieces.
type shardFlags struct {
	Shards         *int     `help:"Cut the job in N shards, numbered from 0, each placed on a node with the labels of --select. Default: one for each --shard-parameter." placeholder:"N"`
	ShardParameter []string `sep:"none" help:"What a shard is given besides its number: the first one for shard 0, and so on. May be repeated." placeholder:"TEXT"`
	ShardStrategy  string   `help:"Where shards are placed: even, hash (few move when nodes come and go) or round-robin (by the name of the kind). Default: even." placeholder:"STRATEGY"`
}

// used reports whether the job is a sharded one.
func (f shardFlags) used() bool { return f.Shards != nil || len(f.ShardParameter) > 0 }

// number returns how many shards there are.
func (f shardFlags) number() int {
	if f.Shards == nil {
		return len(f.ShardParameter)
	}
	return *f.Shards
}

// checkShards refuses flags that make no sense for a sharded job, or for another.
func (c jobSubmitCmd) checkShards() error {
	strategies := []engine.Strategy{"", engine.ShardsEven, engine.ShardsHash, engine.ShardsRoundRobin}
	n, parameters := c.number(), len(c.ShardParameter)
	switch {
	case !c.used() && c.ShardStrategy != "":
		return errors.New("there is --shard-strategy without --shards: say how many")
	case !c.used():
		return nil
	case n < 1:
		return fmt.Errorf("--shards is %d: use 1 or more", n)
	case parameters > 0 && n != parameters:
		return fmt.Errorf("--shards is %d, and --shard-parameter is there %s: give one to each shard, or none", n, show.Count(parameters, "time"))
	case !slices.Contains(strategies, engine.Strategy(c.ShardStrategy)):
		return fmt.Errorf("--shard-strategy is %q: use even, hash or round-robin", c.ShardStrategy)
	case c.On != "" || c.Key != "" || c.Near != "" || c.Else != "":
		return errors.New("shards are placed by --shard-strategy: leave out --on, --key, --near and --else")
	case c.Class != "" || c.Unique != "" || c.QueueTimeout != 0:
		return errors.New("a sharded job has no class, unique key or queue timeout: leave them out")
	}
	return nil
}

// checkPlace refuses flags that do not say where a job is to run. For a sharded one
// checkShards does, but for the labels.
func (c jobSubmitCmd) checkPlace() error {
	if c.used() {
		return someLabels("--select", c.Select)
	}
	return c.placeFlags.check()
}

// submitShards submits a sharded job and prints it.
func (c jobSubmitCmd) submitShards(ctx context.Context, e *env, input json.RawMessage, o engine.SubmitOptions) error {
	eng, shut, err := e.connect(ctx, engine.Options{})
	if err != nil {
		return err
	}
	defer shut()
	job, err := eng.SubmitShards(ctx, c.Kind, input, engine.ShardOptions{
		ID: o.ID, Queue: o.Queue, Shards: c.number(), Parameters: c.ShardParameter, Strategy: engine.Strategy(c.ShardStrategy),
		Selector: c.Select, MaxAttempts: o.MaxAttempts, Retry: o.Retry, Deadline: o.Deadline, Delay: o.Delay, At: o.At,
	})
	if err != nil {
		return err
	}
	return e.submittedParts(ctx, eng, sent{job.ID, job.Created, input, c.Wait})
}
