package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/broadcast/plan"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// ShardOptions is what a sharded job says about itself and its shards. The zero value
// of a field means its default.
type ShardOptions struct {
	// ID is the job's local ID, as [SubmitOptions] has it: submitting it again
	// attaches to the job that is there.
	ID string
	// Queue is whose workers have the shards. Default: as the definition says.
	Queue string
	// Shards is how many there are, up to 1,024. It never changes for this job.
	// Default: as many as there are parameters.
	Shards int
	// Parameters are what each shard is given, as [Shard.Parameter]. Default: none.
	Parameters []string
	// Strategy is how the shards are spread over nodes. Default [ShardsEven].
	Strategy Strategy
	// Selector are labels that a node must have. Default: all nodes that run the
	// kind, take from the queue and do not drain.
	Selector map[string]string
	// MaxAttempts is how many failures end a shard, and Retry how long it waits
	// between its attempts. That its node dies is a failure, too. Default: as the
	// definition says.
	MaxAttempts int
	Retry       *Retry
	// Deadline is after how long the job fails if it has not ended, from when it
	// may start; the shards that are left are cancelled. Default: never.
	Deadline time.Duration
	// Delay is how long the job waits before it may start, and At is when it may,
	// by the server's clock. Default: at once.
	Delay time.Duration
	At    time.Time
	// Trace is the W3C trace context to hand on, as [SubmitOptions] has it.
	Trace map[string]string
}

// Strategy is how shards are spread over nodes when a sharded job starts. A shard
// whose node is gone, or drains before it has started there, goes to another one
// that matches, whatever the strategy.
type Strategy = plan.Strategy

// How shards are spread over nodes.
const (
	// ShardsEven gives every node as many as the others, and leaves them where they
	// were in the last run of the kind as far as that allows.
	ShardsEven = plan.Even
	// ShardsHash gives each to the node to which its parameter leads, or its number
	// if it has none: when nodes come and go, few shards move from run to run.
	ShardsHash = plan.Hash
	// ShardsRoundRobin gives them to one node after the other, beginning with one
	// to which the kind leads.
	ShardsRoundRobin = plan.RoundRobin
)

func (o ShardOptions) submitOptions() SubmitOptions {
	return SubmitOptions{
		ID: o.ID, Queue: o.Queue, MaxAttempts: o.MaxAttempts, Retry: o.Retry, Deadline: o.Deadline,
		Delay: o.Delay, At: o.At, Trace: o.Trace,
	}
}

// maxParameter bounds what a shard is given, in bytes.
const maxParameter = 1024

// fan returns what a record says of the shards, which have no places yet.
func (o ShardOptions) fan() (*machine.Fan, error) {
	n := o.Shards
	if n == 0 {
		n = len(o.Parameters)
	}
	switch {
	case n < 1 || n > maxShards:
		return nil, fmt.Errorf("it has %d shards: use 1 to %d", n, maxShards)
	case len(o.Parameters) > 0 && len(o.Parameters) != n:
		return nil, fmt.Errorf("it has %d shards and %d parameters: give one to each, or none", n, len(o.Parameters))
	}
	switch o.Strategy {
	case "", ShardsEven, ShardsHash, ShardsRoundRobin:
	default:
		return nil, fmt.Errorf("its strategy is %q: use even, hash or round-robin", o.Strategy)
	}
	if err := checkSelector(o.Selector); err != nil {
		return nil, err
	}
	shares := make([]machine.Share, n)
	for i, p := range o.Parameters {
		if len(p) > maxParameter {
			return nil, fmt.Errorf("the parameter of shard %d has %d bytes, and up to %d are stored: pass a reference", i, len(p), maxParameter)
		}
		shares[i].Parameter = p
	}
	return &machine.Fan{
		Shards: true, Shares: shares, Total: n, Select: o.Selector, Strategy: string(o.Strategy),
		OnLost: machine.ElseWait, Done: machine.GoalAll,
	}, nil
}

// Sharded is a sharded job that was submitted. Out is the type of a shard's result.
type Sharded[Out any] struct {
	eng *Engine
	// ID is the job's ID, <queue>.<local>.
	ID string
	// Created is false if the job was there before, by its ID.
	Created bool
}

// SubmitShards creates a job that is cut in numbered pieces, which run at the same
// time on different nodes, or attaches to the one that has its ID already. Each shard
// is a job that one node has at a time: [Current.Shard] tells the handler which. One
// whose node is gone goes to another node. The job ends when all shards have, and has
// succeeded if all of them have.
//
// While no node matches, the shards wait for one.
func (j *Job[In, Out]) SubmitShards(ctx context.Context, eng *Engine, in In, o ShardOptions) (*Sharded[Out], error) {
	input, common, err := j.prepare(in, o.submitOptions())
	if err != nil {
		return nil, err
	}
	return submitShards[Out](ctx, eng, fanned{j.def.kind, input, common}, o)
}

// SubmitShards submits a sharded job of a kind that needs not be defined in this
// program.
func (e *Engine) SubmitShards(ctx context.Context, kind string, input json.RawMessage, o ShardOptions) (*Sharded[json.RawMessage], error) {
	return submitShards[json.RawMessage](ctx, e, fanned{kind, input, o.submitOptions()}, o)
}

func submitShards[Out any](ctx context.Context, e *Engine, what fanned, o ShardOptions) (*Sharded[Out], error) {
	fan, err := o.fan()
	if err != nil {
		return nil, fmt.Errorf("engine: submit shards of %s: %w", what.kind, err)
	}
	handle, err := fanOut[Out](ctx, e, what, fan)
	if err != nil {
		return nil, err
	}
	return &Sharded[Out]{eng: e, ID: handle.ID, Created: handle.Created}, nil
}

// Wait waits until the job has ended and returns the results of all shards, by their
// numbers. A job that did not succeed is a [*JobError].
func (s *Sharded[Out]) Wait(ctx context.Context) ([]Out, error) {
	return (&Handle[[]Out]{eng: s.eng, ID: s.ID}).Wait(ctx)
}

// Get reads the job with its shards.
func (s *Sharded[Out]) Get(ctx context.Context) (BroadcastInfo, error) {
	return s.eng.GetBroadcast(ctx, s.ID)
}

// lastPlaces is where the shards of a kind were in its last run: a hint, by which
// they stay on their nodes from run to run. If it is lost or old, they move.
type lastPlaces struct {
	Nodes []string `json:"nodes"` // of each shard, by number
}

func (e *Engine) lastPlaces() *kv.Bucket[lastPlaces] {
	return kv.Open(e.pub, e.ns.Bucket(streams.Cursor), kv.JSON[lastPlaces](), kv.Options{Logger: e.log})
}

// placesKey is the key of a kind's [lastPlaces] in the cursor bucket.
func placesKey(kind string) string { return "shards." + name.Token(kind) }

// places returns the shards of a job with their first places, and remembers these for
// the next run.
func (e *Engine) places(ctx context.Context, j machine.Job, matching []plan.Node) ([]machine.Share, error) {
	cut, err := e.store.Shares(ctx, j) // with their parameters
	if err != nil {
		return nil, err
	}
	s := plan.Sharding{Total: len(cut), Strategy: Strategy(j.Fan.Strategy), Name: j.Kind, Parameters: make([]string, len(cut))}
	for i, share := range cut {
		s.Parameters[i] = share.Parameter
	}
	before, err := e.lastPlaces().Get(ctx, placesKey(j.Kind))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		e.log.DebugContext(ctx, "where shards were before is not known", "kind", j.Kind, "err", err)
	}
	s.Before = before.Value.Nodes
	shares := plan.Places(matching, s)
	if len(matching) > 0 {
		e.remember(ctx, j.Kind, before, shares)
	}
	return shares, nil
}

// remember writes where the shards of a kind are, in the place of what was read. A
// conflict means that another run did.
func (e *Engine) remember(ctx context.Context, kind string, before kv.Entry[lastPlaces], shares []machine.Share) {
	now := lastPlaces{Nodes: make([]string, len(shares))}
	for i, share := range shares {
		now.Nodes[i] = share.Node
	}
	var err error
	if before.Revision == 0 {
		_, err = e.lastPlaces().Create(ctx, placesKey(kind), now)
	} else {
		_, err = e.lastPlaces().Update(ctx, placesKey(kind), now, before.Revision)
	}
	if err != nil {
		e.log.DebugContext(ctx, "where shards are is not remembered", "kind", kind, "err", err)
	}
}
