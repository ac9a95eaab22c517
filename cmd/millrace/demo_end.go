package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace/engine"
)

// conclude shows how the demo ended, and returns what did not go as it should.
func (d *demo) conclude(e *env) error {
	if e.Output == "json" {
		return errors.Join(list(e, d.jobs, jobColumns), d.judge())
	}
	d.board.finish(d.jobs)
	fmt.Fprintf(e.stdout, "%s: %s\n", number(len(d.plan.events), "event"), d.events())
	fmt.Fprintf(e.stdout, "%s: %s, in %s\n", number(len(d.jobs), "job"), d.outcomes(), length(d.took))
	err := d.judge()
	if err == nil {
		fmt.Fprint(e.stdout, `
Everything ended as it should. Now with a NATS that stays:
  millrace dev
  millrace apply -f examples/orders/triggers.yaml
  millrace worker --exec order.fulfil=cat --exec 'mail.confirm=echo sent'
  millrace event send orders.created --data '{"id":"A-1","customer":"ann","total":9}'
  millrace job list
`)
	}
	return err
}

// events says what the events came to.
func (d *demo) events() string {
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
func (d *demo) outcomes() string {
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

// judge returns what differs from what should have happened.
func (d *demo) judge() error {
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

// finish shows the jobs as they ended, for good.
func (b *board) finish(jobs []engine.JobInfo) {
	for _, j := range jobs {
		b.put(j)
	}
	b.draw(true)
	fmt.Fprintln(b.out)
}
