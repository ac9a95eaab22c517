package oracle

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/millrace/millrace/e2e/ledger"
)

// completions checks the first half of I3: what the record says of a job that
// succeeded is what one run of its handler returned, the last one; no attempt
// begins twice, and their fences grow.
func completions(h *history) []Violation {
	var all []Violation
	for _, l := range h.jobs {
		for _, check := range []func(*life) (string, []ledger.Entry){doubled, fences, accepted, misreported, miscounted} {
			if says, entries := check(l); says != "" {
				all = append(all, Violation{Invariant: "I3", Job: l.id, Says: says, Entries: entries})
			}
		}
	}
	return all
}

// doubled: the number of an attempt is given once.
func doubled(l *life) (string, []ledger.Entry) {
	for i := 1; i < len(l.runs); i++ {
		a, b := l.runs[i-1].start, l.runs[i].start
		if a.Attempt == b.Attempt {
			return fmt.Sprintf("attempt %d started twice: on %s and on %s", a.Attempt, a.Process, b.Process), pick(a, b)
		}
	}
	return "", nil
}

// fences: a later attempt has a larger fence.
func fences(l *life) (string, []ledger.Entry) {
	var last *ledger.Entry
	for _, r := range l.runs {
		if r.start.Fence == 0 {
			continue // a handler that does not know it
		}
		if last != nil && last.Attempt < r.start.Attempt && last.Fence >= r.start.Fence {
			return fmt.Sprintf("attempt %d has fence %d, and attempt %d before it had %d",
				r.start.Attempt, r.start.Fence, last.Attempt, last.Fence), pick(last, r.start)
		}
		last = r.start
	}
	return "", nil
}

// accepted: the result is that of one run, the last one.
func accepted(l *life) (string, []ledger.Entry) {
	if l.record == nil || l.record.State != succeeded || l.hasParts() {
		return "", nil
	}
	var ends, named []*ledger.Entry
	nonce := l.record.Nonce()
	for _, r := range l.runs {
		if r.end != nil && r.end.Outcome == ledger.Succeeded {
			ends = append(ends, r.end)
			if r.end.Nonce == nonce {
				named = append(named, r.end)
			}
		}
	}
	switch {
	case len(ends) == 0:
		return fmt.Sprintf("the record says that it succeeded, and none of its %d runs did", len(l.runs)), nil
	case nonce == "" && ends[0].Nonce != "":
		return "the record has a result that no run returned", pick(ends...)
	case len(named) != 1:
		return fmt.Sprintf("the record has the result of run %s, which %d runs returned", nonce, len(named)), pick(ends...)
	case named[0].Attempt != l.record.Attempt && nonce != "":
		return fmt.Sprintf("the record has the result of attempt %d, which was over: it counts %d",
			named[0].Attempt, l.record.Attempt), pick(named...)
	}
	return "", nil
}

// misreported: a handler that succeeded, and whose context had not ended, is not
// recorded as one that did not; and one that gave up since its worker ended or
// lost the lease has not failed.
func misreported(l *life) (string, []ledger.Entry) {
	if l.record == nil {
		return "", nil
	}
	for _, r := range l.runs {
		a, ok := l.record.attempt(r.start.Attempt)
		switch {
		case !ok || r.end == nil:
		case r.won() && (a.Outcome == failed || a.Outcome == returned && !r.program()):
			return fmt.Sprintf("attempt %d succeeded, and is recorded as %s", a.Number, a.Outcome), pick(r.start, r.end)
		case r.end.Outcome == ledger.Obeyed && (r.end.Cause == ledger.LeaseLost || r.end.Cause == ledger.Drained) && a.Outcome == failed:
			return fmt.Sprintf("attempt %d gave up (%s), and is recorded as failed", a.Number, r.end.Cause), pick(r.start, r.end)
		}
	}
	return "", nil
}

// miscounted: what did not fail and was not lost counts as no failure.
func miscounted(l *life) (string, []ledger.Entry) {
	if l.record == nil || len(l.record.Attempts) < l.record.Attempt {
		return "", nil // it does not keep all attempts
	}
	most := 0
	for _, a := range l.record.Attempts {
		if a.Outcome == failed || a.Outcome == lost {
			most++
		}
	}
	if l.record.Failures > most {
		return fmt.Sprintf("it counts %d failures, and %d of its attempts failed or were lost", l.record.Failures, most), nil
	}
	return "", nil
}

// overlaps checks the second half of I3: an attempt starts when the one before
// it is over, or its process may have lost its lease.
func overlaps(h *history) []Violation {
	var all []Violation
	for _, l := range h.jobs {
		if v, ok := h.overlap(l); ok {
			all = append(all, v)
		}
	}
	return all
}

// overlap returns the first two runs of a job that were there at once without an
// excuse.
func (h *history) overlap(l *life) (Violation, bool) {
	for i, b := range l.runs {
		for _, a := range l.runs[:i] {
			if a.start.Attempt == b.start.Attempt || a.over() <= b.start.At+grain || h.excused(a, b) && !h.unaware(a, b) {
				continue
			}
			says := "attempt %d started on %s while attempt %d ran on %s, which had its lease"
			if h.excused(a, b) {
				says = "attempt %d started on %s, and attempt %d went on on %s without being told that its lease was lost"
			}
			says = fmt.Sprintf(says, b.start.Attempt, b.start.Process, a.start.Attempt, a.start.Process)
			return Violation{Invariant: "I3", Job: l.id, Says: says, Entries: pick(a.start, b.start, a.end)}, true
		}
	}
	return Violation{}, false
}

// excused reports whether a may have been without a lease when b started. A
// handler that was told so is a witness for that: a machine that stands still
// costs leases, too.
func (h *history) excused(a, b *run) bool {
	if a.end != nil && a.end.Cause == ledger.LeaseLost {
		return true
	}
	from := min(a.start.At, b.start.At)
	return h.unleased(a.process, from, max(a.start.At, b.start.At))
}

// unaware reports whether a, whose process ran, was not told in time that it has
// no lease: a worker ends the contexts of its handlers before others may start.
func (h *history) unaware(a, b *run) bool {
	if a.end == nil || a.program() || a.end.Cause != "" && a.end.Outcome != ledger.Obeyed {
		return false
	}
	return a.end.At > later(b.start.At, obedience+h.lag()) && !h.stood(a.process, b.start.At-int64(h.Lease), a.end.At)
}

// backwards checks that a record, as it was read at one time after another,
// never goes back.
func backwards(h *history) []Violation {
	var all []Violation
	for _, l := range h.jobs {
		for i := 1; i < len(l.reads); i++ {
			a, b := l.reads[i-1], l.reads[i]
			if begun(b) < a.At || a.State == "" || a.Outcome == ledger.Unknown || b.Outcome == ledger.Unknown {
				continue
			}
			if says := l.wentBack(a, b); says != "" {
				all = append(all, Violation{Invariant: "I3", Job: l.id, Says: says, Entries: pick(a, b)})
				break
			}
		}
		if n := len(l.reads); n > 0 && l.record != nil && l.reads[n-1].State != "" {
			now := &ledger.Entry{
				At: max(h.end, l.reads[n-1].At), State: l.record.State,
				Attempt: l.record.Attempt, Revision: l.record.Revision,
			}
			if says := l.wentBack(l.reads[n-1], now); says != "" {
				all = append(all, Violation{Invariant: "I3", Job: l.id, Says: says, Entries: pick(l.reads[n-1])})
			}
		}
	}
	return all
}

// wentBack says how the record is behind in b, which was read after a.
func (l *life) wentBack(a, b *ledger.Entry) string {
	was := fmt.Sprintf("the record was %s, attempt %d, revision %d, and later ", a.State, a.Attempt, a.Revision)
	is := fmt.Sprintf("%s, attempt %d, revision %d", cmp.Or(b.State, "gone"), b.Attempt, b.Revision)
	switch {
	case b.State == "":
		return was + is
	case b.Attempt < a.Attempt || b.Revision < a.Revision && b.Revision != 0:
		return was + "went back to " + is
	case final(a.State) && (b.State != a.State || b.Attempt != a.Attempt) && !l.redriven(begun(a), b.At):
		return was + "was " + is + ", although nobody wanted it to run again"
	}
	return ""
}

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
