package oracle

import (
	"fmt"
	"slices"

	"github.com/millrace/millrace/e2e/ledger"
)

// repeats checks I8: a handler that finished is not run again because its report
// was lost, while its process lived and nobody could take over.
func repeats(h *history) []Violation {
	var all []Violation
	for _, l := range h.jobs {
		for i, r := range l.runs {
			if !r.won() {
				continue
			}
			if says, entries := h.repeated(l, r, l.runs[i+1:]); says != "" {
				all = append(all, Violation{Invariant: "I8", Job: l.id, Says: says, Entries: entries})
				break
			}
		}
	}
	return all
}

// repeated says what became of a run that won, if that is not what should have.
func (h *history) repeated(l *life, won *run, later []*run) (string, []ledger.Entry) {
	for _, next := range later {
		if next.start.Attempt == won.start.Attempt {
			continue
		}
		if next.start.At <= won.end.At {
			return "", nil // somebody took over while it ran: that is judged elsewhere
		}
		if l.redriven(won.end.At, next.start.At) || h.unreported(won, next.start.At) {
			return "", nil
		}
		return fmt.Sprintf("attempt %d finished on %s, and attempt %d ran it again on %s",
			won.start.Attempt, won.start.Process, next.start.Attempt, next.start.Process), pick(won.end, next.start)
	}
	if l.record == nil {
		return "", nil
	}
	a, ok := l.record.attempt(won.start.Attempt)
	if ok && a.Outcome == lost && !h.unreported(won, max(won.end.At, a.Ended.UnixNano())) {
		return fmt.Sprintf("attempt %d finished on %s, which lived, and is recorded as lost", a.Number, won.start.Process), pick(won.start, won.end)
	}
	return "", nil
}

// unreported reports whether the outcome of a run may not have been stored by
// until: its process died too early, or may have lost its lease.
func (h *history) unreported(r *run, until int64) bool {
	deadline := h.awake(r.process, later(r.end.At, h.Slack))
	died := r.process.died()
	return died <= until && died <= deadline || h.unleased(r.process, r.start.At, until) && !h.alike(r.process, r.start.At, until)
}

// alike reports whether nothing was done to a process between from and to but that
// the only server was away, from everybody else as well: nobody can take over
// then, nor for a lease after that.
func (h *history) alike(p *process, from, to int64) bool {
	return h.Servers == 1 && !slices.ContainsFunc(p.disturbed, func(s span) bool {
		within := func(a span) bool { return a.from <= s.from && s.to <= a.to }
		return s.touches(from-int64(breath), later(to, breath)) && !slices.ContainsFunc(h.away, within)
	})
}
