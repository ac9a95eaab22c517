package oracle

import (
	"cmp"
	"maps"
	"slices"

	"github.com/millrace/millrace/e2e/ledger"
)

// schedule is all that is known of one schedule.
type schedule struct {
	name  string
	calls []*ledger.Entry // by time
	jobs  []*life         // all that are listed
	ticks []*life         // those of them that the clock made, by tick
}

// stretch is a time for which it is certain how a schedule ticked.
type stretch struct {
	plan *ledger.Plan
	// from and to are between calls: the ticks between them are of this plan.
	from, to int64
}

// readSchedules finds the jobs of the schedules that the ledger tells of.
func (h *history) readSchedules() {
	for _, l := range h.lives {
		if l.record == nil || l.record.Schedule == "" || l.record.Tick == nil {
			continue
		}
		if s := h.schedules[l.record.Schedule]; s != nil {
			l.cancellable = s.cancels()
			s.jobs = append(s.jobs, l)
			if l.record.Tick.By == byClock {
				s.ticks = append(s.ticks, l)
			}
		}
	}
	for _, s := range h.schedules {
		for _, list := range [][]*life{s.jobs, s.ticks} {
			slices.SortFunc(list, func(a, b *life) int {
				return cmp.Or(cmp.Compare(a.tick(), b.tick()), cmp.Compare(a.id, b.id))
			})
		}
	}
}

// schedule returns a schedule, which begins when somebody first speaks of it.
func (h *history) schedule(name string) *schedule {
	s := h.schedules[name]
	if s == nil {
		s = &schedule{name: name}
		h.schedules[name] = s
	}
	return s
}

// byName returns the schedules in order.
func (h *history) byName() []*schedule {
	var all []*schedule
	for _, name := range slices.Sorted(maps.Keys(h.schedules)) {
		all = append(all, h.schedules[name])
	}
	return all
}

// tick is the time of the tick that the job was made for.
func (l *life) tick() int64 { return l.record.Due.UnixNano() }

// ticked reports whether the clock made the job.
func (l *life) ticked() bool {
	return l.record != nil && l.record.Tick != nil && l.record.Tick.By == byClock
}

// plan is what the schedule always was, nil if it was several things.
func (s *schedule) plan() *ledger.Plan {
	var only *ledger.Plan
	for _, e := range s.calls {
		if e.Plan == nil || e.Outcome == ledger.Refused {
			continue
		}
		if only != nil && *only != *e.Plan {
			return nil
		}
		only = e.Plan
	}
	return only
}

// has reports whether some plan of the schedule ticks at a time, or may.
func (s *schedule) has(at int64) bool {
	planned := false
	for _, e := range s.calls {
		if e.Plan == nil || e.Outcome == ledger.Refused {
			continue
		}
		if planned = true; !known(e.Plan) || count(e.Plan, at-1, at) > 0 {
			return true
		}
	}
	return !planned
}

// cancels reports whether ticks may have the jobs before them cancelled.
func (s *schedule) cancels() bool {
	return slices.ContainsFunc(s.calls, func(e *ledger.Entry) bool { return e.Plan != nil && e.Plan.Cancels })
}

// called reports whether somebody has asked for something that may have been done.
func (s *schedule) called(verbs ...string) bool {
	return slices.ContainsFunc(s.calls, func(e *ledger.Entry) bool {
		return e.Outcome != ledger.Refused && slices.Contains(verbs, e.Verb)
	})
}

// scheduled is what a schedule is, as far as its calls tell.
type scheduled struct {
	plan    *ledger.Plan // nil if there is none, or nobody knows
	paused  bool         // or nobody knows
	from    int64        // since when it is so
	ticking bool         // it is certain that it ticks
}

// stretches returns when it is certain how the schedule ticked.
func (s *schedule) stretches() (all []stretch) {
	var now scheduled
	last := int64(0)
	for _, e := range s.calls {
		if e.Outcome == ledger.Refused {
			continue
		}
		next := now.after(e, begun(e) < last)
		last = e.At
		if now.ticking && next.ticking && e.Verb == ledger.Apply && sameTimes(now.plan, next.plan) && now.plan.Ends == next.plan.Ends {
			now.plan = next.plan // what it is about is no matter of when it ticks
			continue
		}
		if to := begun(e); now.ticking && to > now.from {
			all = append(all, stretch{plan: now.plan, from: now.from, to: to})
		}
		now = next
	}
	if now.ticking {
		all = append(all, stretch{plan: now.plan, from: now.from, to: never})
	}
	return all
}

// after returns what is known after a call. Nothing is if that was made before the
// answer to the one before it.
func (was scheduled) after(e *ledger.Entry, crossed bool) scheduled {
	now := scheduled{plan: was.plan, paused: was.paused, from: e.At}
	switch {
	case crossed, e.Outcome != ledger.OK && e.Verb == ledger.Delete:
		now.plan, now.paused = nil, true
	case e.Verb == ledger.Delete:
		now.plan, now.paused = nil, false
	case e.Outcome != ledger.OK && e.Verb == ledger.Apply:
		if was.plan == nil || *was.plan != *e.Plan {
			now.plan = nil
		}
	case e.Verb == ledger.Apply:
		now.plan = e.Plan
	case e.Verb == ledger.Pause, e.Outcome != ledger.OK:
		now.paused = true
	case e.Verb == ledger.Resume:
		now.paused = false
	}
	now.ticking = now.plan != nil && known(now.plan) && !now.paused
	return now
}

// decided is the time up to which all ticks were certainly decided by t, if there was
// an owner that could work.
func (h *history) decided(t int64) int64 {
	at := t - int64(h.Slack)
	for changed := true; changed; {
		changed = false
		for _, s := range h.headless {
			if before := s.from - int64(h.lag()); s.touches(at, t) && before < at {
				at, changed = before, true
			}
		}
	}
	return at
}
