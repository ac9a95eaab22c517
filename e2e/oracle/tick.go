package oracle

import (
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

const (
	// recorded is how many declined ticks in a row have records of their own. After
	// that there is one for all those of a minute at most, in the end.
	recorded = 100
	rolled   = time.Minute
)

// ticks checks I1 and I2: each tick of a schedule has one job, or a record that says
// why it has none.
func ticks(h *history) []Violation {
	var all []Violation
	for _, s := range h.byName() {
		for _, check := range []func(*schedule) []Violation{h.twins, h.strangers, h.missing, h.misnumbered} {
			all = append(all, check(s)...)
		}
	}
	return all
}

// twins finds ticks with several records (I1).
func (h *history) twins(s *schedule) []Violation {
	var all []Violation
	for i := 1; i < len(s.ticks); i++ {
		if a, b := s.ticks[i-1], s.ticks[i]; a.tick() == b.tick() {
			says := fmt.Sprintf("tick %s of schedule %s has two records: the other one is %s", clock(a.tick()), s.name, a.id)
			all = append(all, Violation{Invariant: "I1", Job: b.id, Says: says, Entries: append(a.all(), b.all()...)})
		}
	}
	return all
}

// strangers finds jobs for times at which their schedules do not tick, or that were
// told of another one; and those that started too early (I1).
func (h *history) strangers(s *schedule) []Violation {
	var all []Violation
	add := func(l *life, format string, args ...any) {
		all = append(all, Violation{Invariant: "I1", Job: l.id, Says: fmt.Sprintf(format, args...), Entries: l.all()})
	}
	for _, l := range s.ticks {
		if !s.has(l.tick()) {
			add(l, "schedule %s has no tick at %s", s.name, clock(l.tick()))
		}
		for _, r := range l.runs {
			if told := r.start.Due; told != 0 && (told != l.tick() || r.start.Schedule != s.name) {
				add(l, "it is tick %s of schedule %s, and its handler was told tick %s of schedule %s",
					clock(l.tick()), s.name, clock(told), r.start.Schedule)
			}
			if early := l.tick() - r.start.At; early > int64(Drift) && !h.skewed {
				add(l, "it started %v before its tick", time.Duration(early))
			}
		}
	}
	return all
}

// missing finds ticks without a record (I2).
func (h *history) missing(s *schedule) []Violation {
	if h.Unlisted || h.skewed {
		return nil
	}
	own := map[int64]bool{}
	var rolls []*life
	declined := 0
	for _, l := range s.ticks {
		own[l.tick()] = true
		if l.record.State == skipped {
			declined++
		}
		if l.record.Tick.Count > 1 {
			rolls = append(rolls, l)
		}
	}
	var all []Violation
	for _, d := range s.stretches() {
		if d.plan.Ends {
			continue
		}
		to := h.certain(s, d)
		if declined >= recorded { // the record of the last ones may not be due
			to = min(to, h.end-int64(rolled+h.Slack))
		}
		all = append(all, s.lost(d, to, own, rolls)...)
		all = append(all, s.misrolled(d, own, rolls)...)
	}
	return all
}

// certain returns up to when the ticks of a stretch have records for certain. What no
// owner has seen when its schedule is deleted or gets another calendar may have none;
// nor may what is of a stretch of which no owner knew when the next one began.
func (h *history) certain(s *schedule, d stretch) int64 {
	to := min(d.to, h.decided(h.end))
	for _, e := range s.calls {
		if e.Outcome == ledger.Refused || begun(e) < d.to {
			continue
		}
		seen := h.decided(begun(e))
		switch {
		case e.Verb == ledger.Delete || e.Verb == ledger.Apply && !sameTimes(e.Plan, d.plan):
			to = min(to, seen)
		case e.Verb == ledger.Resume && seen <= d.from:
			to = d.from
		}
	}
	return to
}

// lost finds the ticks of a stretch before a time that have no record of their own, and
// are not among those of another one.
func (s *schedule) lost(d stretch, to int64, own map[int64]bool, rolls []*life) []Violation {
	var gone []int64
	for _, at := range times(d.plan, d.from, to-1) {
		rolled := slices.ContainsFunc(rolls, func(l *life) bool { return l.tick() < at && at <= l.record.Tick.Until.UnixNano() })
		if !own[at] && !rolled {
			gone = append(gone, at)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	says := fmt.Sprintf("schedule %s: %d ticks have no record: the first at %s, the last at %s", s.name, len(gone), clock(gone[0]), clock(gone[len(gone)-1]))
	return []Violation{{Invariant: "I2", Says: says, Entries: []ledger.Entry{
		{At: gone[0], What: ledger.Note, Note: "a tick of " + s.name}, {At: gone[len(gone)-1], What: ledger.Note, Note: "a tick of " + s.name},
	}}}
}

// misrolled finds records that stand for more or fewer ticks than those which have
// no record of their own, where nobody changed the schedule meanwhile.
func (s *schedule) misrolled(d stretch, own map[int64]bool, rolls []*life) []Violation {
	var all []Violation
	for _, l := range rolls {
		from, until := l.tick(), l.record.Tick.Until.UnixNano()
		if from <= d.from || until >= d.to {
			continue
		}
		n := int64(1)
		for _, at := range times(d.plan, from, until) {
			if !own[at] {
				n++
			}
		}
		if n == l.record.Tick.Count {
			continue
		}
		says := fmt.Sprintf("it stands for %d ticks of schedule %s, and from %s to %s there are %d without a record of their own",
			l.record.Tick.Count, s.name, clock(from), clock(until), n)
		all = append(all, Violation{Invariant: "I2", Job: l.id, Says: says})
	}
	return all
}

// misnumbered finds ticks whose numbers are not those which the ticks before them lead
// to, where nobody changed the schedule meanwhile (I2).
func (h *history) misnumbered(s *schedule) []Violation {
	var all []Violation
	for _, d := range s.stretches() {
		var last *life
		for _, l := range s.ticks {
			if l.tick() <= d.from || l.tick() >= d.to || d.plan.Ends {
				continue
			}
			if last != nil && last.tick() != l.tick() {
				want := last.record.Tick.Number + count(d.plan, last.tick(), l.tick())
				if got := l.record.Tick.Number; got != want {
					says := fmt.Sprintf("it is tick %d of schedule %s, and %s is tick %d: want %d", got, s.name, last.id, last.record.Tick.Number, want)
					all = append(all, Violation{Invariant: "I2", Job: l.id, Says: says})
				}
			}
			last = l
		}
	}
	return all
}

// clock is a time, for people.
func clock(at int64) string { return time.Unix(0, at).UTC().Format("15:04:05.000") }
