package demo

import (
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
)

// Over reports whether all that follows from the events has happened.
func (d *Demo) Over() bool { return d.took > 0 }

// Jobs returns the jobs as they ended.
func (d *Demo) Jobs() []engine.JobInfo { return d.jobs }

// Conclude shows how the demo ended.
func (d *Demo) Conclude() {
	d.board.finish(d.jobs)
	fmt.Fprintf(d.board.out, "%s: %s\n", show.Count(len(d.plan.events), "event"), d.events())
	fmt.Fprintf(d.board.out, "%s: %s, in %s\n", show.Count(len(d.jobs), "job"), d.outcomes(), show.Length(d.took))
}

// events says what the events came to.
func (d *Demo) events() string {
	p := d.plan
	parts := []string{fmt.Sprintf("%d started jobs", p.started)}
	for _, part := range []struct {
		n    int
		text string
	}{
		{p.filtered, "filtered"},
		{p.repeated, "known already"},
		{p.untouched, "without a trigger"},
		{p.unmapped, "not mapped"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.text))
		}
	}
	return strings.Join(parts, ", ")
}

// outcomes says how the jobs ended.
func (d *Demo) outcomes() string {
	states := map[string]int{}
	again := 0
	for _, j := range d.jobs {
		states[j.State]++
		if j.State == "succeeded" && j.Failures > 0 {
			again++
		}
	}
	parts := []string{fmt.Sprintf("%d succeeded", states["succeeded"])}
	if again > 0 {
		parts[0] += fmt.Sprintf(" (%d after a failure)", again)
	}
	for _, state := range []string{"failed", "cancelled", "running", "retrying", "scheduled", "pending"} {
		if states[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", states[state], state))
		}
	}
	return strings.Join(parts, ", ")
}

// Judge returns what differs from what should have happened.
func (d *Demo) Judge() error {
	var errs []error
	if len(d.jobs) != d.plan.jobs {
		errs = append(errs, fmt.Errorf("there are %d jobs, and the events should have started %d", len(d.jobs), d.plan.jobs))
	}
	for _, j := range d.jobs {
		if !j.Ended() {
			errs = append(errs, fmt.Errorf("job %s is %s", j.ID, j.State))
		} else if err := j.Err(); err != nil {
			errs = append(errs, err)
		}
	}
	for _, dead := range d.dead {
		errs = append(errs, fmt.Errorf("event on %s is no job for trigger %s: %s", dead.Subject, dead.Trigger, dead.Reason))
	}
	if len(d.dead) != d.plan.dead {
		errs = append(errs, fmt.Errorf("there are %d dead events, and %d were to be expected", len(d.dead), d.plan.dead))
	}
	return errors.Join(errs...)
}
