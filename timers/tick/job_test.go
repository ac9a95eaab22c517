package tick

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
)

// jobCase is an act, and the job that is to be made of it.
type jobCase struct {
	schedule spec.Schedule
	act      Act
	want     machine.Job
}

func TestJob(t *testing.T) {
	t.Parallel()
	for name, c := range jobCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.schedule.Every = spec.Duration(time.Hour)
			got := compile(t, c.schedule, stored(worldStart)).Job(c.act, jobNow)
			if err := got.Validate(); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}

var (
	jobTick = worldStart.Add(time.Hour)
	jobNow  = jobTick.Add(2 * time.Millisecond)
)

func jobCases() map[string]jobCase {
	at, now := jobTick, jobNow
	tickAct := Act{Do: Make, ID: "r.s=1798765200000", At: at, Number: 7}
	want := machine.Job{
		ID: tickAct.ID, Kind: "r.b", State: machine.Pending, Created: now,
		Tick: &machine.Tick{Schedule: "s", At: at, Number: 7, Revision: 1},
	}
	change := func(f func(*machine.Job)) machine.Job {
		j, tick := want, *want.Tick
		j.Tick = &tick
		f(&j)
		return j
	}
	every := spec.Duration(time.Hour)
	act := func(do Do, f func(*Act)) Act {
		a := tickAct
		a.Do = do
		if f != nil {
			f(&a)
		}
		return a
	}
	return map[string]jobCase{
		"a job": {spec.Schedule{Class: "normal"}, tickAct, want},
		"it says everything": {
			spec.Schedule{
				Class: "high", MaxAttempts: 3, QueueTimeout: spec.Duration(time.Minute), Deadline: every, PauseAfterFailures: 1,
				Input: json.RawMessage(`{"n":"${tick.number}","at":"${tick.time} of ${tick.schedule}"}`),
			},
			tickAct, change(func(j *machine.Job) {
				j.Class, j.MaxAttempts, j.Tick.Watched = machine.High, 3, true
				j.StartBy, j.Deadline = now.Add(time.Minute), now.Add(time.Hour)
				j.Input = json.RawMessage(`{"n":7,"at":"2027-01-01T01:00:00Z of s"}`)
			}),
		},
		"by hand": {spec.Schedule{PauseAfterFailures: 1}, act(Make, func(a *Act) { a.By, a.Number = machine.ByHand, 0 }), change(func(j *machine.Job) {
			j.Tick.By, j.Tick.Number = machine.ByHand, 0
		})},
		"it waits": {spec.Schedule{Overlap: spec.Overlap{Policy: spec.OverlapSkip}}, act(Wait, nil), change(func(j *machine.Job) {
			j.State, j.Wait, j.Due, j.Tick.Turn = machine.Scheduled, machine.WaitTurn, now, true
		})},
		"it is declined": {
			spec.Schedule{},
			act(Decline, func(a *Act) { a.Code, a.Why, a.More = "misfire", "late", &machine.More{Count: 2, Until: at} }),
			change(func(j *machine.Job) {
				j.State, j.Finished, j.Error = machine.Skipped, now, &machine.Error{Code: "misfire", Message: "late"}
				j.Tick.More = &machine.More{Count: 2, Until: at}
			}),
		},
		"it has no input": {spec.Schedule{Input: json.RawMessage(`"${1 / (tick.number - 7)}"`)}, tickAct, change(func(j *machine.Job) {
			j.State, j.Finished = machine.Skipped, now
			j.Error = &machine.Error{Code: machine.SkipInput, Message: "input: 1 / (tick.number - 7): division by zero"}
		})},
		"another queue by now": {spec.Schedule{Queue: "q"}, tickAct, change(func(j *machine.Job) {
			j.State, j.Finished = machine.Skipped, now
			j.Error = &machine.Error{Code: "changed", Message: "schedule s makes its jobs in queue q now"}
		})},
		"a broadcast": {
			spec.Schedule{Broadcast: "r.b", Selector: map[string]string{"a": "b"}, Done: "2", OnLost: "wait", Deadline: every, MaxParallel: 4},
			tickAct, change(func(j *machine.Job) {
				j.State, j.Wait, j.Due, j.Deadline = machine.Scheduled, machine.WaitDelay, now, now.Add(time.Hour)
				j.Fan = &machine.Fan{Select: map[string]string{"a": "b"}, OnLost: machine.ElseWait, Done: machine.GoalCount, Need: 2, MaxParallel: 4}
			}),
		},
		"a sharded job": {spec.Schedule{Shards: 2}, tickAct, change(func(j *machine.Job) {
			j.State, j.Wait, j.Due = machine.Scheduled, machine.WaitDelay, now
			j.Fan = &machine.Fan{Shards: true, Shares: make([]machine.Share, 2), Total: 2, OnLost: machine.ElseWait, Done: machine.GoalAll}
		})},
	}
}

// A job is due by its jitter, whoever makes it; its ID and its tick are not moved.
func TestJitter(t *testing.T) {
	t.Parallel()
	d := compile(t, spec.Schedule{Every: spec.Duration(time.Hour), Jitter: spec.Duration(time.Minute)}, stored(worldStart))
	at := worldStart.Add(time.Hour)
	a := Act{Do: Make, ID: d.ID(at, ""), At: at, Number: 1}
	first, second := d.Job(a, at), d.Job(a, at.Add(5*time.Millisecond))
	if first.State != machine.Scheduled || !first.Due.Equal(second.Due) || first.Due.Before(at) || !first.Due.Before(at.Add(time.Minute)) {
		t.Errorf("due at %v, and at %v by another owner", first.Due, second.Due)
	}
	if late := d.Job(a, at.Add(2*time.Minute)); late.State != machine.Pending {
		t.Errorf("it is %s when its jitter is over", late.State)
	}
	if hand := d.Job(Act{Do: Make, By: machine.ByHand, ID: d.ID(at, machine.ByHand), At: at}, at); hand.State != machine.Pending {
		t.Errorf("by hand it is %s", hand.State)
	}
}
