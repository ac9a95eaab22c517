package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/name"
)

type queueCmd struct {
	List   queueListCmd   `cmd:"" help:"List queues."`
	Get    queueGetCmd    `cmd:"" help:"Print a queue, and count its jobs."`
	Pause  queuePauseCmd  `cmd:"" help:"Keep the jobs of a queue from starting. Those that run go on."`
	Resume queueResumeCmd `cmd:"" help:"Let the jobs of a queue start again."`
	Limits queueLimitsCmd `cmd:"" help:"Change how many jobs of a queue run at once, and for how long records stay."`
	Purge  queuePurgeCmd  `cmd:"" help:"Cancel the jobs of a queue that have not started."`
	Delete queueDeleteCmd `cmd:"" help:"Delete the definition of a queue, which is then without limits and not paused. Its jobs stay."`
}

type queueListCmd struct{}

var queueColumns = []column[engine.QueueInfo]{
	{"queue", func(q engine.QueueInfo) string { return q.Name }},
	{"paused", func(q engine.QueueInfo) string { return onlyIf(q.Paused, "paused") }},
	{"concurrency", concurrencyOf},
	{"waiting", func(q engine.QueueInfo) string { return strconv.FormatUint(q.Waiting, 10) }},
	{"taken", func(q engine.QueueInfo) string { return strconv.FormatUint(q.Taken, 10) }},
	{"workers", func(q engine.QueueInfo) string { return strconv.Itoa(q.Workers) }},
	{"slots", func(q engine.QueueInfo) string { return strconv.Itoa(q.Slots) }},
	{"problem", func(q engine.QueueInfo) string { return q.Problem }},
}

// onlyIf returns a word if something is so.
func onlyIf(is bool, word string) string {
	if is {
		return word
	}
	return ""
}

func concurrencyOf(q engine.QueueInfo) string {
	return onlyIf(q.Concurrency > 0, strconv.Itoa(q.Concurrency))
}

// Run prints all queues.
func (queueListCmd) Run(ctx context.Context, e *env) error {
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	queues, err := eng.Queues(ctx)
	if err != nil {
		return err
	}
	return list(e, queues, queueColumns)
}

// queueName is the argument of the commands about one queue.
type queueName struct {
	Name string `arg:"" help:"Name of the queue."`
}

// with connects and does something about the queue.
func (c queueName) with(ctx context.Context, e *env, do func(*engine.Engine) error) error {
	if err := usage(name.Check("queue", c.Name)); err != nil {
		return err
	}
	eng, shut, err := e.connect(ctx, engine.Options{Existing: true})
	if err != nil {
		return err
	}
	defer shut()
	return do(eng)
}

type queueGetCmd struct{ queueName }

// Run prints a queue.
func (c queueGetCmd) Run(ctx context.Context, e *env) error {
	return c.with(ctx, e, func(eng *engine.Engine) error {
		q, err := eng.Queue(ctx, c.Name)
		if errors.Is(err, engine.ErrNotFound) {
			return fmt.Errorf("queue %s is not in namespace %s: see millrace queue list", c.Name, e.Namespace)
		}
		if err != nil {
			return err
		}
		workers := strconv.Itoa(q.Workers)
		if q.Workers > 0 {
			workers = fmt.Sprintf("%d with %s: %s", q.Workers, amount(q.Slots, "slot", "slots"), strings.Join(q.Nodes, ", "))
		}
		return describe(e, q, []field{
			{"queue", q.Name},
			{"paused", onlyIf(q.Paused, "yes")},
			{"concurrency", concurrencyOf(q)},
			{"retention", retention(q.Retention)},
			{"waiting", strconv.FormatUint(q.Waiting, 10)},
			{"taken", strconv.FormatUint(q.Taken, 10)},
			{"workers", workers},
			{"jobs", byState(q.ByState)},
			{"problem", q.Problem},
		})
	})
}

func retention(r spec.Retention) string {
	return fmt.Sprintf("succeeded %v, failed %v, cancelled %v", r.Succeeded, r.Failed, r.Cancelled)
}

// byState returns numbers of jobs, in the order of a job's life.
func byState(n map[string]int) string {
	var parts []string
	for _, state := range machine.States {
		if count := n[string(state)]; count > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", state, count))
		}
	}
	return strings.Join(parts, ", ")
}

type queuePauseCmd struct{ queueName }

// Run pauses a queue.
func (c queuePauseCmd) Run(ctx context.Context, e *env) error {
	return c.with(ctx, e, func(eng *engine.Engine) error {
		q, err := eng.PauseQueue(ctx, c.Name)
		if err != nil {
			return err
		}
		return describe(e, q, []field{{"queue " + c.Name, "paused"}})
	})
}

type queueResumeCmd struct{ queueName }

// Run resumes a queue.
func (c queueResumeCmd) Run(ctx context.Context, e *env) error {
	return c.with(ctx, e, func(eng *engine.Engine) error {
		q, err := eng.ResumeQueue(ctx, c.Name)
		if err != nil {
			return err
		}
		return describe(e, q, []field{{"queue " + c.Name, "resumed"}})
	})
}

type queueLimitsCmd struct {
	queueName
	Concurrency *int           `help:"How many jobs run at once, on all nodes together. 0: no limit." placeholder:"N"`
	Succeeded   *spec.Duration `help:"For how long records stay of jobs that succeed, such as 90m or 30d. 0: the default." placeholder:"DURATION"`
	Failed      *spec.Duration `help:"The same for jobs that fail." placeholder:"DURATION"`
	Cancelled   *spec.Duration `help:"The same for jobs that are cancelled, or that a schedule skips." placeholder:"DURATION"`
}

// Run changes the limits of a queue.
func (c queueLimitsCmd) Run(ctx context.Context, e *env) error {
	if c.Concurrency == nil && c.Succeeded == nil && c.Failed == nil && c.Cancelled == nil {
		return usage(errors.New("nothing is to be changed: give --concurrency, --succeeded, --failed or --cancelled; millrace queue get shows what holds"))
	}
	said := spec.Queue{Name: c.Name, Concurrency: value(c.Concurrency), Retention: spec.Retention{
		Succeeded: value(c.Succeeded), Failed: value(c.Failed), Cancelled: value(c.Cancelled),
	}}
	if err := usage(said.Validate()); err != nil {
		return err
	}
	return c.with(ctx, e, func(eng *engine.Engine) error {
		limits := engine.QueueLimits{Concurrency: c.Concurrency, Succeeded: c.Succeeded, Failed: c.Failed, Cancelled: c.Cancelled}
		q, err := eng.LimitQueue(ctx, c.Name, limits)
		if err != nil {
			return err
		}
		fields := []field{{"queue", q.Name}, {"concurrency", "no limit"}}
		if q.Concurrency > 0 {
			fields[1].value = strconv.Itoa(q.Concurrency)
		}
		return describe(e, q, append(fields, field{"retention", retention(engine.RetentionOf(q))}))
	})
}

// value returns what a pointer points to, or nothing.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

type queuePurgeCmd struct{ queueName }

// purged is what purge did, as it is printed.
type purged struct {
	Cancelled int `json:"cancelled"`
}

// Run cancels what has not started.
func (c queuePurgeCmd) Run(ctx context.Context, e *env) error {
	return c.with(ctx, e, func(eng *engine.Engine) error {
		n, err := eng.PurgeQueue(ctx, c.Name)
		if err != nil {
			return fmt.Errorf("%w; %d jobs are cancelled, and purging again goes on", err, n)
		}
		return describe(e, purged{n}, []field{{"cancelled", strconv.Itoa(n)}})
	})
}

type queueDeleteCmd struct{ queueName }

// Run deletes the definition of a queue.
func (c queueDeleteCmd) Run(ctx context.Context, e *env) error {
	return c.with(ctx, e, func(eng *engine.Engine) error {
		err := eng.DeleteQueue(ctx, c.Name)
		if errors.Is(err, engine.ErrNotFound) {
			return fmt.Errorf("queue %s has no definition in namespace %s: see millrace queue list", c.Name, e.Namespace)
		}
		if err != nil {
			return err
		}
		return describe(e, engine.Applied{Key: "queue." + c.Name, Action: "deleted"}, []field{{"queue " + c.Name, "deleted"}})
	})
}
