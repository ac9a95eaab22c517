package oracle_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// A schedule that does what it was told is right; with one wrong added to it, it is
// not, and the judge says which promise was broken.
func TestRandomSchedules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom(modes).Draw(t, "mode")
		s := drawTicks(t, mode)
		if said := s.run().Check(); len(said) > 0 {
			t.Fatalf("%s: nothing was wrong, and the judge says %v", mode, said)
		}
		fitting := slices.DeleteFunc(slices.Clone(tickWrongs), func(w tickWrong) bool { return !slices.Contains(w.in, mode) })
		wrong := rapid.SampledFrom(fitting).Draw(t, "wrong")
		i := wrong.pick(s)
		wrong.do(s, i)
		said := s.run().Check()
		if !slices.ContainsFunc(said, func(v oracle.Violation) bool { return v.Invariant == wrong.says }) {
			t.Fatalf("%s: %s: %s is not among what the judge says: %v", mode, wrong.name, wrong.says, said)
		}
	})
}

// What happens to the ticks of a schedule.
const (
	inPeace = "in peace" // each runs
	skips   = "skips"    // those are declined that come while a job goes on
	bursts  = "bursts"   // so many of these that they share records
	late    = "late"     // there was no owner for a while
)

var modes = []string{inPeace, skips, bursts, late}

// tickWrong is what can go wrong, and what is then said.
type tickWrong struct {
	name  string
	in    []string
	state string // of the tick that it is done to; empty: any
	do    func(s *tickWorld, i int)
	says  string
}

// pick chooses the tick, not the first one.
func (w tickWrong) pick(s *tickWorld) int {
	var fitting []int
	for i, j := range s.jobs {
		if i > 0 && (w.state == "" || j.State == w.state) && j.Tick.Count == 1 {
			fitting = append(fitting, i)
		}
	}
	return rapid.SampledFrom(fitting).Draw(s.t, "tick")
}

var tickWrongs = []tickWrong{
	{"two jobs", modes, "", func(s *tickWorld, i int) {
		again := s.jobs[i]
		again.ID += "-again"
		s.jobs = append(s.jobs, again)
	}, "I1"},
	{"another time", modes, "", func(s *tickWorld, i int) { s.jobs[i].Due = s.jobs[i].Due.Add(7 * time.Millisecond) }, "I1"},
	{"no job", modes, "", func(s *tickWorld, i int) { s.jobs = slices.Delete(s.jobs, i, i+1) }, "I2"},
	{"another number", modes, "", func(s *tickWorld, i int) { s.jobs[i].Tick.Number++ }, "I2"},
	{"too early", modes, "succeeded", func(s *tickWorld, i int) { s.start(i).At = s.jobs[i].Due.UnixNano() - int64(2*oracle.Drift) }, "I1"},
	{"told otherwise", modes, "succeeded", func(s *tickWorld, i int) { s.start(i).Due += int64(time.Second) }, "I1"},
	{"too few share a record", []string{bursts}, "", func(s *tickWorld, _ int) { s.shared().Tick.Count-- }, "I2"},
	{"too many share a record", []string{bursts}, "", func(s *tickWorld, _ int) { s.shared().Tick.Count++ }, "I2"},
	{"a shared record is gone", []string{bursts}, "", func(s *tickWorld, _ int) {
		gone := s.shared().ID
		s.jobs = slices.DeleteFunc(s.jobs, func(j oracle.Job) bool { return j.ID == gone })
	}, "I2"},
	{"began after the pause", modes, "succeeded", func(s *tickWorld, i int) {
		e := s.start(i)
		e.At, s.jobs[i].Attempts[0].Started, s.jobs[i].Finished = s.paused+int64(8*time.Second), time.Time{}, time.Time{}
	}, "I5"},
	{"more than allowed", []string{skips, bursts}, "succeeded", func(s *tickWorld, i int) {
		j := s.job(s.jobs[i].Due.Add(time.Millisecond), "hand")
		s.works(&j, s.jobs[i].Due.Add(50*time.Millisecond), time.Second)
		s.jobs = append(s.jobs, j)
	}, "overlap"},
	{"declined without reason", []string{inPeace}, "succeeded", func(s *tickWorld, i int) { s.decline(&s.jobs[i], "overlap", s.jobs[i].Due) }, "I2"},
	{"declined in time", modes, "succeeded", func(s *tickWorld, i int) { s.decline(&s.jobs[i], "misfire", s.jobs[i].Due.Add(30*time.Second)) }, "I2"},
	{"ran too late", []string{late}, "", func(s *tickWorld, _ int) {
		j := &s.jobs[slices.IndexFunc(s.jobs, func(j oracle.Job) bool { return j.State == "skipped" })]
		j.Error = nil
		s.works(j, j.Created, time.Millisecond)
	}, "I2"},
}

// tickWorld is a run of one schedule that is made up.
type tickWorld struct {
	t       *rapid.T
	entries []ledger.Entry
	jobs    []oracle.Job // by tick
	every   time.Duration
	number  int64
	paused  int64
}

// drawTicks makes up a schedule that ticks for two minutes.
func drawTicks(t *rapid.T, mode string) *tickWorld {
	s := &tickWorld{t: t, every: time.Duration(rapid.SampledFrom([]int{500, 1000, 2000}).Draw(t, "every")) * time.Millisecond}
	plan := &ledger.Plan{Every: s.every}
	if mode == inPeace && s.every == time.Second && rapid.Bool().Draw(t, "cron") {
		plan = &ledger.Plan{Cron: "* * * * * *", Zone: "Europe/Berlin"}
	}
	if mode == skips || mode == bursts {
		plan.Most = 1
	}
	if mode == bursts {
		s.every = 100 * time.Millisecond
		plan.Every = s.every
	}
	s.add(0, ledger.Entry{What: ledger.Born, Process: "w1#1", Node: "w1", Queue: "work", Count: 500, Role: ledger.Worker})
	s.call(2, ledger.Entry{Verb: ledger.Apply, Plan: plan})
	s.call(125, ledger.Entry{Verb: ledger.Pause})
	s.paused = at(125).UnixNano()
	s.add(210, ledger.Entry{What: ledger.Note, Note: "end"})
	free := at(0) // when the next one may run
	shared := -1
	declined := 0
	for due := at(2).Truncate(s.every).Add(s.every); due.Before(at(125)); due = due.Add(s.every) {
		s.number++
		j := s.job(due, "clock")
		j.Tick.Number = s.number
		switch {
		case mode == late:
			s.isLate(&j)
		case mode == inPeace:
			s.works(&j, due.Add(3*time.Millisecond), s.takes(mode))
		case !due.Before(free):
			takes := s.takes(mode)
			s.works(&j, due.Add(3*time.Millisecond), takes)
			free = due.Add(takes + 100*time.Millisecond)
		case declined >= 100:
			if shared >= 0 && due.Sub(s.jobs[shared].Due) < time.Minute {
				s.jobs[shared].Tick.Count++
				s.jobs[shared].Tick.Until = due
				continue
			}
			shared = len(s.jobs)
			s.decline(&j, "overlap", due)
		default:
			declined++
			s.decline(&j, "overlap", due)
		}
		s.jobs = append(s.jobs, j)
	}
	return s
}

// takes draws how long a job takes.
func (s *tickWorld) takes(mode string) time.Duration {
	most := map[string]int{inPeace: 900, late: 900, skips: 5000, bursts: 20000}[mode]
	return time.Duration(rapid.IntRange(most/3, most).Draw(s.t, "takes")) * time.Millisecond
}

// isLate is what becomes of a tick of a schedule that has misfire once, if there is no
// owner from second 20 to 110: the last of those runs that are more than a minute late.
func (s *tickWorld) isLate(j *oracle.Job) {
	from, until := at(20), at(110)
	switch {
	case j.Due.Before(from) || !j.Due.Before(until):
		s.works(j, j.Due.Add(time.Millisecond), 100*time.Millisecond)
	case until.Sub(j.Due) <= time.Minute || until.Sub(j.Due.Add(s.every)) <= time.Minute:
		j.Created = until
		s.works(j, until.Add(time.Millisecond), 100*time.Millisecond)
	default:
		s.decline(j, "misfire", until)
	}
}

func (s *tickWorld) job(due time.Time, by string) oracle.Job {
	return oracle.Job{
		ID: fmt.Sprintf("work.s=%d-%s", due.UnixMilli(), by), Schedule: "s", Due: due, Created: due,
		Tick: &oracle.Tick{By: by, Count: 1},
	}
}

// works has a job done.
func (s *tickWorld) works(j *oracle.Job, from time.Time, takes time.Duration) {
	nonce := "run of " + j.ID
	e := ledger.Entry{
		At: from.UnixNano(), What: ledger.Start, Process: "w1#1", Node: "w1", Job: j.ID, Attempt: 1, Fence: 1, Nonce: nonce,
		Schedule: "s", Due: j.Due.UnixNano(),
	}
	s.entries = append(s.entries, e)
	e.At, e.What, e.Outcome = from.Add(takes).UnixNano(), ledger.End, ledger.Succeeded
	s.entries = append(s.entries, e)
	j.State, j.Attempt, j.Finished, j.Result = "succeeded", 1, from.Add(takes), fmt.Appendf(nil, `{"nonce":%q}`, nonce)
	j.Attempts = []oracle.Attempt{{Number: 1, Node: "w1", Started: from, Ended: from.Add(takes), Outcome: "succeeded"}}
}

// decline has a job skipped, and what was there of its run forgotten.
func (s *tickWorld) decline(j *oracle.Job, code string, when time.Time) {
	s.entries = slices.DeleteFunc(s.entries, func(e ledger.Entry) bool { return e.Job == j.ID })
	j.State, j.Error, j.Created, j.Finished = "skipped", &oracle.Error{Code: code}, when, when
	j.Attempt, j.Attempts, j.Result = 0, nil, nil
}

// start is where the i-th job starts.
func (s *tickWorld) start(i int) *ledger.Entry {
	n := slices.IndexFunc(s.entries, func(e ledger.Entry) bool { return e.What == ledger.Start && e.Job == s.jobs[i].ID })
	return &s.entries[n]
}

// shared is a record that stands for many ticks.
func (s *tickWorld) shared() *oracle.Job {
	return &s.jobs[slices.IndexFunc(s.jobs, func(j oracle.Job) bool { return j.Tick.Count > 10 })]
}

// at is a time of the run.
func at(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }

func (s *tickWorld) add(seconds float64, e ledger.Entry) {
	e.At = at(seconds).UnixNano()
	s.entries = append(s.entries, e)
}

func (s *tickWorld) call(seconds float64, e ledger.Entry) {
	e.What, e.Schedule, e.Outcome, e.Call = ledger.Call, "s", ledger.OK, at(seconds).UnixNano()-int64(10*time.Millisecond)
	s.add(seconds, e)
}

// run is a copy: the judge sorts and changes nothing that is made up.
func (s *tickWorld) run() oracle.Run {
	return oracle.Run{Ledger: slices.Clone(s.entries), Jobs: slices.Clone(s.jobs)}
}
