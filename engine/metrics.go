package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/reconcile"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/obs"
)

// sampleTime and askAtOnce bound what a scrape costs: how long it takes, and how many
// requests are under way at once.
const (
	sampleTime = 2 * time.Second
	askAtOnce  = 64
)

// meter makes the metrics of the engine, if somebody wants them, and hands the
// store's part of them to its options.
func (e *Engine) meter(opts *store.Options) {
	if e.opts.Registerer == nil {
		return
	}
	lacks := make([]string, len(store.Lacks))
	for i, lack := range store.Lacks {
		lacks[i] = string(lack)
	}
	e.metrics = obs.New(obs.Options{Namespace: string(e.ns), Probe: e.sample, Lacks: lacks})
	opts.Moved, opts.Conflicted = e.moved, e.metrics.Conflict
}

// showMetrics registers the metrics.
func (e *Engine) showMetrics() error {
	if e.metrics == nil {
		return nil
	}
	if err := e.opts.Registerer.Register(e.metrics); err != nil {
		return fmt.Errorf("engine: connect: register metrics: %w: give each engine of a namespace a registry of its own, or labels of its own (prometheus.WrapRegistererWith)", err)
	}
	return nil
}

func (e *Engine) hideMetrics() {
	if e.metrics != nil {
		e.opts.Registerer.Unregister(e.metrics)
	}
}

// moved counts a transition that was stored.
func (e *Engine) moved(before, after machine.Job) {
	if before.State == "" {
		e.metrics.Submitted(after.Kind)
	}
	e.ticked(before, after)
	if before.Lease != nil {
		if attempt, ended := after.Ended(before.Lease.Token); ended {
			e.metrics.Attempted(after.Kind, string(attempt.Outcome))
		}
	}
	if before.Attempt == 0 && after.State == machine.Running {
		ready := before.Created
		if before.Wait == machine.WaitDelay {
			ready = before.Due
		}
		e.metrics.Started(after.Kind, after.Started.Sub(ready))
	}
	if after.State.Final() && !before.State.Final() {
		e.metrics.Ended(after.Kind, string(after.State))
	}
}

// ticked counts what a transition says of the tick that a job was made for.
func (e *Engine) ticked(before, after machine.Job) {
	t := after.Tick
	switch {
	case t == nil:
	case after.State == machine.Skipped && before.State != machine.Skipped:
		n, why := int64(1), "skipped"
		if t.More != nil {
			n += t.More.Count
		}
		if after.Error != nil {
			why = after.Error.Code
		}
		e.metrics.Skipped(after.Kind, why, n)
	case before.State == "" && t.By == "":
		e.metrics.Ticked(after.Kind, after.Created.Sub(t.At))
	}
}

// healed counts what the owner healed.
func (e *Engine) healed(lack store.Lack) { e.metrics.Healed(string(lack)) }

// sample says how the process is now. What concerns all jobs only the owner
// knows, so that nobody is asked twice.
func (e *Engine) sample() obs.Sample {
	s := obs.Sample{Ready: e.Ready(), Slots: e.member.slots(), Used: e.running.Count()}
	if owner := e.owner.Load(); owner != nil {
		s.Owner = true
		e.survey(owner, &s)
	}
	return s
}

// survey adds what the owner knows, and what it asks the server: one request for
// each queue that has jobs.
func (e *Engine) survey(owner *reconcile.Reconciler, s *obs.Sample) {
	ctx, cancel := context.WithTimeout(context.Background(), sampleTime) //nolint:forbidigo // a scrape has no context
	defer cancel()
	counts := owner.Count()
	s.Jobs, s.Queues = make(map[string]obs.Jobs, len(counts)), make(map[string]obs.Items, len(counts))
	var mu sync.Mutex
	var asking errgroup.Group
	asking.SetLimit(askAtOnce)
	for queue, n := range counts {
		s.Jobs[queue] = obs.Jobs(n)
		asking.Go(func() error {
			load, err := e.work.Load(ctx, queue)
			if err != nil {
				return nil // a gap shows that nobody knows
			}
			mu.Lock()
			defer mu.Unlock()
			s.Queues[queue] = obs.Items{Waiting: load.Waiting, Taken: load.Taken}
			return nil
		})
	}
	_ = asking.Wait() // there is none
}
