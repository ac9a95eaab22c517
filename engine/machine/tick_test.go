package machine

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"
)

// What the laws are tried on of jobs that a schedule made.

// newTicks returns jobs of schedules as they are made: one that may run at once and is
// watched, one that waits for a turn and has limits, a broadcast and a sharded job that
// wait for theirs, a job and a sharded one that were declined, and one by hand.
func newTicks() []Job {
	tick := Tick{Schedule: "nightly", At: storyStart.Add(time.Second), Number: 7, Revision: 3}
	at := func(state State, turn bool) Job {
		tick := tick
		tick.Turn, tick.Watched = turn, !turn
		return Job{ID: "mail.nightly=1767225601000", Kind: "mail.send", State: state, Created: storyStart, Tick: &tick}
	}
	waits := at(Scheduled, true)
	waits.Wait, waits.Due = WaitTurn, tick.At
	limited, sent, sharded, byHand := waits, waits, waits, waits
	limited.StartBy, limited.Deadline = storyStart.Add(time.Second), storyStart.Add(2*time.Second)
	sent.Fan = &Fan{OnLost: ElseFail, Done: GoalAll}
	sharded.Fan = &Fan{Shards: true, Shares: make([]Share, 3), Total: 3, Done: GoalAll}
	byHand.Tick = &Tick{Schedule: "nightly", At: tick.At, By: ByHand, Turn: true}
	skipped := at(Skipped, false)
	skipped.Tick.More = &More{Count: 41, Until: tick.At.Add(time.Minute)}
	skipped.Error, skipped.Finished = &Error{Code: SkipMisfire, Message: "it was found too late"}, tick.At
	shards := skipped
	shards.Fan = sharded.Fan
	return []Job{at(Pending, false), limited, sent, sharded, skipped, shards, byHand}
}

// drawTick makes a job that is for no node one of a schedule, now and then.
func drawTick(t *rapid.T, j Job) Job {
	if j.Pin != nil || rapid.IntRange(0, 2).Draw(t, "schedule") > 0 {
		return j
	}
	j.Tick = &Tick{
		Schedule: "nightly", At: storyStart, Number: rapid.Int64Range(0, 9).Draw(t, "number"), Revision: 3,
		By:   rapid.SampledFrom([]Maker{"", ByHand, ByBackfill}).Draw(t, "maker"),
		Turn: rapid.Bool().Draw(t, "turn"), Watched: rapid.Bool().Draw(t, "watched"),
	}
	switch rapid.IntRange(0, 2).Draw(t, "decision") {
	case 0:
		if j.Tick.Turn && (j.Fan == nil || j.State == Scheduled) {
			j.State, j.Wait, j.Due = Scheduled, WaitTurn, Millisecond(j.Created)
		}
	case 1:
		j.State, j.Wait = Skipped, ""
		j.Tick.More = &More{Count: rapid.Int64().Draw(t, "more"), Until: storyStart}
		j.Error, j.Finished = &Error{Code: SkipOverlap, Message: "another one goes on"}, storyStart
	}
	return j
}

// tickLaws hold like laws, for jobs that a schedule made and for others.
var tickLaws = map[string]func(taken) bool{
	"what a schedule said of a job stays": func(s taken) bool { return reflect.DeepEqual(s.before.Tick, s.after.Tick) },
	"a job that waits for a turn is admitted, or ends": func(s taken) bool {
		if s.err != nil || s.before.Wait != WaitTurn {
			return true
		}
		_, admitted := s.event.(Admitted)
		return s.after.State.Final() || admitted && s.after.State == Scheduled && s.after.Wait == WaitDelay
	},
	"whoever waits for a turn is admitted, once and no earlier than wanted, and nobody else": func(s taken) bool {
		e, admits := s.event.(Admitted)
		if !admits {
			return true
		}
		if s.before.Wait != WaitTurn {
			return s.err != nil
		}
		return s.err == nil && !s.after.Due.Before(s.before.Due) && !s.after.Due.Before(e.At)
	},
	"only a redrive makes a job wait for a turn, and that of each job that takes one does": func(s taken) bool {
		if s.err != nil {
			return true
		}
		waits := s.after.Wait == WaitTurn
		if redrives(s.event) {
			return waits == s.after.takesTurns()
		}
		return !waits || s.before.Wait == WaitTurn
	},
	"a schedule declines what it made and nobody began": func(s taken) bool {
		e, declines := s.event.(Declined)
		if !declines {
			return s.after.State != Skipped || s.before.State == Skipped
		}
		begun := s.before.Attempt > 0 && s.before.Wait != WaitTurn
		may := s.before.Tick != nil && !begun && (s.before.State == Scheduled || s.before.State == Pending)
		return may == (s.err == nil) && (s.err != nil || s.after.State == Skipped && s.after.Error.Code == e.Code)
	},
	"what was checked once is not checked again": func(s taken) bool {
		return !s.after.Unchecked() || s.before.Unchecked()
	},
	"the first claim of a tick by the clock is of one that was not checked": func(s taken) bool {
		_, claims := claimantOf(s.event)
		byClock := s.before.Tick != nil && s.before.Tick.By == "" && s.before.Redriven.IsZero()
		return !claims || s.err != nil || s.before.Unchecked() == (byClock && s.before.Attempt == 0)
	},
}

// tick makes the job of a story one of a schedule: tick, with turn for one that waits
// for its turn, watched, by=hand, skipped=<code> for one that was declined.
func (s *story) tick(t *testing.T, d *datadriven.TestData) {
	if !d.HasArg("tick") {
		return
	}
	s.job.Tick = &Tick{Schedule: "nightly", At: moment(t, d, "tick", storyStart), Number: 7, Revision: 3, By: Maker(arg(t, d, "by", ""))}
	s.job.Tick.Turn, s.job.Tick.Watched = d.HasArg("turn"), d.HasArg("watched")
	if d.HasArg("turn") {
		s.job.State, s.job.Wait, s.job.Due = Scheduled, WaitTurn, s.job.Tick.At
	}
	if code := arg(t, d, "skipped", ""); code != "" {
		s.job.State, s.job.Error, s.job.Finished = Skipped, &Error{Code: code, Message: d.Input}, s.now
	}
}

// tellTick prints which schedule made a job.
func tellTick(j Job) string {
	if j.Tick == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  tick %d of %s, at %s", j.Tick.Number, j.Tick.Schedule, second(j.Tick.At))
	if j.Tick.By != "" {
		fmt.Fprintf(&b, ", by %s", j.Tick.By)
	}
	if j.Unchecked() {
		b.WriteString(", unchecked")
	}
	b.WriteString("\n")
	return b.String()
}
