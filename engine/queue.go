package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/queues"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// QueueInfo is a queue as users see it. Its JSON is stable.
type QueueInfo struct {
	Name string `json:"name"`
	// Paused keeps jobs from starting.
	Paused bool `json:"paused"`
	// Concurrency is how many jobs run at once, on all nodes together; 0 if
	// nothing but slots limits them.
	Concurrency int `json:"concurrency"`
	// Retention is for how long records stay, defaults included.
	Retention spec.Retention `json:"retention"`
	Waiting   uint64         `json:"waiting"` // items in nobody's hands
	Taken     uint64         `json:"taken"`   // items in the hands of workers
	Workers   int            `json:"workers"` // nodes that take from the queue
	Slots     int            `json:"slots"`   // of these nodes together, which may have other queues too
	Nodes     []string       `json:"nodes"`   // their IDs
	// ByState counts the jobs, by state. It is null in a list.
	ByState map[string]int `json:"by_state"`
	// Problem is why the definition is not in force, if there is one and it is
	// not.
	Problem string `json:"problem,omitempty"`
}

// QueueLimits says what [Engine.LimitQueue] changes. What is nil stays as it is;
// 0 is the default, which for the concurrency is no limit.
type QueueLimits = queues.Limits

// openQueues opens the definitions of queues.
func (e *Engine) openQueues() {
	e.queues = queues.Open(e.pub, queues.Options{
		Namespace: e.ns, Logger: e.log,
		Shape: func(ctx context.Context, queue string, concurrency int) error {
			return e.work.Serve(ctx, queue, streams.Shape{AckWait: e.settings.Lease, Concurrency: concurrency})
		},
	})
	e.book = queues.NewBook(e.pub, queues.BookOptions{Namespace: e.ns, Retention: store.DefaultRetention, Logger: e.log})
}

// shape reads from the leader how a queue is to be served. Where the definition
// cannot be read, what this process knew before goes on to hold.
func (e *Engine) shape(ctx context.Context, queue string) (streams.Shape, error) {
	n, err := e.queues.Concurrency(ctx, queue)
	if errors.Is(err, queues.ErrUnreadable) {
		n, err = e.book.Get(queue).Concurrency, nil
	}
	return streams.Shape{AckWait: e.settings.Lease, Concurrency: n}, err
}

// definition returns what people say about a queue, from the leader; only its name
// if that is nothing that holds.
func (e *Engine) definition(ctx context.Context, queue string) (spec.Queue, error) {
	d, err := e.queues.Get(ctx, queue)
	if errors.Is(err, queues.ErrNotFound) {
		return spec.Queue{Name: queue}, nil
	}
	return d.Queue, err
}

// knowRetention makes sure that a process in which nobody follows the definitions
// of queues knows for how long a record is kept that it is about to end. Without
// an answer it goes by what it knew before.
func (e *Engine) knowRetention(ctx context.Context) {
	if err := e.book.Fresh(ctx); err != nil {
		e.log.DebugContext(ctx, "definitions of queues may be old", "err", err)
	}
}

// Queues returns all queues that have a definition, a node that takes from them,
// or had one, or jobs that the owner has found there, which takes it some seconds;
// by name. It costs a request or two for each, however many jobs they have, and may
// be some milliseconds behind.
func (e *Engine) Queues(ctx context.Context) ([]QueueInfo, error) {
	defined, err := e.queues.List(ctx)
	if err != nil {
		return nil, err
	}
	members, err := nodes.List(ctx, e.pub, e.ns)
	if err != nil {
		return nil, fmt.Errorf("engine: list queues: %w", err)
	}
	served, err := e.work.Queues(ctx)
	if err != nil {
		return nil, fmt.Errorf("engine: list queues: %w", err)
	}
	names := slices.Concat(served, slices.Collect(maps.Keys(defined)))
	for _, m := range members {
		if m.State != nodes.Offline {
			names = append(names, m.Queues...)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	list := make([]QueueInfo, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(queuesAtOnce)
	for i, queue := range names {
		g.Go(func() (err error) {
			d, ok := defined[queue]
			if !ok {
				d.Name = queue
			}
			list[i], err = e.describeQueue(ctx, d, members)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("engine: list queues: %w", err)
	}
	return list, nil
}

// queuesAtOnce is how many queues [Engine.Queues] asks about at once.
const queuesAtOnce = 16

// Queue returns a queue, with its jobs by state, which are counted then. It
// returns [ErrNotFound] for one that nobody has said anything about, takes from
// or has submitted jobs to.
func (e *Engine) Queue(ctx context.Context, queue string) (QueueInfo, error) {
	d, err := e.queues.Get(ctx, queue)
	known := err == nil
	if err != nil && !errors.Is(err, queues.ErrNotFound) {
		return QueueInfo{}, err
	}
	d.Name = queue
	members, err := nodes.List(ctx, e.pub, e.ns)
	if err != nil {
		return QueueInfo{}, fmt.Errorf("engine: look at queue %s: %w", queue, err)
	}
	info, err := e.describeQueue(ctx, d, members)
	if err != nil {
		return QueueInfo{}, fmt.Errorf("engine: look at queue %s: %w", queue, err)
	}
	n, err := e.store.Tally(ctx, queue)
	if err != nil {
		return QueueInfo{}, fmt.Errorf("engine: count the jobs of queue %s: %w", queue, err)
	}
	info.ByState = map[string]int{}
	for state, count := range n {
		info.ByState[string(state)] = count
	}
	if !known && len(n) == 0 && info.Workers == 0 && info.Waiting+info.Taken == 0 {
		return QueueInfo{}, fmt.Errorf("engine: look at queue %s: %w", queue, absent("there is no queue of that name"))
	}
	return info, nil
}

// describeQueue returns what is known of a queue without looking at its jobs.
func (e *Engine) describeQueue(ctx context.Context, d queues.Definition, members []nodes.Member) (QueueInfo, error) {
	info := QueueInfo{
		Name: d.Name, Paused: d.IsPaused(), Concurrency: d.Concurrency, Retention: RetentionOf(d.Queue), Nodes: []string{},
	}
	if d.Problem != nil {
		info.Problem = d.Problem.Error()
	}
	for _, m := range members {
		if m.State == nodes.Alive && m.TakesFrom(d.Name) {
			info.Workers++
			info.Slots += m.Slots
			info.Nodes = append(info.Nodes, m.ID)
		}
	}
	load, err := e.work.Load(ctx, d.Name)
	if errors.Is(err, streams.ErrNoConsumer) {
		err = nil // no worker has ever been there
	}
	info.Waiting, info.Taken = load.Waiting, load.Taken
	return info, err
}

// RetentionOf returns for how long records stay by the definition of a queue,
// defaults included.
func RetentionOf(q spec.Queue) spec.Retention {
	r := q.Retention
	for state, d := range map[machine.State]*spec.Duration{
		machine.Succeeded: &r.Succeeded, machine.Failed: &r.Failed, machine.Cancelled: &r.Cancelled,
	} {
		if *d == 0 {
			*d = spec.Duration(store.DefaultRetention(q.Name, state))
		}
	}
	return r
}

// PauseQueue keeps jobs of a queue from starting, and returns how it is then.
// Those that run go on. It is one write, however many jobs wait; workers hear of
// it at once, and at the latest 30 s later.
func (e *Engine) PauseQueue(ctx context.Context, queue string) (spec.Queue, error) {
	return e.queues.Pause(ctx, queue)
}

// ResumeQueue lets the jobs of a queue start again.
func (e *Engine) ResumeQueue(ctx context.Context, queue string) (spec.Queue, error) {
	return e.queues.Resume(ctx, queue)
}

// LimitQueue changes how many jobs of a queue run at once, and for how long
// records stay of those that end from now on.
func (e *Engine) LimitQueue(ctx context.Context, queue string, limits QueueLimits) (spec.Queue, error) {
	return e.queues.Limit(ctx, queue, limits)
}

// PurgeQueue cancels the jobs of a queue that have not started, which are those
// that are scheduled, pending or retrying, and were submitted before it began. It
// returns how many; on an error, how many until then. Whoever wants the queue to
// be empty afterwards pauses it first.
func (e *Engine) PurgeQueue(ctx context.Context, queue string) (int, error) {
	if err := name.Check("queue", queue); err != nil {
		return 0, fmt.Errorf("engine: purge: %w", err)
	}
	done, err := e.CancelAll(ctx, CancelFilter{Queue: queue, States: notStarted})
	if err != nil {
		return done.Cancelled, fmt.Errorf("engine: purge queue %s: %w", queue, err)
	}
	return done.Cancelled, nil
}

// notStarted are the states of jobs that no attempt runs.
var notStarted = []string{string(machine.Scheduled), string(machine.Pending), string(machine.Retrying)}

// DeleteQueue forgets the definition of a queue: nothing limits it, it is not
// paused, and records stay as long as is usual. Its jobs stay. It returns
// [ErrNotFound] for a queue that has no definition.
func (e *Engine) DeleteQueue(ctx context.Context, queue string) error {
	return e.queues.Delete(ctx, queue)
}
