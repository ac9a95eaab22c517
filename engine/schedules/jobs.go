package schedules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/timers/scheduler"
	"github.com/millrace/millrace/timers/tick"
)

// Source makes the jobs that people want of a schedule, by its definition as it was
// read. They are like those of the clock, so they differ only in their IDs and in who
// made them; whether the schedule is paused does not matter.
type Source struct {
	definition *tick.Definition
	input      json.RawMessage // nil: that of the definition
}

// Source reads a schedule from the leader. An input that is not nil is that of all
// jobs, in place of the schedule's.
func (s *Schedules) Source(ctx context.Context, schedule string, input json.RawMessage) (*Source, error) {
	if err := name.Check("schedule", schedule); err != nil {
		return nil, err
	}
	entry, err := s.definition(ctx, schedule)
	if err == nil {
		err = s.clock.Fresh(ctx)
	}
	if err != nil {
		return nil, err
	}
	if input != nil {
		entry.Value.Input = nil
	}
	d, err := scheduler.Compile(entry)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return &Source{d, input}, nil
}

// Job returns the record of a job for a time, which it is named by. One of a schedule
// that bounds how many go on waits for its turn, which the owner gives.
func (s *Source) Job(at, now time.Time, by machine.Maker) (machine.Job, error) {
	at = at.Truncate(time.Millisecond)
	act := tick.Act{Do: tick.Make, ID: s.definition.ID(at, by), At: at, By: by}
	if s.definition.Overlap.Bounded() {
		act.Do = tick.Wait
	}
	job := s.definition.Job(act, now)
	if job.State == machine.Skipped {
		return job, fmt.Errorf("its input has no value at %s: %s", at.UTC().Format(time.RFC3339Nano), job.Error.Message)
	}
	if s.input != nil {
		job.Input = s.input
	}
	return job, nil
}

// maxBackfill bounds how many jobs are wanted at once.
const maxBackfill = 10_000

// Backfill returns the records of the jobs for the ticks that a schedule has from one
// moment on and before another one, which must be over; zero means now.
func (s *Schedules) Backfill(ctx context.Context, schedule string, from, to time.Time) ([]machine.Job, error) {
	source, err := s.Source(ctx, schedule, nil)
	if err != nil {
		return nil, failed("backfill", schedule, err)
	}
	jobs, err := source.between(from, to, s.clock.Now())
	if err != nil {
		return nil, failed("backfill", schedule, err)
	}
	return jobs, nil
}

func (s *Source) between(from, to, now time.Time) ([]machine.Job, error) {
	to = or(to, now)
	switch {
	case s.definition.After > 0:
		return nil, errors.New("it has a fixed delay, so there are no ticks but those that were: trigger it instead")
	case !from.Before(to):
		return nil, fmt.Errorf("%v is not before %v: give the earlier time first", rfc(from), rfc(to))
	case to.After(now):
		return nil, fmt.Errorf("%v is to come: ticks up to now, %v, can be made up for", rfc(to), rfc(now))
	}
	var jobs []machine.Job
	for at := s.definition.Next(from.Add(-1)); !at.IsZero() && at.Before(to); at = s.definition.Next(at) {
		if len(jobs) == maxBackfill {
			return nil, fmt.Errorf("there are more than %d ticks from %v to %v: backfill shorter times, one after the other", maxBackfill, rfc(from), rfc(to))
		}
		job, err := s.Job(at, now, machine.ByBackfill)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}

// rfc writes a time as commands take it.
func rfc(t time.Time) string { return t.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano) }
