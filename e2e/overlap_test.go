package e2e_test

import (
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
)

// Jobs take longer than the distance of ticks, on several workers. No more go on at a
// time than the schedule allows, and each tick that is declined is on record.
func TestOverlap(t *testing.T) {
	tell(
		t,
		scenario{"in peace", short, full, overlap{period: [3]time.Duration{0, 2 * time.Second, 10 * time.Second}, takes: [3]time.Duration{0, 7 * time.Second, 35 * time.Second}}.tell},
		scenario{"owners and workers die", short, full, overlap{period: [3]time.Duration{0, time.Second, time.Second}, takes: [3]time.Duration{0, 5 * time.Second, 5 * time.Second}, deaths: true}.tell},
		scenario{"no worker", short, full, unattended},
	)
}

// overlap is schedules of all policies, at each level.
type overlap struct {
	period, takes [3]time.Duration
	deaths        bool
}

// policies are those that bound how many jobs go on at a time.
var policies = map[string]spec.Overlap{
	"skip":   {Policy: spec.OverlapSkip},
	"queue":  {Policy: spec.OverlapQueue, Limit: 2},
	"cancel": {Policy: spec.OverlapCancelPrevious},
	"two":    {Policy: spec.OverlapAllow, Limit: 2},
}

func (o overlap) tell(t *testing.T, servers int) {
	period, takes := scale(o.period[0], o.period[1], o.period[2]), scale(o.takes[0], o.takes[1], o.takes[2])
	s := newShift(t, servers, 2, "w1", "w2", "w3")
	for prefix, policy := range policies {
		table := every(prefix, 1, period, actor.Work{For: ms(takes)})
		table.Definition.Overlap = policy
		s.tick(table)
	}
	byHand := map[string]string{}
	for prefix := range policies {
		now := s.Ledger.Now()
		s.AwaitEntry("a job of "+prefix+" goes on", func(e ledger.Entry) bool {
			return e.What == ledger.Start && e.At > now && e.Schedule == prefix+"0"
		})
		byHand[prefix] = s.Trigger(prefix + "0")
	}
	for range scale(0, 2, 10) {
		s.After(takes + period)
		if o.deaths {
			n := s.awaitOwner()
			n.Kill()
			n.Start()
			s.After(time.Second)
			w := s.nodes["w2"]
			w.Kill()
			w.Start()
		}
	}
	s.After(takes + period)
	jobs := s.rest()
	for _, j := range jobs {
		for prefix, id := range byHand {
			if j.ID == id {
				t.Logf("what somebody wanted of %s meanwhile is %s: %+v", prefix, j.State, j.Error)
			}
			if j.ID == id && prefix == "skip" && j.State != "skipped" {
				t.Errorf("%s was wanted while another one went on, and is %s, want it skipped", id, j.State)
			}
		}
	}
	s.tellTurns(jobs)
	if !o.deaths {
		justified(t, jobs, takes)
	}
	s.tellCancels()
}

// tellTurns checks that of each policy some ran, and that what was declined was so
// for a turn.
func (s *shift) tellTurns(jobs []oracle.Job) {
	s.t.Helper()
	for prefix := range policies {
		ends := map[string]int{}
		for _, j := range jobs {
			if j.Schedule == prefix+"0" {
				ends[j.State]++
			}
		}
		s.t.Logf("%s: %v", prefix, ends)
		if prefix != "cancel" && (ends["succeeded"] == 0 || ends["skipped"] == 0) || prefix == "cancel" && ends["cancelled"] == 0 {
			s.t.Errorf("%s: its jobs are %v, want some of both kinds", prefix, ends)
		}
	}
}

// justified checks that when a tick was declined, some other job of its schedule went
// on, or had just ended.
func justified(t *testing.T, jobs []oracle.Job, takes time.Duration) {
	t.Helper()
	for _, j := range jobs {
		if j.State != "skipped" || j.Error == nil || j.Error.Code != "overlap" {
			continue
		}
		if !slices.ContainsFunc(jobs, func(o oracle.Job) bool {
			return o.Schedule == j.Schedule && o.State != "skipped" && !o.Created.After(j.Finished) && o.Finished.After(j.Finished.Add(-takes/2))
		}) {
			t.Errorf("%s was declined for others, and none went on", j.ID)
		}
	}
}

// tellCancels prints how soon handlers heard that the next tick had come.
func (s *shift) tellCancels() {
	s.t.Helper()
	entries := s.Entries()
	started := map[string]ledger.Entry{}
	var waits delays
	for _, e := range entries {
		if e.What == ledger.Start {
			started[e.Nonce] = e
		}
		if e.What != ledger.End || e.Cause != ledger.Cancelled {
			continue
		}
		if period := int64(s.periodOf(started[e.Nonce].Schedule)); period > 0 {
			waits = append(waits, time.Duration(e.At%period))
		}
	}
	slices.Sort(waits)
	s.t.Logf("figure: cancelled by the next tick: %v", waits)
}

// periodOf is the distance of the ticks of a schedule, or 0.
func (s *shift) periodOf(schedule string) time.Duration {
	for _, t := range s.tables {
		if t.Name(0) == schedule {
			return time.Duration(t.Definition.Every)
		}
	}
	return 0
}

// unattended is schedules whose jobs nobody takes for a while.
func unattended(t *testing.T, servers int) {
	s := newShift(t, servers, 2)
	plain := every("plain", 1, time.Second, actor.Work{})
	queued := every("queued", 1, time.Second, actor.Work{})
	queued.Definition.Overlap = spec.Overlap{Policy: spec.OverlapQueue, Limit: 3}
	brief := every("brief", 1, time.Second, actor.Work{})
	brief.Definition.QueueTimeout = spec.Duration(4 * time.Second)
	s.tick(plain, queued, brief)
	s.After(scale(0, 15*time.Second, 5*time.Minute))
	s.Worker("w1", cluster.NodeOptions{Slots: 100})
	s.After(5 * time.Second)
	ends := map[string]map[string]int{}
	for _, j := range s.rest() {
		if ends[j.Schedule] == nil {
			ends[j.Schedule] = map[string]int{}
		}
		ends[j.Schedule][j.State]++
	}
	t.Logf("%v", ends)
	if e := ends["plain0"]; e["succeeded"] == 0 || e["failed"]+e["lost"] > 0 {
		t.Errorf("of the schedule without a policy jobs are %v, want them succeeded", e)
	}
	if e := ends["queued0"]; e["succeeded"] == 0 || e["skipped"] == 0 || e["failed"]+e["lost"] > 0 {
		t.Errorf("of the schedule with a queue jobs are %v, want some succeeded and some skipped", e)
	}
	if e := ends["brief0"]; e["succeeded"] == 0 || e["failed"] == 0 {
		t.Errorf("of the schedule whose jobs wait for a while jobs are %v, want some succeeded and some failed", e)
	}
}

// Servers are away for longer than a minute. What was due meanwhile is made up for as
// the schedule says, and the rest is on record (X4, J2).
func TestMisfires(t *testing.T) {
	tell(
		t,
		scenario{"servers are away", short, full, func(t *testing.T, n int) { misfires(t, n, 0, 70*time.Second) }},
		scenario{"owners die, then servers are away", full, full, func(t *testing.T, n int) { misfires(t, n, 10, 10*time.Minute) }},
	)
}

// misfires kills owners, and then has all servers away for a while, across a time of
// the day.
func misfires(t *testing.T, servers, kills int, down time.Duration) {
	s := newShift(t, servers, 2, "w1")
	for prefix, m := range map[string]spec.Misfire{
		"once": {}, "skip": {Policy: spec.MisfireSkip}, "all": {Policy: spec.MisfireAll, Limit: 5},
	} {
		table := every(prefix, 1, time.Second, actor.Work{})
		table.Definition.Misfire = m
		s.tick(table)
	}
	for range kills {
		s.After(10 * time.Second)
		n := s.awaitOwner()
		n.Kill()
		n.Start()
	}
	at := time.Now().UTC().Add(80 * time.Second).Truncate(time.Minute)
	daily := actor.Timetable{Prefix: "daily", Count: 1, Definition: engine.Schedule{Cron: at.Format("4 15 * * *")}}
	never := daily
	never.Prefix, never.Definition.Misfire.Policy = "never", spec.MisfireSkip
	s.tick(daily, never)
	s.After(time.Until(at.Add(-5 * time.Second)))
	s.KillServers()
	s.After(down)
	s.StartServers()
	s.Settle()
	s.After(10 * time.Second)

	ran, declined := map[string]int{}, map[string]int64{}
	for _, j := range s.rest() {
		switch late := j.Created.Sub(j.Due) > time.Minute; {
		case j.State == "succeeded" && late:
			ran[j.Schedule]++
		case j.State == "skipped" && j.Error != nil && j.Error.Code == "misfire":
			declined[j.Schedule] += j.Tick.Count
		}
	}
	t.Logf("more than a minute late: ran %v, declined %v", ran, declined)
	for schedule, want := range map[string]int{"once0": 1, "skip0": 0, "all0": 5, "daily0": 1, "never0": 0} {
		// One that was found in time may be recorded a moment too late.
		if got := ran[schedule]; got < want || got > want+1 {
			t.Errorf("%s: %d ticks ran that were more than a minute late, want %d", schedule, got, want)
		}
		if got := declined[schedule]; got == 0 && schedule != "daily0" {
			t.Errorf("%s: no tick was declined", schedule)
		}
	}
}
