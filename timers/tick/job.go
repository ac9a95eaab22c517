package tick

import (
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
)

// Job returns the record that an act creates: [Make], [Wait] or [Decline]. It is
// skipped if its input has no value, or if this definition declines it.
func (d *Definition) Job(a Act, now time.Time) machine.Job {
	now = plain(now)
	byClock := a.By == ""
	j := machine.Job{
		ID: a.ID, Kind: d.TargetKind(), State: machine.Pending, MaxAttempts: d.MaxAttempts, Created: now,
		Fan: d.fan(),
		Tick: &machine.Tick{
			Schedule: d.Name, At: plain(a.At), Number: a.Number, Revision: d.Revision, By: a.By, Turn: d.Overlap.Bounded() || a.Do == Wait,
			Watched: byClock && (d.PauseAfterFailures > 0 || d.fixedDelay()), More: a.More,
		},
	}
	if j.Fan == nil && d.Class != "normal" {
		j.Class = machine.Class(d.Class)
	}
	input, err := d.template.Render(j.Tick.At, a.Number)
	j.Input = input
	if a.Do != Decline {
		d.refuse(&a, j, err)
	}
	if a.Do == Decline {
		j.State, j.Error, j.Finished = machine.Skipped, &machine.Error{Code: a.Code, Message: a.Why}, now
		return j
	}
	d.plan(&j, a, now)
	return j
}

// refuse makes the act a [Decline] if the input has no value, or if the definition is
// another one than that by which the act was decided, and declines the tick: a record
// that says that it was made by this one is not compared with it again.
func (d *Definition) refuse(a *Act, j machine.Job, input error) {
	code, why := "", ""
	if input != nil {
		code, why = machine.SkipInput, input.Error()
	} else if j.Unchecked() {
		code, why = d.Declines(j)
	}
	if code != "" {
		a.Do, a.Code, a.Why = Decline, code, short(why)
	}
}

// plan sets the times of a new job.
func (d *Definition) plan(j *machine.Job, a Act, now time.Time) {
	due := now
	if a.By == "" {
		due = j.Tick.At.Add(d.JitterOf(j.Tick.At))
	}
	from := now
	if due.After(now) {
		from = due
	}
	switch {
	case a.Do == Wait:
		j.State, j.Due, j.Wait = machine.Scheduled, machine.Millisecond(from), machine.WaitTurn
	case due.After(now) || j.Fan != nil: // the owner dispatches what has children
		j.State, j.Due, j.Wait = machine.Scheduled, machine.Millisecond(from), machine.WaitDelay
	}
	if d.QueueTimeout > 0 && j.Fan == nil {
		j.StartBy = machine.Millisecond(from.Add(time.Duration(d.QueueTimeout)))
	}
	if d.Deadline > 0 {
		j.Deadline = machine.Millisecond(from.Add(time.Duration(d.Deadline)))
	}
}

// fan returns what the record of a broadcast or a sharded job says of its children.
func (d *Definition) fan() *machine.Fan {
	switch {
	case d.Broadcast != "":
		f := &machine.Fan{Select: d.Selector, OnLost: machine.ElseFail, Done: machine.GoalAll, MaxParallel: d.MaxParallel}
		if d.OnLost == spec.LostWaits {
			f.OnLost = machine.ElseWait
		}
		if n, err := strconv.Atoi(d.Done); err == nil {
			f.Done, f.Need = machine.GoalCount, n
		} else if d.Done != "" {
			f.Done = machine.Goal(d.Done)
		}
		return f
	case d.Shards > 0:
		return &machine.Fan{
			Shards: true, Shares: slices.Repeat([]machine.Share{{}}, d.Shards), Total: d.Shards, Select: d.Selector,
			OnLost: machine.ElseWait, Done: machine.GoalAll,
		}
	}
	return nil
}
