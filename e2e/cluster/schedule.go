package cluster

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// Keep starts a process that applies the schedules of a timetable, and edits them if
// that says so. [Cluster.Kept] waits until it has.
func (c *Cluster) Keep(t actor.Timetable) *Node {
	c.t.Helper()
	text, err := json.Marshal(t)
	if err != nil {
		c.t.Fatal(err)
	}
	name := "keep-" + t.Prefix
	n := &Node{}
	n.c, n.name = c, name
	n.launch(command{role: ledger.Submitter, path: c.programs.actor(), args: []string{"keep", "--timetable", string(text)}}, 0)
	return n
}

// Apply does what a timetable says, and returns when it is done.
func (c *Cluster) Apply(t actor.Timetable) {
	c.t.Helper()
	c.Kept(c.Keep(t))
}

// Kept waits until who keeps a timetable is done with it.
func (c *Cluster) Kept(n *Node) {
	c.t.Helper()
	n.Await()
	if p := n.current(); !p.cmd.ProcessState.Success() {
		c.t.Fatalf("cluster: %s has failed:\n%s", p.process, tail(p.log, 20))
	}
}

// PauseSchedule keeps a schedule from ticking.
func (c *Cluster) PauseSchedule(schedule string) error {
	return c.call(ledger.Entry{Verb: ledger.Pause, Schedule: schedule}, "schedule", "pause", schedule)
}

// ResumeSchedule lets a schedule tick again.
func (c *Cluster) ResumeSchedule(schedule string) error {
	return c.call(ledger.Entry{Verb: ledger.Resume, Schedule: schedule}, "schedule", "resume", schedule)
}

// DeleteSchedule deletes a schedule.
func (c *Cluster) DeleteSchedule(schedule string) error {
	return c.call(ledger.Entry{Verb: ledger.Delete, Schedule: schedule}, "schedule", "delete", schedule)
}

// Trigger makes a job of a schedule, and returns its ID.
func (c *Cluster) Trigger(schedule string) string {
	c.t.Helper()
	call := c.Ledger.Now()
	var j oracle.Job
	if err := json.Unmarshal([]byte(c.Run("schedule", "trigger", schedule, "--output", "json")), &j); err != nil {
		c.t.Fatalf("cluster: trigger %s: %v", schedule, err)
	}
	c.write(ledger.Entry{What: ledger.Call, Call: call, Verb: ledger.Submit, Schedule: schedule, Job: j.ID, Outcome: ledger.Created})
	return j.ID
}

// Rest pauses the schedules of a timetable and waits until all jobs have ended, and
// until the oracle believes that whatever was due is decided.
func (c *Cluster) Rest(tables ...actor.Timetable) {
	c.t.Helper()
	for _, t := range tables {
		t.Rest = true
		c.Apply(t)
	}
	c.After(oracle.DefaultSlack + oracle.DefaultSlack/5)
	c.AwaitIdle()
}

// AwaitIdle waits until all jobs that there are have ended.
func (c *Cluster) AwaitIdle() {
	c.t.Helper()
	open := -1
	defer func() {
		if c.t.Failed() {
			c.t.Logf("cluster: %d jobs have not ended", open)
		}
	}()
	c.Await("all jobs have ended", func() bool {
		jobs, err := c.listed()
		if err != nil {
			return false // NATS is away
		}
		open = 0
		for _, j := range jobs {
			if !j.Ended() {
				open++
			}
		}
		return open == 0
	})
}

// listed lists all jobs.
func (c *Cluster) listed() ([]oracle.Job, error) {
	out, err := c.within(listTime, "job", "list", "--output", "json", "--limit", listAll)
	if err != nil {
		return nil, err
	}
	jobs, err := oracle.DecodeJobs(strings.NewReader(out))
	if err != nil {
		return nil, fmt.Errorf("cluster: list jobs: %w", err)
	}
	return jobs, nil
}
