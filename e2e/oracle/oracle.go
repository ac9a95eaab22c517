// Package oracle judges what a system under test did, from what was written
// down outside of it: the ledger of handlers, clients and of whoever killed and
// cut, and the jobs as the system itself lists them in the end. It knows the
// promises and none of the code that keeps them.
//
//	ledger.jsonl ─┐
//	jobs.jsonl   ─┼─▶ Load ─▶ Run ─▶ Check ─▶ violations, with timelines
//	run.json     ─┘            └───▶ Figures
//
// Start reading at [Run.Check], then at any of the checks:
//
//	tick.go        I1 and I2: each tick has one job, or says why not (calendar.go)
//	completion.go  I3 and I8: each job is completed once, by one run of its handler
//	stuck.go       I4: no job is lost, and none waits without a reason (idle.go)
//	writes.go      I5 and I6: what users wrote holds
//	part.go        I7: a part runs on its own node, once
//	broadcast.go   I7: a broadcast ends as its parts do (family.go)
//	recovery.go    I9: no process gives up
//	policy.go      schedules do what they were told (schedule.go)
//	owner.go       there is one owner at a time
//	linear.go      all that was seen of a job has an order in which it is possible
//
// What they share is in history.go: the runs of handlers, the lives of processes
// (process.go), and when these were disturbed (outage.go).
//
// # Soundness
//
// A check may miss what is wrong while faults are there; it must not cry while
// the promises hold. So whoever was killed, frozen or cut is excused for as long
// as that lasts, and a loaded machine is given [Run.Slack].
package oracle

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// Run is all that is known of one run of a scenario.
type Run struct {
	Ledger []ledger.Entry `json:"-"`
	Jobs   []Job          `json:"-"`

	// Test is the name of the scenario, for people.
	Test string `json:"test,omitempty"`
	// Lease is that of a node. Default 6 s, and 15 s with three servers.
	Lease time.Duration `json:"lease,omitempty"`
	// Slack is what a loaded machine may be late. Default [DefaultSlack].
	Slack time.Duration `json:"slack,omitempty"`
	// Servers is how many NATS servers there were. Default 1.
	Servers int `json:"servers,omitempty"`
	// Seed is that of the random plan, if there was one.
	Seed uint64 `json:"seed,omitempty"`

	// Unlisted says that the run broke off before its jobs were listed, so that
	// nothing can be said about how they ended.
	Unlisted bool `json:"-"`
}

// DefaultSlack is how late a loaded machine may be.
const DefaultSlack = 10 * time.Second

func (r Run) withDefaults() Run {
	r.Servers = cmp.Or(r.Servers, 1)
	if r.Lease == 0 {
		r.Lease = 6 * time.Second
		if r.Servers > 1 {
			r.Lease = 15 * time.Second
		}
	}
	r.Slack = cmp.Or(r.Slack, DefaultSlack)
	return r
}

// Violation is a promise that was broken.
type Violation struct {
	// Invariant is the one that was violated: I1 to I9, overlap, owner, or linearizable.
	Invariant string
	Job       string // empty if it is about a process
	Says      string
	// Entries are what led to it, in order.
	Entries []ledger.Entry

	timeline string
}

// String is the violation with its timeline, for people.
func (v Violation) String() string {
	var b strings.Builder
	b.WriteString(v.Invariant + ": ")
	if v.Job != "" {
		b.WriteString("job " + v.Job + ": ")
	}
	b.WriteString(v.Says + "\n" + v.timeline)
	return b.String()
}

// checks are what a run is judged by, before [linear].
var checks = []func(*history) []Violation{
	ticks, completions, overlaps, backwards, stuck, writes, drains, broadcasts, repeats, recoveries, policies, ownership,
}

// told is how many violations get a timeline.
const told = 100

// Check judges the run. It is to be called when all faults are healed, and all
// work has ended or should have. The violations are in the order of the
// invariants.
func (r Run) Check() []Violation {
	h := newHistory(r)
	var all []Violation
	for _, check := range checks {
		all = append(all, check(h)...)
	}
	all = append(all, linear(h, all)...)
	slices.SortStableFunc(all, func(a, b Violation) int { return strings.Compare(a.Invariant, b.Invariant) })
	for i := range all[:min(told, len(all))] {
		all[i].timeline = h.story(all[i])
	}
	return all
}
