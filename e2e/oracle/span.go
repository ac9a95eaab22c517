package oracle

import (
	"cmp"
	"slices"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// span is a stretch of time in which something was so: disturbed, or idle.
type span struct {
	from, to int64
	verb     string // of the fault that it began with
	// whole is set if nothing got through, and not only less, or later.
	whole bool
}

// touches reports whether the span has a moment between from and to.
func (s span) touches(from, to int64) bool { return s.from <= to && s.to >= from }

// join sorts spans and makes one of those that have less than a gap between
// them.
func join(spans []span, gap time.Duration) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var joined []span
	for _, s := range spans {
		last := len(joined) - 1
		if last < 0 || s.from > later(joined[last].to, gap) {
			joined = append(joined, s)
			continue
		}
		joined[last].to = max(joined[last].to, s.to)
		joined[last].whole = joined[last].whole && s.whole
	}
	return joined
}

// without returns what is left of spans outside of others. Both are sorted and
// joined.
func without(spans, others []span) []span {
	var left []span
	for _, s := range spans {
		for _, o := range others {
			if !o.touches(s.from, s.to) {
				continue
			}
			if o.from > s.from {
				left = append(left, span{from: s.from, to: o.from})
			}
			s.from = max(s.from, o.to)
		}
		if s.from < s.to {
			left = append(left, s)
		}
	}
	return left
}

// holdings are stretches in which something was as somebody had asked.
type holdings []span

func (s holdings) holds(at int64) bool {
	return slices.ContainsFunc(s, func(s span) bool { return s.touches(at, at) })
}

// closed returns when a queue may have been paused or limited.
func (h *history) closed(queue string) holdings {
	return join(append(between(h.queues[queue], ledger.Pause, ledger.Resume), limited(h.queues[queue])...), 0)
}

// drained returns when a node may have been drained.
func (h *history) drained(node string) holdings {
	return join(between(h.nodes[node], ledger.Drain, ledger.Undrain), 0)
}

// between returns when something may have been so that one verb begins and
// another one ends.
func between(calls []*ledger.Entry, begins, ends string) []span {
	var spans []span
	for _, e := range calls {
		switch {
		case e.Verb == begins && e.Outcome != ledger.Refused:
			spans = append(spans, span{from: begun(e), to: never})
		case e.Verb == ends && e.Outcome == ledger.OK && len(spans) > 0:
			last := &spans[len(spans)-1]
			last.to = min(last.to, e.At)
		}
	}
	return spans
}

// limited returns when a queue may have had a limit.
func limited(calls []*ledger.Entry) []span {
	var spans []span
	for _, e := range calls {
		switch {
		case e.Verb != ledger.Limit || e.Outcome == ledger.Refused:
		case e.Count > 0:
			spans = append(spans, span{from: begun(e), to: never})
		case e.Outcome == ledger.OK && len(spans) > 0:
			spans[len(spans)-1].to = e.At
		}
	}
	return spans
}
