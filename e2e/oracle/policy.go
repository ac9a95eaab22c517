package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// punctual is how late a tick may be found that runs whatever its schedule says of
// misfires.
const punctual = time.Minute

// policies checks what schedules were told to do with their ticks: how many jobs go on
// at a time, what becomes of ticks that were found too late, and that a pause holds.
func policies(h *history) []Violation {
	var all []Violation
	for _, s := range h.byName() {
		for _, check := range []func(*schedule) []Violation{h.crowds, h.heeded, h.reasons, h.misfires} {
			all = append(all, check(s)...)
		}
	}
	return all
}

// crowds finds more jobs of a schedule that go on at once than it allows. A job goes on
// from the first start of its handler until its record has ended.
func (h *history) crowds(s *schedule) []Violation {
	p := s.plan()
	if p == nil || p.Most == 0 {
		return nil
	}
	starts := slices.DeleteFunc(slices.Clone(s.jobs), func(l *life) bool { return len(l.runs) == 0 || l.redriven(h.begin, h.end) })
	first := func(l *life) *run {
		return slices.MinFunc(l.runs, func(a, b *run) int { return cmp.Compare(a.start.At, b.start.At) })
	}
	slices.SortFunc(starts, func(a, b *life) int { return cmp.Compare(first(a).start.At, first(b).start.At) })
	var all []Violation
	var on []*life
	for _, l := range starts {
		began := first(l)
		on = slices.DeleteFunc(on, func(o *life) bool { return !h.goesOn(o, began) || s.reborn(o, l) })
		if on = append(on, l); len(on) <= p.Most {
			continue
		}
		var entries []ledger.Entry
		for _, o := range on {
			entries = append(entries, *first(o).start)
		}
		says := fmt.Sprintf("it is number %d that goes on at once of schedule %s, which allows %d", len(on), s.name, p.Most)
		all = append(all, Violation{Invariant: "overlap", Job: l.id, Says: says, Entries: entries})
	}
	return all
}

// reborn reports whether the schedule may have been deleted between the making of two
// of its jobs. Then they are of two schedules that have the same name.
func (s *schedule) reborn(a, b *life) bool {
	from, to := a.record.Created.UnixNano(), b.record.Created.UnixNano()
	return slices.ContainsFunc(s.calls, func(e *ledger.Entry) bool {
		return e.Verb == ledger.Delete && e.Outcome != ledger.Refused && begun(e) <= max(from, to) && done(e) >= min(from, to)
	})
}

// goesOn reports whether a job goes on when the handler of another one starts: by its
// record, or by handlers of its own which have their leases.
func (h *history) goesOn(l *life, other *run) bool {
	at := other.start.At
	if slices.ContainsFunc(l.runs, func(r *run) bool { return r.start.At < at && r.over() > at+grain && !h.excused(r, other) }) {
		return true
	}
	if h.skewed || l.record.Ended() && l.record.Finished.IsZero() {
		return false
	}
	return !l.record.Ended() || l.record.Finished.UnixNano() > at+grain
}

// heeded finds ticks that began although their schedule was paused, or deleted (I5).
func (h *history) heeded(s *schedule) []Violation {
	var all []Violation
	for i, c := range s.calls {
		if c.Verb != ledger.Pause && c.Verb != ledger.Delete || c.Outcome != ledger.OK {
			continue
		}
		until := min(next(s.calls[i+1:], ledger.Resume), next(s.calls[i+1:], ledger.Apply))
		if c.Verb == ledger.Pause { // which an edit leaves alone, unless it is one of another life
			until = min(next(s.calls[i+1:], ledger.Resume), next(s.calls[i+1:], ledger.Delete))
		}
		for _, l := range s.ticks {
			for _, r := range l.runs {
				allowed := later(h.awake(r.process, c.At), obedience+h.launch(r.process))
				if r.start.Attempt != 1 || r.start.At <= allowed || r.start.At >= until {
					continue
				}
				says := fmt.Sprintf("it started on %s %v after the %s of schedule %s was answered", r.start.Process,
					time.Duration(r.start.At-c.At).Round(time.Millisecond), c.Verb, s.name)
				all = append(all, Violation{Invariant: "I5", Job: l.id, Says: says, Entries: pick(c, r.start)})
			}
		}
	}
	return all
}

// The reasons for which ticks are declined.
const (
	forMisfire = "misfire"
	forOverlap = "overlap"
	forPause   = "paused"
	forChange  = "changed"
)

// reasons finds ticks that were declined for no reason that there was (I2).
func (h *history) reasons(s *schedule) []Violation {
	var all []Violation
	for _, l := range s.ticks {
		if l.record.State != skipped {
			continue
		}
		why := ""
		if l.record.Error != nil {
			why = l.record.Error.Code
		}
		p := s.plan()
		var ok bool
		switch why {
		case forMisfire:
			ok = h.skewed || l.lateness() >= punctual-time.Duration(grain)
		case forOverlap:
			ok = p == nil || p.Most > 0
		case forPause:
			ok = s.called(ledger.Pause, ledger.Resume) || p == nil || p.Ends
		case forChange:
			ok = s.called(ledger.Delete) || p == nil
		default:
			ok = false
		}
		if !ok {
			says := fmt.Sprintf("tick %s of schedule %s was declined without reason: %q, recorded %v late", clock(l.tick()), s.name, why, l.lateness())
			all = append(all, Violation{Invariant: "I2", Job: l.id, Says: says, Entries: pick(s.calls...)})
		}
	}
	return all
}

// lateness is how much later than its tick the record was created.
func (l *life) lateness() time.Duration { return l.record.Created.Sub(l.record.Due) }

// misfires finds ticks that ran although they were found too late for what their
// schedule says of that (I2).
func (h *history) misfires(s *schedule) []Violation {
	if h.skewed {
		return nil
	}
	var all []Violation
	for _, d := range s.stretches() {
		all = append(all, h.misfiresIn(s, d)...)
	}
	return all
}

// misfiresIn is misfires for a time in which nobody changed the schedule.
func (h *history) misfiresIn(s *schedule, d stretch) []Violation {
	var all []Violation
	for _, gap := range s.gaps(d) {
		var first, last *life // that ran, and that was declined
		var late []*life      // those that ran and were certainly too late
		for _, l := range gap {
			declined := l.record.State == skipped
			switch {
			case declined && l.record.Error != nil && l.record.Error.Code == forMisfire:
				last = l
			case !declined && first == nil && l.lateness() >= punctual+h.lag():
				first = l
			}
			if !declined && l.lateness() > punctual+h.Slack {
				late = append(late, l)
			}
		}
		if says := h.misfired(d.plan, late); says != "" {
			says = fmt.Sprintf("schedule %s, misfire %s: %s", s.name, cmp.Or(d.plan.Misfire, "once"), says)
			all = append(all, Violation{Invariant: "I2", Job: late[0].id, Says: says, Entries: late[0].all()})
		} else if first != nil && last != nil && last.tick() > first.tick() {
			says := fmt.Sprintf("tick %s of schedule %s ran, and tick %s after it was too late", clock(first.tick()), s.name, clock(last.tick()))
			all = append(all, Violation{Invariant: "I2", Job: first.id, Says: says, Entries: first.all()})
		}
	}
	return all
}

// gaps returns the ticks of a stretch that were recorded late, those together that
// follow each other.
func (s *schedule) gaps(d stretch) (gaps [][]*life) {
	var gap []*life
	for _, l := range s.ticks {
		if l.tick() <= d.from || l.tick() >= d.to {
			continue
		}
		if l.lateness() >= punctual-time.Duration(grain) {
			gap = append(gap, l)
		} else if len(gap) > 0 {
			gaps, gap = append(gaps, gap), nil
		}
	}
	if len(gap) > 0 {
		gaps = append(gaps, gap)
	}
	return gaps
}

// misfired says what is wrong with those that ran of a gap and were too late.
func (h *history) misfired(p *ledger.Plan, ran []*life) string {
	if len(ran) == 0 {
		return ""
	}
	most := 1
	switch p.Misfire {
	case "skip":
		most = 0
	case "all":
		most = cmp.Or(p.Limit, 100)
	}
	if len(ran) > most {
		return fmt.Sprintf("%d ticks ran that were found more than %v late", len(ran), punctual)
	}
	if late := ran[0].lateness(); p.Window > 0 && late > p.Window+h.Slack {
		return fmt.Sprintf("tick %s ran %v late, and was to run within %v", clock(ran[0].tick()), late.Round(time.Second), p.Window)
	}
	return ""
}
