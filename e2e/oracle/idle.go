package oracle

import (
	"cmp"
	"slices"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// idleness finds when a queue had a worker with a free slot and nothing was
// disturbed. Of processes whose birth does not tell their queues and slots it
// assumes nothing.
type idleness struct {
	h       *history
	free    map[*process][]span
	unrest  []span
	byQueue map[string][]span
}

// longest returns for how long between from and to the queue was idle at a
// stretch.
func (i *idleness) longest(queue string, from, to int64) time.Duration {
	if from >= to || to-from <= int64(prompt) {
		return 0
	}
	var longest int64
	for _, s := range i.of(queue) {
		longest = max(longest, min(s.to, to)-max(s.from, from))
	}
	return time.Duration(longest)
}

// possible reports whether a job of the queue could be taken in the end.
func (i *idleness) possible(queue string) bool {
	known := false
	for p, free := range i.freed() {
		known = known || len(p.queues) > 0
		if n := len(free); slices.Contains(p.queues, queue) && n > 0 && free[n-1].to >= i.h.end {
			return !i.h.closed(queue).holds(i.h.end)
		}
	}
	return !known
}

// of returns when a queue was idle: the stretches that are long enough to matter.
func (i *idleness) of(queue string) []span {
	if spans, ok := i.byQueue[queue]; ok {
		return spans
	}
	var free []span
	for p, spans := range i.freed() {
		if slices.Contains(p.queues, queue) {
			free = append(free, spans...)
		}
	}
	free = without(without(join(free, 0), i.unrest), i.h.closed(queue))
	free = slices.DeleteFunc(free, func(s span) bool { return s.to-s.from <= int64(prompt) })
	i.byQueue[queue] = free
	return free
}

// freed returns when each process had a free slot and took jobs.
func (i *idleness) freed() map[*process][]span {
	if i.free != nil {
		return i.free
	}
	i.free = map[*process][]span{}
	runs := map[*process][]*run{}
	for _, l := range i.h.jobs {
		for _, r := range l.runs {
			runs[r.process] = append(runs[r.process], r)
		}
	}
	unrest := slices.Clone(i.h.system)
	for _, p := range i.h.processes {
		for _, s := range p.faults {
			s.to = later(s.to, rejoin)
			unrest = append(unrest, s)
		}
		if died := p.died(); died != never {
			unrest = append(unrest, span{from: died, to: later(died, 3*i.h.Lease)})
		}
		if p.slots > 0 && p.born != nil {
			i.free[p] = i.slots(p, runs[p])
		}
	}
	i.unrest = join(unrest, 0)
	return i.free
}

// slots returns when a process had a slot free and was not draining.
func (i *idleness) slots(p *process, runs []*run) []span {
	type step struct {
		at    int64
		delta int
	}
	var steps []step
	for _, r := range runs {
		steps = append(steps, step{r.start.At, 1}, step{r.over(), -1})
	}
	slices.SortFunc(steps, func(a, b step) int { return cmp.Or(cmp.Compare(a.at, b.at), b.delta-a.delta) })
	end := min(p.died(), i.h.end)
	if p.told != nil {
		end = min(end, p.told.At)
	}
	var full []span
	taken := 0
	for _, s := range steps {
		if taken += s.delta; s.delta > 0 && taken == p.slots {
			full = append(full, span{from: s.at, to: never})
		} else if s.delta < 0 && taken == p.slots-1 && len(full) > 0 {
			full[len(full)-1].to = s.at
		}
	}
	life := []span{{from: p.born.At, to: end}}
	return without(without(life, join(full, 0)), i.h.drained(p.node))
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
			spans[len(spans)-1].to = e.At
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
