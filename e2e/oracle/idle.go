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
	lines   map[string]line
}

// A line is how the jobs of a queue started for the first time.
type line struct {
	at     []int64 // in order
	latest []int64 // when the latest one had been submitted of those that started until then
}

// passedOver returns for how long a job that was ready from one time to another
// was not taken although a worker was idle. A worker may have slots that are free
// for moments only, while there is a long line before the job: so nothing else
// was taken either for that long, or something was that came that much later.
func (i *idleness) passedOver(queue string, from, to int64) time.Duration {
	bound := int64(prompt + i.h.Slack)
	if from >= to || to-from <= bound {
		return 0
	}
	l := i.line(queue)
	for _, s := range i.of(queue) {
		a, b := max(s.from, from), min(s.to, to)
		if b-a <= bound {
			continue
		}
		n, _ := slices.BinarySearch(l.at, b)
		if n > 0 && l.latest[n-1] > a+bound {
			return time.Duration(b - a)
		}
		quiet := a
		first, _ := slices.BinarySearch(l.at, a)
		for _, at := range append(slices.Clone(l.at[first:n]), b) {
			if at-quiet > bound {
				return time.Duration(at - quiet)
			}
			quiet = at
		}
	}
	return 0
}

// line returns the line of a queue.
func (i *idleness) line(queue string) line {
	if l, ok := i.lines[queue]; ok {
		return l
	}
	if i.lines == nil {
		i.lines = map[string]line{}
	}
	type first struct{ at, submitted int64 }
	var all []first
	for _, l := range i.h.jobs {
		if l.queue() == queue && len(l.runs) > 0 {
			all = append(all, first{l.runs[0].start.At, l.submitted()})
		}
	}
	slices.SortFunc(all, func(a, b first) int { return cmp.Compare(a.at, b.at) })
	var made line
	latest := int64(0)
	for _, f := range all {
		latest = max(latest, f.submitted)
		made.at, made.latest = append(made.at, f.at), append(made.latest, latest)
	}
	i.lines[queue] = made
	return made
}

// submitted is when somebody first asked for the job, or 0.
func (l *life) submitted() int64 {
	for _, e := range l.calls {
		if e.Verb == ledger.Submit {
			return begun(e)
		}
	}
	return 0
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
