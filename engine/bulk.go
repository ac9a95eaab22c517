package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
)

// Retry makes a job that has ended pending once more, and returns it. It has no
// failures then, and no limits of time, which were those of its first life; its
// attempts are kept and go on counting. With states, only a job that ended in
// one of them is retried. One that has not ended is refused with [ErrNotEnded].
func (e *Engine) Retry(ctx context.Context, id string, states ...string) (JobInfo, error) {
	if err := checkID(id); err != nil {
		return JobInfo{}, err
	}
	from := make([]machine.State, len(states))
	for i, s := range states {
		from[i] = machine.State(s)
	}
	entry, err := e.store.Redrive(ctx, id, from...)
	if err != nil {
		return JobInfo{}, fmt.Errorf("engine: retry job: %w", err)
	}
	return describe(entry), nil
}

// DeadFilter says which failed jobs are meant. The zero value of a field means
// all.
type DeadFilter struct {
	Queue string
	Kind  string
	Code  string // of the error
}

func (f DeadFilter) validate() error {
	if f.Queue != "" {
		return name.Check("queue", f.Queue)
	}
	return nil
}

func (f DeadFilter) match(j machine.Job) bool {
	return j.State == machine.Failed && (f.Kind == "" || f.Kind == j.Kind) && (f.Code == "" || j.Error != nil && f.Code == j.Error.Code)
}

// DeadGroup is the jobs of one kind that failed with the same error.
type DeadGroup struct {
	Kind  string    `json:"kind"`
	Error ErrorInfo `json:"error"` // of the one that failed last
	Count int       `json:"count"`
	Last  time.Time `json:"last_failed_at"`
	ID    string    `json:"example_id"` // of the one that failed last
}

// Dead returns the jobs that failed and are kept, in groups, the one with the
// latest failure first. It reads all jobs of the queue.
func (e *Engine) Dead(ctx context.Context, filter DeadFilter) ([]DeadGroup, error) {
	type key struct{ kind, code, message string }
	groups := map[key]*DeadGroup{}
	err := e.dead(ctx, filter, func(entry store.Entry) {
		j := entry.Value
		failure := ErrorInfo{}
		if j.Error != nil {
			failure = *describeError(j.Error)
		}
		k := key{j.Kind, failure.Code, failure.Message}
		g := groups[k]
		if g == nil {
			g = &DeadGroup{Kind: j.Kind}
			groups[k] = g
		}
		g.Count++
		if g.ID == "" || j.Finished.After(g.Last) {
			g.Error, g.Last, g.ID = failure, j.Finished.UTC(), entry.Key
		}
	})
	if err != nil {
		return nil, fmt.Errorf("engine: list dead jobs: %w", err)
	}
	list := make([]DeadGroup, 0, len(groups))
	for _, g := range groups {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b DeadGroup) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// redriveAtOnce is how many jobs [Engine.Redrive] has in flight.
const redriveAtOnce = 64

// Redrive retries all jobs that have failed, match, and were there when it
// began, and returns how many that were. One that somebody else retried or
// deleted meanwhile is passed over. It stops at the first error that is not
// about one job.
func (e *Engine) Redrive(ctx context.Context, filter DeadFilter) (int, error) {
	var ids []string
	if err := e.dead(ctx, filter, func(entry store.Entry) { ids = append(ids, entry.Key) }); err != nil {
		return 0, fmt.Errorf("engine: redrive jobs: %w", err)
	}
	var n atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(redriveAtOnce)
	for _, id := range ids {
		group.Go(func() error {
			_, err := e.store.Redrive(ctx, id, machine.Failed)
			switch {
			case err == nil:
				n.Add(1)
			case !aboutOneJob(err):
				return err
			}
			return nil
		})
	}
	err := group.Wait()
	if err != nil {
		return int(n.Load()), fmt.Errorf("engine: redrive jobs: %w", err)
	}
	return int(n.Load()), nil
}

// dead visits the failed jobs that match.
func (e *Engine) dead(ctx context.Context, filter DeadFilter, visit func(store.Entry)) error {
	if err := filter.validate(); err != nil {
		return err
	}
	return e.store.Recent(ctx, filter.Queue, func(entry store.Entry) bool {
		if filter.match(entry.Value) {
			visit(entry)
		}
		return true
	})
}

// aboutOneJob reports whether an error says only what became of one job.
func aboutOneJob(err error) bool {
	var refused *machine.MoveError
	return errors.As(err, &refused) || errors.Is(err, ErrNotEnded) || errors.Is(err, ErrNotFound) || errors.Is(err, store.ErrUnreadable)
}
