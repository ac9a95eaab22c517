package oracle

import (
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// prompt is how soon a job that is ready starts where nothing is disturbed, even
// if what drove it was lost.
const prompt = 30 * time.Second

// forTurn is what a job waits for that is not to run before others of its schedule have
// ended.
const forTurn = "turn"

// stuck checks I4: no job is lost, and none stays without a driver.
func stuck(h *history) []Violation {
	var all []Violation
	add := func(l *life, says string, entries []ledger.Entry) bool {
		if says != "" {
			all = append(all, Violation{Invariant: "I4", Job: l.id, Says: says, Entries: entries})
		}
		return says != ""
	}
	idle := idleness{h: h, byQueue: map[string][]span{}}
	for _, l := range h.jobs {
		if says, entries := h.left(l, &idle); add(l, says, entries) {
			continue
		}
		if says, entries := h.orphaned(l); add(l, says, entries) {
			continue
		}
		says, entries := h.waited(l, &idle)
		add(l, says, entries)
	}
	return all
}

// left says what is left of a job that should have ended.
func (h *history) left(l *life, idle *idleness) (string, []ledger.Entry) {
	if h.Unlisted {
		return "", nil
	}
	if l.record == nil {
		for _, e := range l.calls {
			if e.Verb == ledger.Submit && (e.Outcome == ledger.Created || e.Outcome == ledger.Attached) {
				return "it was submitted, and is not in the list: it is lost", pick(e)
			}
		}
		return "", nil
	}
	if l.record.Ended() || l.record.Due.UnixNano() > h.end || h.justified(l, idle) {
		return "", nil
	}
	says := fmt.Sprintf("it is %s, attempt %d, in the end", l.record.State, l.record.Attempt)
	if n := len(l.runs); n > 0 {
		return says, pick(l.runs[n-1].start, l.runs[n-1].end)
	}
	return says + ", and never started", nil
}

// justified reports whether a job may be where it is in the end: its handler
// runs, a part of it goes on, or there is nobody who could take it.
func (h *history) justified(l *life, idle *idleness) bool {
	if l.hasParts() {
		return slices.ContainsFunc(l.parts, func(part *life) bool { return part.record != nil && !part.record.Ended() })
	}
	if l.record.Wait == forTurn {
		return slices.ContainsFunc(h.schedule(l.record.Schedule).jobs, func(o *life) bool { return !o.record.Ended() && o.record.Wait != forTurn })
	}
	if pin := l.record.Pin; pin != nil && pin.Node != "" && l.record.State != running && !h.standsBy(pin.Node) {
		return true
	}
	if l.record.State == running {
		return slices.ContainsFunc(l.runs, func(r *run) bool {
			return r.start.Attempt == l.record.Attempt && r.over() == never
		})
	}
	return !idle.possible(l.queue())
}

// orphaned says that an attempt was not over in time, after its process had died
// or was away for good.
func (h *history) orphaned(l *life) (string, []ledger.Entry) {
	for i, r := range l.runs {
		over := h.ended(l, i)
		if died := r.process.died(); died != never && died >= r.start.At && over > h.mercy(died) && h.mercy(died) < h.end {
			return fmt.Sprintf("attempt %d was not over %v after the death of %s", r.start.Attempt,
				time.Duration(h.mercy(died)-died).Round(time.Second), r.process.name), pick(r.start, r.process.killed, r.process.gone)
		}
		for _, s := range r.process.faults {
			away := s.whole && s.from >= r.start.At && (r.end == nil || r.end.At > s.from)
			if bound := h.mercy(s.from); away && s.to > bound && over > bound && bound < h.end && r.process.died() > bound {
				return fmt.Sprintf("attempt %d was not over %v after the %s of %s", r.start.Attempt,
					time.Duration(bound-s.from).Round(time.Second), s.verb, r.process.name), pick(r.start, r.end)
			}
		}
	}
	return "", nil
}

// ended is when the i-th run of a job was over, as the record or the next run
// shows it.
func (h *history) ended(l *life, i int) int64 {
	over := never
	if l.record != nil {
		if a, ok := l.record.attempt(l.runs[i].start.Attempt); ok && a.Outcome != "" {
			return a.Ended.UnixNano()
		}
		if l.record.Ended() {
			over = l.record.Finished.UnixNano()
		}
	}
	for _, next := range l.runs[i+1:] {
		if next.start.Attempt > l.runs[i].start.Attempt {
			over = min(over, next.start.At)
		}
	}
	if h.Unlisted && over == never {
		return 0 // nobody knows
	}
	return over
}

// mercy is when the attempts of a process that was gone at t are over: twice the
// lease later, or three times if the owner was gone too. While there were no
// servers or no owner, that time does not pass.
func (h *history) mercy(t int64) int64 {
	bound := later(t, 2*h.Lease+h.Slack)
	for changed := true; changed; {
		changed = false
		for _, s := range h.headless {
			next := later(s.to, 3*h.Lease+h.Slack)
			if s.touches(t-int64(h.Lease), bound) && next > bound {
				bound, changed = next, true
			}
		}
	}
	return bound
}

// waited says that a job did not start although it was ready and nothing was in
// its way.
func (h *history) waited(l *life, idle *idleness) (string, []ledger.Entry) {
	if l.hasParts() || l.parent != nil || l.pinned() != "" || l.record != nil && l.record.Pin != nil {
		return h.unasked(l, idle)
	}
	var last *ledger.Entry
	from := never
	for _, e := range l.calls {
		if e.Verb == ledger.Submit && (e.Outcome == ledger.Created || e.Outcome == ledger.Attached) {
			last, from = e, min(from, max(e.At, e.Due))
		}
	}
	if l.atOnce(h) {
		from = max(l.tick(), l.record.Created.UnixNano())
	}
	for _, r := range append(slices.Clone(l.runs), nil) {
		until := l.resting(h)
		if r != nil {
			until = r.start.At
		}
		if d := idle.passedOver(l.queue(), from, until); d > 0 {
			return fmt.Sprintf("it waited for %v although it was ready, and a worker was idle", d.Round(time.Second)), pick(last)
		}
		from = never // why it waits after an attempt is known only if that was lost
		if r != nil && l.record != nil {
			last = r.start
			if a, ok := l.record.attempt(r.start.Attempt); ok && a.Outcome == lost {
				from = a.Ended.UnixNano()
			}
		}
	}
	return "", nil
}

// atOnce reports whether the job is a tick that waits for no other one.
func (l *life) atOnce(h *history) bool {
	if !l.ticked() || h.skewed || h.schedules[l.record.Schedule] == nil {
		return false
	}
	p := h.schedules[l.record.Schedule].plan()
	return p != nil && p.Most == 0
}

// resting is when a job has to start no more: it ended, or somebody wanted that.
func (l *life) resting(h *history) int64 {
	until := h.end
	if l.record == nil || l.record.Due.UnixNano() > 0 && !l.ticked() {
		return 0
	}
	if l.record.Ended() {
		until = l.record.Finished.UnixNano()
	}
	for _, e := range l.calls {
		if e.Verb == ledger.Cancel && e.Outcome != ledger.Refused {
			until = min(until, begun(e))
		}
	}
	return until
}
