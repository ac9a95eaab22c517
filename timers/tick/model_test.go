package tick

import (
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/engine/machine"
)

// check compares the records with what they have to be, in the simplest way.
func (p *program) check() {
	if p.most > 0 && p.world.most > p.most {
		p.fault("%d jobs went on at a time, and %d may", p.world.most, p.most)
	}
	p.checkRest()
	ticks := p.covered()
	if p.def.After > 0 {
		p.checkDelays()
	} else if !p.moves {
		p.checkTicks(ticks)
	}
	p.checkRuns()
	if !p.moves {
		p.checkOvertaken()
	}
}

// checkRest checks that nobody waits, and nothing is left to do.
func (p *program) checkRest() {
	for _, id := range p.ids {
		if j := p.jobs[id].job; !j.State.Final() {
			p.fault("%s is %s (%s) for ever", id, j.State, j.Wait)
		}
	}
	c, _ := p.load()
	if len(c.Doing)+len(c.Holders)+len(c.Queue)+len(c.Open) > 0 || c.Late != nil || c.Unmade != nil || c.Burst != nil && c.Burst.Roll != nil {
		p.fault("something is left: %s", p.cursor)
	}
	if c.Made < 0 || c.Failures < 0 {
		p.fault("it counts below zero: %s", p.cursor)
	}
}

// byClock returns the ticks that have records, in order.
func (p *program) byClock() (list []machine.Job) {
	for _, s := range p.jobs {
		if s.job.Tick.By == "" {
			list = append(list, s.job)
		}
	}
	slices.SortFunc(list, func(a, b machine.Job) int { return a.Tick.At.Compare(b.Tick.At) })
	return list
}

// covered returns what became of each tick. No tick has two records, unless one of
// them was skipped because it was for another queue or life.
func (p *program) covered() map[time.Time]machine.Job {
	ticks := map[time.Time]machine.Job{}
	put := func(at time.Time, j machine.Job) {
		was, twice := ticks[at]
		changed := func(j machine.Job) bool { return j.State == machine.Skipped && j.Error.Code == machine.SkipChanged }
		switch {
		case !twice, changed(was) && p.moves:
			ticks[at] = j
		case changed(j) && p.moves:
		default:
			p.fault("the tick of %v is %s as %s and %s as %s", at, was.State, was.ID, j.State, j.ID)
		}
	}
	for _, j := range p.byClock() {
		put(j.Tick.At, j)
		more := j.Tick.More
		if more == nil || p.moves {
			continue
		}
		n, last := int64(0), j.Tick.At
		for at := p.def.Next(last); !at.After(more.Until) && !at.IsZero(); at = p.def.Next(at) {
			put(at, j)
			n, last = n+1, at
		}
		if n != more.Count || !last.Equal(more.Until) {
			p.fault("%s is for %d more until %v, but there are %d until %v", j.ID, more.Count, more.Until, n, last)
		}
	}
	return ticks
}

// checkTicks checks that each tick that was due has a record, and that no other has
// one that ran. The calendar was always the same, until it ended. What was due between
// two edits is not known if nobody has seen the first before the second.
func (p *program) checkTicks(ticks map[time.Time]machine.Job) {
	cut := p.isCut()
	first := p.history[0]
	due, resumes := map[time.Time]bool{}, 0
	for i, d := range p.history {
		until := p.now
		if i+1 < len(p.history) {
			until = p.history[i+1].Stored
		}
		if i > 0 && p.history[i-1].IsPaused() && !d.IsPaused() {
			resumes++
		}
		if d.IsPaused() {
			continue
		}
		for at := first.Next(d.Stored); !at.IsZero() && at.Before(until) && at.Before(p.schedule.End); at = first.Next(at) {
			due[at] = true
			if _, ok := ticks[at]; !ok && !cut && p.seen[d.Since] {
				p.fault("the tick of %v was due and has no record", at)
			}
		}
	}
	strangers := 0
	for at, j := range ticks {
		switch {
		case due[at]:
		case first.Next(at.Add(-1)) != at:
			p.fault("%s is the record of %v, which is no tick", j.ID, at)
		case j.State == machine.Skipped && j.Error.Code == machine.SkipPaused:
		default:
			// It was to come when nobody was there, and was paused and resumed; or who had
			// not heard of the pause made it, and nobody claimed it before it was over.
			strangers++
		}
	}
	if strangers > 2*resumes {
		p.fault("%d ticks were made that were not due; it was resumed %d times", strangers, resumes)
	}
	if len(p.history) == 2 { // nobody has edited it but at the end
		p.checkNumbers()
	}
}

// checkNumbers checks that ticks are counted without a gap.
func (p *program) checkNumbers() {
	next := int64(1)
	for _, j := range p.byClock() {
		if j.Tick.Number != next {
			p.fault("%s has the number %d, want %d", j.ID, j.Tick.Number, next)
			return
		}
		next++
		if j.Tick.More != nil {
			next += j.Tick.More.Count
		}
	}
}

// checkRuns checks how many jobs the clock made; those that somebody had run once more
// may have been skipped before.
func (p *program) checkRuns() {
	if made := p.made(); p.schedule.MaxRuns > 0 && !p.moves && made > p.schedule.MaxRuns {
		p.fault("%d jobs were made, and %d may", made, p.schedule.MaxRuns)
	}
}

// made counts them; one that somebody cancelled before it began may have been about to
// be dismissed.
func (p *program) made() (n int64) {
	for _, j := range p.byClock() {
		if j.State != machine.Skipped && j.Redriven.IsZero() && (!p.byHand || j.Attempt > 0 || j.State != machine.Cancelled) {
			n++
		}
	}
	return n
}

// isCut reports whether the schedule may have ended, or halted, before its calendar.
func (p *program) isCut() bool {
	runs := p.schedule.MaxRuns
	return p.schedule.PauseAfterFailures > 0 || runs > 0 && (p.made() == runs || p.wild || p.byHand)
}

// checkDelays checks that there is the delay between the end of each job and the next
// tick.
func (p *program) checkDelays() {
	if p.moves {
		return
	}
	var last machine.Job
	for _, j := range p.byClock() {
		if j.State == machine.Skipped && j.Error.Code != machine.SkipPaused {
			continue
		}
		if last.ID != "" && j.Tick.At.Before(last.Finished.Add(p.period)) {
			p.fault("%s comes %v after the end of %s, want %v", j.ID, j.Tick.At.Sub(last.Finished), last.ID, p.period)
		}
		last = j
	}
}

// checkOvertaken checks that each tick which was overtaken while it waited was so by a
// newer one, or by a job that somebody triggered later, and before it was skipped.
func (p *program) checkOvertaken() {
	came := func(j machine.Job) bool {
		return j.State != machine.Skipped || !j.Redriven.IsZero() || j.Error.Code != machine.SkipInput && j.Error.Code != machine.SkipMisfire
	}
	for _, j := range p.byClock() {
		if j.State != machine.Skipped || !strings.HasPrefix(j.Error.Message, "a newer job") {
			continue
		}
		last := j.Tick.At
		if j.Tick.More != nil {
			last = j.Tick.More.Until
		}
		if !slices.ContainsFunc(p.ids, func(id string) bool {
			by := p.jobs[id].job
			if by.Tick.At.After(j.Finished.Add(time.Millisecond)) { // a trigger is rounded up
				return false
			}
			return by.Tick.By == machine.ByHand && !by.Tick.At.Before(last) || by.Tick.By == "" && by.Tick.At.After(last) && came(by)
		}) {
			p.fault("%s was skipped at %v since a newer one came, but none came after %v", j.ID, j.Finished, last)
		}
	}
}
