package tick

import (
	"encoding/json"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
)

// put stores a definition.
func (p *program) put(s spec.Schedule) {
	if err := p.define(s); err != nil {
		p.fault("%v", err)
		return
	}
	p.schedule = s
	if p.def.Overlap.Bounded() && (p.most > 0 || len(p.history) == 1) {
		most, _ := p.def.Overlap.Turns()
		p.most = max(p.most, most)
	} else {
		p.most = 0 // nothing is counted any more
	}
	text, _ := json.Marshal(s)
	p.log("%s define %s since %v", p.clock(), text, p.def.Since)
}

// user does something.
func (p *program) user() {
	p.now = p.now.Add(1)
	if p.now.UnixNano()%1e6 == 0 {
		p.now = p.now.Add(1)
	}
	switch n := p.rng.IntN(10); {
	case p.byHand && n < 2:
		p.trigger()
	case p.byHand && n == 2:
		p.world.backfill(p.now.Add(-p.period*3), p.now)
	case p.byHand && n < 6 && len(p.jobs) > 0:
		id := pick(p, p.ids...)
		if n == 5 {
			p.apply(id, 0, machine.Stopped{Cause: "enough", At: p.now})
		} else if p.schedule.After == 0 { // the one before would go on again
			p.apply(id, 0, machine.Redriven{At: p.now})
		}
		p.log("%s %s is %s by hand", p.clock(), id, p.jobs[id].job.State)
	case p.wild && n < 9:
		p.edit()
	case p.moves:
		p.move()
	}
}

// edit changes something other than the calendar.
func (p *program) edit() {
	if p.def == nil {
		p.put(p.schedule)
		return
	}
	s := p.schedule
	switch p.rng.IntN(5) {
	case 0, 1, 2:
		paused := !s.IsPaused()
		s.Paused = &paused
	case 3:
		s.Note += "."
	case 4:
		if s.Overlap.Bounded() {
			s.Overlap = pick(p, spec.Overlap{Policy: spec.OverlapSkip}, spec.Overlap{Policy: spec.OverlapAllow, Limit: 3}, spec.Overlap{Policy: spec.OverlapQueue, Limit: 1}, spec.Overlap{Policy: spec.OverlapCancelPrevious})
		}
	}
	p.put(s)
}

// move changes the calendar or the queue, or begins another life.
func (p *program) move() {
	s := p.schedule
	switch p.rng.IntN(4) {
	case 0:
		p.remove()
		p.most = 0 // another life knows nothing of the jobs of this one
		p.log("%s deleted", p.clock())
		return
	case 1:
		if s.Queue = "other"; p.schedule.Queue != "" {
			s.Queue = ""
		}
	case 2:
		if s.After == 0 {
			s.Every = spec.Duration(pick(p, p.period, p.period*3/2, p.period*2))
			s.Jitter = 0
		}
	case 3:
		s.Overlap = pick(p, spec.Overlap{}, s.Overlap)
	}
	p.put(s)
}
