package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace/millrace/broadcast/plan"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/obs"
)

// BroadcastOptions is what a broadcast says about itself and its parts. The zero
// value of a field means its default.
type BroadcastOptions struct {
	// ID is the broadcast's local ID, as [SubmitOptions] has it: broadcasting it
	// again attaches to the one that is there.
	ID string
	// Queue is whose workers have the parts. Default: as the definition says.
	Queue string
	// Selector are labels that a node must have. Default: all nodes that run the
	// kind, take from the queue and do not drain.
	Selector map[string]string
	// OnLost is what becomes of the part of a node that is gone. Default
	// [LostFails].
	OnLost OnLost
	// Deadline is after how long the broadcast fails if it has not ended, from
	// when it may start; the parts that are left are cancelled. [LostWaits] needs
	// one. Default: never.
	Deadline time.Duration
	// Done is when the broadcast succeeds. Default [DoneAll].
	Done Done
	// MaxParallel is how many nodes have their parts at a time. Once it cannot
	// succeed any more, no further node gets one. Default: all nodes at once.
	MaxParallel int
	// MaxAttempts is how many failures end a part, and Retry how long it waits
	// between its attempts, which are on the same node. Default: as the definition
	// says.
	MaxAttempts int
	Retry       *Retry
	// Delay is how long the broadcast waits before it may start, and At is when it
	// may, by the server's clock. The nodes are those that are there then. Default:
	// at once.
	Delay time.Duration
	At    time.Time
	// Trace is the W3C trace context to hand on, as [SubmitOptions] has it.
	Trace map[string]string
}

// OnLost is what becomes of the part of a node that is gone: [LostFails] or
// [LostWaits]. It never runs on another node.
type OnLost string

// What can become of the part of a node that is gone.
const (
	LostFails OnLost = "fail" // it ends as lost
	LostWaits OnLost = "wait" // it waits for that node, until the deadline
)

// Done says when a broadcast succeeds: [DoneAll], [DoneQuorum], [DoneAny] or a
// [DoneCount].
type Done string

// When a broadcast succeeds.
const (
	DoneAll    Done = "all"    // every part has succeeded
	DoneQuorum Done = "quorum" // every part has ended, and more than half have succeeded
	DoneAny    Done = "any"    // a part has succeeded: the others are cancelled
)

// DoneCount is a broadcast that succeeds when n parts have: the others are cancelled.
func DoneCount(n int) Done { return Done(strconv.Itoa(n)) }

// goal returns the goal as records have it.
func (d Done) goal() (machine.Goal, int, error) {
	switch d {
	case "", DoneAll:
		return machine.GoalAll, 0, nil
	case DoneQuorum:
		return machine.GoalQuorum, 0, nil
	case DoneAny:
		return machine.GoalAny, 0, nil
	}
	n, err := strconv.Atoi(string(d))
	if err != nil || n < 1 || DoneCount(n) != d {
		return "", 0, fmt.Errorf("it is done at %q: use all, quorum, any or a number of parts from 1", d)
	}
	return machine.GoalCount, n, nil
}

// doneOf returns the goal of a record as users see it.
func doneOf(f machine.Fan) Done {
	if f.Done == machine.GoalCount {
		return DoneCount(f.Need)
	}
	return cmp.Or(Done(f.Done), DoneAll)
}

// submitOptions returns what a broadcast shares with other jobs.
func (o BroadcastOptions) submitOptions() SubmitOptions {
	return SubmitOptions{
		ID: o.ID, Queue: o.Queue, MaxAttempts: o.MaxAttempts, Retry: o.Retry, Deadline: o.Deadline,
		Delay: o.Delay, At: o.At, Trace: o.Trace,
	}
}

// fan returns what a record says of the parts.
func (o BroadcastOptions) fan() (*machine.Fan, error) {
	goal, need, err := o.Done.goal()
	switch {
	case err != nil:
		return nil, err
	case o.OnLost != "" && o.OnLost != LostFails && o.OnLost != LostWaits:
		return nil, fmt.Errorf("on lost it is to %q: use fail or wait", o.OnLost)
	case o.OnLost == LostWaits && o.Deadline <= 0:
		return nil, errors.New("its parts wait for nodes that are gone, and it has no deadline: set one, or let them fail")
	case o.MaxParallel < 0:
		return nil, fmt.Errorf("max parallel is %d: use 1 or more, or 0 for all at once", o.MaxParallel)
	}
	if err := checkSelector(o.Selector); err != nil {
		return nil, err
	}
	onLost := machine.ElseFail
	if o.OnLost == LostWaits {
		onLost = machine.ElseWait
	}
	return &machine.Fan{Select: o.Selector, OnLost: onLost, Done: goal, Need: need, MaxParallel: o.MaxParallel}, nil
}

// Broadcast has every node that matches run the job once: those that are there now,
// or when a delayed one is due. Each has a part of its own, which is a job that no
// other node runs, at no moment; [Current.Parent] tells the handler. A part that
// fails is tried again on its node. The broadcast is a job as well, which ends when
// its parts have: see [BroadcastOptions.Done].
//
// It fails if no node matches. With an ID it attaches to the broadcast that is there.
func (j *Job[In, Out]) Broadcast(ctx context.Context, eng *Engine, in In, opts ...BroadcastOptions) (*Broadcast[Out], error) {
	o := first(opts)
	input, common, err := j.prepare(in, o.submitOptions())
	if err != nil {
		return nil, err
	}
	return cast[Out](ctx, eng, fanned{j.def.kind, input, common}, o)
}

// Broadcast broadcasts a job of a kind that needs not be defined in this program.
func (e *Engine) Broadcast(ctx context.Context, kind string, input json.RawMessage, opts ...BroadcastOptions) (*Broadcast[json.RawMessage], error) {
	o := first(opts)
	return cast[json.RawMessage](ctx, e, fanned{kind, input, o.submitOptions()}, o)
}

// fanned is what is submitted as a job with children.
type fanned struct {
	kind  string
	input json.RawMessage
	opts  SubmitOptions
}

func cast[Out any](ctx context.Context, e *Engine, what fanned, o BroadcastOptions) (*Broadcast[Out], error) {
	fan, err := o.fan()
	if err != nil {
		return nil, fmt.Errorf("engine: broadcast %s: %w", what.kind, err)
	}
	handle, err := fanOut[Out](ctx, e, what, fan)
	if err != nil {
		return nil, err
	}
	return &Broadcast[Out]{eng: e, ID: handle.ID, Created: handle.Created}, nil
}

// fanOut submits a job with children. One that may start now gets its shares before
// its record is created, and is waiting; a delayed one gets them from the owner.
//
// If the process dies after the record was created, the owner makes the children
// that are missing.
func fanOut[Out any](ctx context.Context, e *Engine, what fanned, fan *machine.Fan) (*Handle[Out], error) {
	o := what.opts
	o.Class, o.QueueTimeout = "", 0 // no item waits for a worker
	if o.Trace == nil {
		o.Trace = obs.Inject(ctx)
	}
	if err := e.readClock(ctx, o); err != nil {
		return nil, err
	}
	record, err := e.record(what.kind, what.input, o)
	if err != nil {
		return nil, err
	}
	record.Fan = fan
	if record.State == machine.Pending {
		err = e.dispatch(ctx, &record, o.ID != "")
	}
	if err != nil {
		return nil, fmt.Errorf("engine: submit %s: %w", record.ID, err)
	}
	entry, created, err := e.store.Submit(ctx, record)
	if err != nil {
		return nil, fmt.Errorf("engine: submit %s: %w", record.ID, err)
	}
	if err := checkKind(entry, what.kind); err != nil {
		return nil, err
	}
	if entry.Value.Fan == nil || entry.Value.Fan.Shards != fan.Shards {
		return nil, fmt.Errorf("engine: submit %s: there is a job of that ID, and it is %s: choose another ID", entry.Key, sortOf(entry.Value))
	}
	return &Handle[Out]{eng: e, ID: entry.Key, Created: created}, nil
}

// sortOf says what sort of job j is.
func sortOf(j machine.Job) string {
	switch {
	case j.Fan == nil:
		return "neither a broadcast nor a sharded job"
	case j.Fan.Shards:
		return "a sharded job"
	}
	return "a broadcast"
}

// dispatch makes a new job waiting, with its shares. One for which there is no node
// is refused, unless a job of its ID is there, to which the submit attaches: should
// that one go meanwhile, the owner finds out that there is no node.
func (e *Engine) dispatch(ctx context.Context, j *machine.Job, named bool) error {
	shares, err := e.snapshot(ctx, *j)
	if err == nil && len(shares) == 0 {
		queue, _, _ := name.SplitJobID(j.ID)
		err = fmt.Errorf("%w: %s", errNoNode, lacking(j.Kind, queue, j.Fan.Select))
	}
	if err == nil {
		j.State, j.Started, j.Fan.Shares, j.Fan.Total = machine.Waiting, j.Created, shares, len(shares)
		return nil
	}
	if named {
		if _, missing := e.store.Get(ctx, j.ID); missing == nil {
			j.State, j.Due, j.Wait = machine.Scheduled, j.Created, machine.WaitDelay
			return nil
		}
	}
	return err
}

// The most children that a job has.
const (
	maxParts  = 10_000
	maxShards = 1_024
)

// checkParts refuses a broadcast to too many nodes, or to fewer than have to succeed.
func checkParts(f machine.Fan, n int) error {
	switch {
	case n > maxParts:
		return fmt.Errorf("%d nodes match, and up to %d have a part: select fewer by labels", n, maxParts)
	case n > 0 && n < f.Need:
		return fmt.Errorf("it is done when %d parts have succeeded, and %d nodes match: use a smaller number", f.Need, n)
	}
	return nil
}

// snapshot returns the shares of a job with children whose time has come: the nodes
// that match now. It returns none if there is none.
func (e *Engine) snapshot(ctx context.Context, j machine.Job) ([]machine.Share, error) {
	members, err := e.members(ctx)
	if err != nil {
		return nil, err
	}
	queue, _, err := name.SplitJobID(j.ID)
	if err != nil {
		return nil, err
	}
	matching := plan.Matching(members, j.Kind, queue, j.Fan.Select)
	if j.Fan.Shards {
		return e.places(ctx, j, matching)
	}
	return plan.Snapshot(matching), checkParts(*j.Fan, len(matching))
}
