package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/schedules"
	"github.com/millrace/millrace/engine/spec"
)

// Schedule says when jobs are made without anybody asking for them, and which: the
// document of kind Schedule, as a value. [Engine.Apply] stores it; [Job.Schedule]
// does that for a job with types.
type Schedule = spec.Schedule

// ErrConflict is what a [*ConflictError] is.
var ErrConflict = schedules.ErrConflict

// ConflictError is returned by an edit of a schedule that was to replace a revision
// which is not the current one: it says what is.
type ConflictError = schedules.ConflictError

// ScheduleInfo is a schedule as users see it. Its JSON is stable.
type ScheduleInfo = schedules.Info

// ScheduleState says whether a schedule ticks.
type ScheduleState = schedules.State

// The states of a schedule.
const (
	ScheduleActive   = schedules.Active   // it ticks
	SchedulePaused   = schedules.Paused   // somebody has paused it
	ScheduleHalted   = schedules.Halted   // so many jobs have failed in a row that it paused itself
	ScheduleEnded    = schedules.Ended    // there is no tick to come any more
	ScheduleUnusable = schedules.Unusable // its definition cannot be used
)

// ScheduleEdit says more about a change of a schedule: which revision it is of, and
// why it is made.
type ScheduleEdit = schedules.EditOptions

// ScheduleList says which schedules to list.
type ScheduleList = schedules.ListOptions

// Tick is a time of a schedule that is to come.
type Tick = schedules.Tick

// Ticks are the times of a schedule that are to come, with a note on them.
type Ticks = schedules.Preview

// Schedule has the job made whenever the schedule ticks, with an input, whose strings
// may have expressions in ${…}: see docs/schedules.md. It stores the definition as
// [Engine.Apply] does; what the options of the job say and the schedule does not, it
// gets from them.
//
//	applied, err := Report.Schedule(ctx, eng, ReportIn{Full: true}, engine.Schedule{
//		Name: "nightly-report", Cron: "0 3 * * *", Zone: "Europe/Berlin", PauseAfterFailures: 5,
//	})
//
// A schedule that says Broadcast or Shards makes broadcasts or sharded jobs of this
// kind.
func (j *Job[In, Out]) Schedule(ctx context.Context, eng *Engine, in In, s Schedule, opts ...ApplyOptions) (Applied, error) {
	input, o, err := j.prepare(in, SubmitOptions{
		Queue: s.Queue, Class: Class(s.Class), MaxAttempts: s.MaxAttempts,
		QueueTimeout: time.Duration(s.QueueTimeout), Deadline: time.Duration(s.Deadline),
	})
	if err != nil {
		return Applied{}, err
	}
	for _, kind := range []string{s.Job, s.Broadcast} {
		if kind != "" && kind != j.def.kind {
			return Applied{}, fmt.Errorf("engine: schedule %s: it is of kind %s, and the job of kind %s: leave one out", s.Name, kind, j.def.kind)
		}
	}
	if s.Broadcast == "" {
		s.Job = j.def.kind
	}
	s.Input, s.Queue, s.MaxAttempts, s.Deadline = input, o.Queue, o.MaxAttempts, spec.Duration(o.Deadline)
	if s.Broadcast == "" && s.Shards == 0 { // others have no item that waits for a worker
		s.Class, s.QueueTimeout = string(o.Class), spec.Duration(o.QueueTimeout)
	}
	return eng.Apply(ctx, s, opts...)
}

// openSchedules opens the definitions of schedules.
func (e *Engine) openSchedules() {
	e.schedules = schedules.Open(e.pub, schedules.Options{Namespace: e.ns, Clock: e.clock, Logger: e.log})
}

// Schedules returns schedules, by name: all of them, or a page. It may be some
// milliseconds behind.
func (e *Engine) Schedules(ctx context.Context, opts ...ScheduleList) ([]ScheduleInfo, error) {
	return e.schedules.List(ctx, first(opts))
}

// GetSchedule returns the schedule of a name. It returns [ErrNotFound] for one that
// is not there.
func (e *Engine) GetSchedule(ctx context.Context, schedule string) (ScheduleInfo, error) {
	return e.schedules.Get(ctx, schedule)
}

// PauseSchedule keeps a schedule from ticking, and returns what is stored then. A tick
// whose job is there and has not begun is skipped; jobs that run go on. It is one
// write.
func (e *Engine) PauseSchedule(ctx context.Context, schedule string, opts ...ScheduleEdit) (Schedule, error) {
	return e.schedules.Pause(ctx, schedule, first(opts))
}

// ResumeSchedule lets a schedule tick again, also one that has halted by itself, with
// the first tick from now on. What was not due meanwhile is not made up for: see
// [Engine.BackfillSchedule].
func (e *Engine) ResumeSchedule(ctx context.Context, schedule string, opts ...ScheduleEdit) (Schedule, error) {
	return e.schedules.Resume(ctx, schedule, first(opts))
}

// DeleteSchedule ends a schedule. Its jobs stay, but those of ticks that have not
// begun are skipped. It returns [ErrNotFound] for one that is not there.
func (e *Engine) DeleteSchedule(ctx context.Context, schedule string, opts ...ScheduleEdit) error {
	return e.schedules.Delete(ctx, schedule, first(opts))
}

// NextTicks returns the next n ticks of a schedule as it is defined now.
func (e *Engine) NextTicks(ctx context.Context, schedule string, n int) (Ticks, error) {
	return e.schedules.Next(ctx, schedule, n)
}

// NextTicksOf returns the first n ticks that a schedule would have after a moment. It
// asks no server.
func NextTicksOf(s Schedule, after time.Time, n int) (Ticks, error) {
	return schedules.Foresee(s, after, n)
}

// ScheduleRun says more about a job that somebody wants of a schedule now. The zero
// value of a field means its default.
type ScheduleRun struct {
	// At is the time of the job, which its ID has and its input may have: triggering
	// the same time again attaches to the job that is there. Default: now, and a
	// job of its own.
	At time.Time
	// Input is the job's, in place of that of the schedule. It has no expressions.
	Input json.RawMessage
}

// TriggerSchedule makes a job of a schedule now, also if that is paused. If the
// schedule bounds how many of its jobs go on at a time, the job is under that bound
// as if it were a tick.
func (e *Engine) TriggerSchedule(ctx context.Context, schedule string, opts ...ScheduleRun) (*Handle[json.RawMessage], error) {
	run := first(opts)
	fail := func(err error) (*Handle[json.RawMessage], error) {
		return nil, fmt.Errorf("engine: trigger schedule %s: %w", schedule, err)
	}
	if run.Input != nil {
		if err := checkInput(schedule, run.Input); err != nil {
			return nil, err
		}
	}
	source, err := e.schedules.Source(ctx, schedule, run.Input)
	if err != nil {
		return fail(err)
	}
	at := run.At
	if at.IsZero() {
		at = e.clock.Now()
	}
	for {
		record, err := source.Job(at, e.clock.Now(), machine.ByHand)
		if err != nil {
			return fail(err)
		}
		entry, created, err := e.store.Submit(ctx, record)
		if err != nil {
			return fail(err)
		}
		if created || !run.At.IsZero() {
			return &Handle[json.RawMessage]{eng: e, ID: entry.Key, Created: created}, nil
		}
		at = at.Add(time.Millisecond) // somebody else has triggered it at that very moment
	}
}

// Backfilled is what [Engine.BackfillSchedule] did.
type Backfilled struct {
	Made     int      `json:"made"`     // jobs
	Attached int      `json:"attached"` // to jobs that were there
	Jobs     []string `json:"jobs"`     // all their IDs, by the times of their ticks
}

// BackfillSchedule makes the jobs of the ticks that a schedule has from one moment, and
// before another one that is over, zero for now: up to 10,000. It does so by the
// definition as it is now, also if that is paused. They are other jobs than those which
// the ticks have made when they were due, if they were. A tick that was backfilled before
// has its job, to which this attaches; so an error, or the death of the process, is made
// up for by doing it again.
//
// If the schedule bounds how many of its jobs go on at a time, they wait for their
// turns, without a limit of how many may wait.
func (e *Engine) BackfillSchedule(ctx context.Context, schedule string, from, to time.Time) (Backfilled, error) {
	done := Backfilled{Jobs: []string{}}
	records, err := e.schedules.Backfill(ctx, schedule, from, to)
	if err != nil {
		return done, err
	}
	for len(records) > 0 {
		some := records[:min(len(records), backfillAtOnce)]
		records = records[len(some):]
		there, err := e.submitMany(ctx, some)
		if err != nil {
			return done, fmt.Errorf("engine: backfill schedule %s: %w", schedule, err)
		}
		for _, job := range there {
			done.Jobs = append(done.Jobs, job.id)
			if job.created {
				done.Made++
			} else {
				done.Attached++
			}
		}
	}
	return done, nil
}

// backfillAtOnce is how many jobs are made before what became of them is counted.
const backfillAtOnce = 500
