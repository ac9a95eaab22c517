package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
)

// DeadFilter says which failed jobs are meant. The zero value of a field means
// all.
type DeadFilter struct {
	Queue string
	Kind  string
	Code  string // of the error
	Text  string // that the error's message has in it
}

func (f DeadFilter) validate() error {
	if f.Queue != "" {
		return name.Check("queue", f.Queue)
	}
	return nil
}

func (f DeadFilter) match(j machine.Job) bool {
	if j.State != machine.Failed || f.Kind != "" && f.Kind != j.Kind {
		return false
	}
	var failure machine.Error
	if j.Error != nil {
		failure = *j.Error
	}
	return (f.Code == "" || f.Code == failure.Code) && strings.Contains(failure.Message, f.Text)
}

// DeadGroup is the jobs of one kind that failed with the same error, but for
// numbers, names with numbers, and what it quotes.
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
		k := key{j.Kind, failure.Code, likeness(failure.Message)}
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

// particular is what errors of the same sort differ in.
var particular = regexp.MustCompile(`"[^"]*"|'[^']*'|[\w-]*\d[\w-]*`)

// likeness is what a message has in common with others of its sort.
func likeness(message string) string { return particular.ReplaceAllString(message, "#") }

// Redrive retries all jobs that have failed, match, and were there when it
// began, and returns how many that were. One that somebody else retried or
// deleted meanwhile is passed over. It stops at the first error that is not
// about one job.
func (e *Engine) Redrive(ctx context.Context, filter DeadFilter) (int, error) {
	var n atomic.Int64
	err := filter.validate()
	if err == nil {
		err = e.forAll(ctx, filter.Queue, filter.match, func(ctx context.Context, id string) error {
			_, err := e.store.Redrive(ctx, id, machine.Failed)
			if err == nil {
				n.Add(1)
			}
			return err
		})
	}
	if err != nil {
		return int(n.Load()), fmt.Errorf("engine: redrive jobs: %w", err)
	}
	return int(n.Load()), nil
}

// CancelFilter says which jobs are to be cancelled. The zero value of a field
// means all that have not ended.
type CancelFilter struct {
	Queue  string
	Kind   string
	States []string // such as pending, scheduled, retrying, running
}

func (f CancelFilter) validate() error {
	for _, s := range f.States {
		if state := machine.State(s); !state.Known() || state.Final() {
			return fmt.Errorf("there is nothing to cancel in state %q: use scheduled, pending, running or retrying", s)
		}
	}
	if f.Queue != "" {
		return name.Check("queue", f.Queue)
	}
	return nil
}

func (f CancelFilter) match(j machine.Job) bool {
	return !j.State.Final() && j.Cancel == nil && (f.Kind == "" || f.Kind == j.Kind) &&
		(len(f.States) == 0 || slices.Contains(f.States, string(j.State)))
}

// Cancellation is what became of jobs that were cancelled at once.
type Cancellation struct {
	Cancelled int `json:"cancelled"` // nobody ran them
	Ending    int `json:"ending"`    // their attempts were told to end
}

// passes is how often [Engine.CancelAll] looks for jobs that escaped it because
// they changed their state meanwhile.
const passes = 10

// CancelAll cancels all jobs that match and were submitted before it began, as
// [Engine.Cancel] does for one. One that ended meanwhile, or left the states that
// are meant, is passed over. It stops
// at the first error that is not about one job, and says how many it had
// cancelled by then.
func (e *Engine) CancelAll(ctx context.Context, filter CancelFilter) (Cancellation, error) {
	e.knowRetention(ctx)
	var cancelled, ending atomic.Int64
	from := make([]machine.State, len(filter.States))
	for i, s := range filter.States {
		from[i] = machine.State(s)
	}
	cancel := func(ctx context.Context, id string) error {
		entry, err := e.store.Cancel(ctx, id, "cancelled by request", from...)
		switch {
		case err != nil:
			return err
		case entry.Value.State == machine.Running:
			ending.Add(1)
		default:
			cancelled.Add(1)
		}
		return nil
	}
	err := filter.validate()
	if err == nil {
		err = e.clock.Fresh(ctx)
	}
	begun := e.clock.Now()
	match := func(j machine.Job) bool { return filter.match(j) && !j.Created.After(begun) }
	for pass, last := 0, int64(-1); err == nil && pass < passes && last < cancelled.Load()+ending.Load(); pass++ {
		last = cancelled.Load() + ending.Load()
		err = e.forAll(ctx, filter.Queue, match, cancel)
	}
	done := Cancellation{Cancelled: int(cancelled.Load()), Ending: int(ending.Load())}
	if err != nil {
		return done, fmt.Errorf("engine: cancel jobs: %w", err)
	}
	return done, nil
}

// atOnce is how many jobs are changed at the same time.
const atOnce = 64

// forAll calls do for all jobs of a queue that match. It stops at the first error
// that is not about one job. What is written meanwhile is not visited.
func (e *Engine) forAll(ctx context.Context, queue string, match func(machine.Job) bool, do func(ctx context.Context, id string) error) error {
	group, doing := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	err := e.store.Recent(doing, queue, func(entry store.Entry) bool {
		if match(entry.Value) {
			group.Go(func() error {
				if err := do(doing, entry.Key); err != nil && !aboutOneJob(err) {
					return err
				}
				return nil
			})
		}
		return doing.Err() == nil
	})
	if failed := group.Wait(); failed != nil {
		return failed
	}
	return err
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
