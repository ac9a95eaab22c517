package actor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/wait"
)

// Timetable is schedules to apply, P0, P1 and so on, which are all alike but for their
// names, and what is done to them afterwards.
type Timetable struct {
	Prefix string
	Count  int
	// Definition is what each of them is. It says neither name, nor job and input, nor
	// whether it is paused.
	Definition engine.Schedule
	// Queue is where the jobs wait, which do their work. Default: work.
	Queue string
	Work  Work
	// Broadcast makes the jobs broadcasts.
	Broadcast bool
	// Rest says that all of them are paused, and not applied.
	Rest bool
	// Edits is how many times a second a random one of them is paused, resumed,
	// edited, deleted or made anew; For is how long.
	Edits float64
	For   time.Duration
}

// Name returns the name of the n-th schedule.
func (t Timetable) Name(n int) string { return fmt.Sprint(t.Prefix, n) }

// Schedule returns the n-th schedule as it is applied.
func (t Timetable) Schedule(n int) engine.Schedule {
	s := t.Definition
	s.Name = t.Name(n)
	kind := Kind(cmp.Or(t.Queue, "work"))
	if t.Broadcast {
		s.Broadcast = kind
	} else {
		s.Job = kind
	}
	s.Input, _ = json.Marshal(struct { // has no cycles
		Work
		Schedule string `json:"schedule"`
		Tick     string `json:"tick"`
	}{t.Work, "${tick.schedule}", "${tick.time}"})
	return s
}

// Plan is what the ledger says of a schedule.
func Plan(s engine.Schedule) *ledger.Plan {
	p := &ledger.Plan{
		Every: time.Duration(s.Every), Cron: s.Cron, Zone: s.Zone,
		Misfire: s.Misfire.Policy, Limit: s.Misfire.Limit, Window: time.Duration(s.Misfire.Window),
		Ends: s.MaxRuns > 0 || s.PauseAfterFailures > 0, Cancels: s.Overlap.Policy == spec.OverlapCancelPrevious,
	}
	switch s.Overlap.Policy {
	case spec.OverlapAllow, "":
		p.Most = s.Overlap.Limit
	default:
		p.Most = 1
	}
	return p
}

// Keep applies or pauses the schedules of a timetable, each until that is certain, and
// edits them at random for as long as that says. Each call is in the ledger.
func (a *Actor) Keep(ctx context.Context, eng *engine.Engine, t Timetable) error {
	k := &keeper{actor: a, eng: eng, timetable: t, states: make([]keeping, t.Count)}
	group, applying := errgroup.WithContext(ctx)
	group.SetLimit(submitters)
	for n := range t.Count {
		group.Go(func() error {
			if t.Rest {
				return k.pause(applying, n)
			}
			return k.define(applying, n, t.Schedule(n))
		})
	}
	if err := group.Wait(); err != nil || t.Rest || t.Edits == 0 {
		return err
	}
	slog.InfoContext(ctx, "schedules applied", "prefix", t.Prefix, "count", t.Count)
	editing, cancel := context.WithTimeout(ctx, t.For)
	defer cancel()
	group, editing = errgroup.WithContext(editing)
	group.SetLimit(submitters)
	for wait.For(editing, time.Duration(float64(time.Second)/t.Edits)) {
		group.Go(func() error { return k.edit(ctx, rand.IntN(t.Count)) })
	}
	return group.Wait()
}

// keeper is somebody who keeps a timetable.
type keeper struct {
	actor     *Actor
	eng       *engine.Engine
	timetable Timetable
	states    []keeping
}

// keeping is what a keeper knows of a schedule. One thing is done to it at a time.
type keeping struct {
	mu       sync.Mutex
	revision uint64 // that it had at some time
	paused   bool
	gone     bool
}

// errDisobeyed is what must not happen: a test fails by it.
var errDisobeyed = errors.New("an edit of an old revision was taken")

// pause pauses a schedule, if it is there.
func (k *keeper) pause(ctx context.Context, n int) error {
	name := k.timetable.Name(n)
	return k.insist(ctx, ledger.Entry{Verb: ledger.Pause, Schedule: name}, func(ctx context.Context) error {
		_, err := k.eng.PauseSchedule(ctx, name)
		if errors.Is(err, engine.ErrNotFound) {
			return nil
		}
		return err
	})
}

// define applies a schedule until that is certain.
func (k *keeper) define(ctx context.Context, n int, s engine.Schedule) error {
	return k.insist(ctx, ledger.Entry{Verb: ledger.Apply, Schedule: s.Name, Plan: Plan(s)}, func(ctx context.Context) error {
		applied, err := k.eng.Apply(ctx, s)
		if err == nil {
			k.states[n].revision = applied.Revision
		}
		return err
	})
}

// edit does something random to a schedule, unless somebody does already.
func (k *keeper) edit(ctx context.Context, n int) error {
	state, name := &k.states[n], k.timetable.Name(n)
	if !state.mu.TryLock() {
		return nil
	}
	defer state.mu.Unlock()
	switch dice := rand.IntN(10); {
	case state.gone:
		state.gone, state.paused = false, false
		return k.define(ctx, n, k.timetable.Schedule(n))
	case state.paused:
		state.paused = false
		return k.insist(ctx, ledger.Entry{Verb: ledger.Resume, Schedule: name}, func(ctx context.Context) error {
			_, err := k.eng.ResumeSchedule(ctx, name)
			return err
		})
	case dice < 5:
		state.paused = true
		return k.pause(ctx, n)
	case dice < 7:
		state.gone = true
		return k.insist(ctx, ledger.Entry{Verb: ledger.Delete, Schedule: name}, func(ctx context.Context) error {
			err := k.eng.DeleteSchedule(ctx, name)
			if errors.Is(err, engine.ErrNotFound) {
				return nil // by the call before, whose answer was lost
			}
			return err
		})
	}
	return k.conflict(ctx, n)
}

// conflict edits a schedule, and then the revision before that, which is refused.
func (k *keeper) conflict(ctx context.Context, n int) error {
	old := k.states[n].revision
	s := k.timetable.Schedule(n)
	s.MaxAttempts = 1 + rand.IntN(1000)
	if err := k.define(ctx, n, s); err != nil || ctx.Err() != nil {
		return err
	}
	if k.states[n].revision == old {
		return nil // it said that already
	}
	s.MaxAttempts, s.Revision = 1001, old
	_, err := k.eng.Apply(ctx, s)
	var conflict *engine.ConflictError
	switch {
	case err == nil:
		return fmt.Errorf("actor: edit schedule %s: %w: %d", s.Name, errDisobeyed, old)
	case errors.As(err, &conflict) && (conflict.Revision <= old || conflict.Current == nil):
		return fmt.Errorf("actor: edit schedule %s: the conflict does not say what is there: %w", s.Name, conflict)
	}
	return nil
}

// insist makes a call about a schedule until its effect is certain.
func (k *keeper) insist(ctx context.Context, e ledger.Entry, call func(context.Context) error) error {
	e.What, e.Process = ledger.Call, k.actor.Process
	for ctx.Err() == nil {
		e.At, e.Error, e.Call, e.Outcome = 0, "", k.actor.Ledger.Now(), ledger.OK
		trying, cancel := context.WithTimeout(ctx, answerPatience)
		err := call(trying)
		cancel()
		if err != nil {
			e.Outcome, e.Error = ledger.Unknown, err.Error()
		}
		if failed := k.actor.Ledger.Write(e); failed != nil {
			return fmt.Errorf("actor: %s schedule %s: %w", e.Verb, e.Schedule, failed)
		}
		if err == nil {
			return nil
		}
		slog.WarnContext(ctx, "a call is tried again", "verb", e.Verb, "schedule", e.Schedule, "err", err)
		wait.For(ctx, againAfter)
	}
	return nil
}
