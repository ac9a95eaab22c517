package oracle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// Figures are what a run came to, in numbers.
type Figures struct {
	// Took is from the first entry of the ledger to the last.
	Took time.Duration
	// Jobs is how many were submitted, and Ended how many of them are in each
	// state in the end.
	Jobs  int
	Ended map[string]int
	// Runs is how many runs of handlers started, and Outcomes how they ended;
	// those that their process took along have none.
	Runs     int
	Outcomes map[string]int
	// Faults and Calls are how many there were by verb.
	Faults, Calls map[string]int
	// Epochs is how many owners there were, one after the other.
	Epochs int
	// Unexplained is how many runs were told that the lease was lost although
	// nothing was done to their process: what a loaded machine costs.
	Unexplained int
	// Recoveries are how long it took until all was well again.
	Recoveries []Recovery
}

// Recovery is how long it took from a fault, or from its healing, until
// something was well again.
type Recovery struct {
	From, To string
	Times    []time.Duration // sorted
}

// Median is the time that half of the recoveries did not exceed.
func (r Recovery) Median() time.Duration { return r.Times[(len(r.Times)-1)/2] }

// Max is the time that the longest recovery took.
func (r Recovery) Max() time.Duration { return r.Times[len(r.Times)-1] }

// Figures counts and measures the run.
func (r Run) Figures() Figures {
	h := newHistory(r)
	f := Figures{
		Took: time.Duration(h.end - h.begin), Jobs: len(h.jobs),
		Ended: map[string]int{}, Outcomes: map[string]int{}, Faults: map[string]int{}, Calls: map[string]int{},
	}
	for _, e := range h.entries {
		switch e.What {
		case ledger.Fault:
			f.Faults[e.Verb]++
		case ledger.Call:
			f.Calls[e.Verb]++
		default: // not a deed
		}
	}
	for _, l := range h.jobs {
		if l.record != nil {
			f.Ended[l.record.State]++
		}
		for _, r := range l.runs {
			f.Runs++
			if r.end == nil {
				continue
			}
			f.Outcomes[r.end.Outcome]++
			if r.end.Cause == ledger.LeaseLost && !h.unleased(r.process, r.start.At, r.end.At) {
				f.Unexplained++
			}
		}
	}
	for i, e := range h.owners {
		if e.Node != "" && (i == 0 || epoch(h.owners[i-1]) != epoch(e)) {
			f.Epochs++
		}
	}
	f.Recoveries = h.recovered()
	return f
}

// recovered measures how long everything took.
func (h *history) recovered() []Recovery {
	times := map[[2]string][]time.Duration{}
	add := func(from, to string, took int64) {
		if took >= 0 {
			times[[2]string{from, to}] = append(times[[2]string{from, to}], time.Duration(took))
		}
	}
	h.restarted(add)
	h.rejoined(add)
	h.replaced(add)
	var all []Recovery
	for what, times := range times {
		slices.Sort(times)
		all = append(all, Recovery{From: what[0], To: what[1], Times: times})
	}
	slices.SortFunc(all, func(a, b Recovery) int { return cmp.Or(strings.Compare(a.To, b.To), strings.Compare(a.From, b.From)) })
	return all
}

// restarted measures from the loss of a process, or of its link, to the start of
// the next attempt of what it ran.
func (h *history) restarted(add func(from, to string, took int64)) {
	for _, l := range h.jobs {
		for i, r := range l.runs {
			if i+1 == len(l.runs) {
				continue
			}
			next := l.runs[i+1].start.At
			if died := r.process.died(); r.end == nil && died != never && r.start.At <= died {
				if !h.outage(died, next) {
					add(lossOf(r.process), "next attempt", next-died)
				}
				continue
			}
			for _, s := range r.process.faults {
				if s.whole && s.from >= r.start.At && s.from <= next && (r.end == nil || r.end.At > s.from) && !h.outage(s.from, next) {
					add(s.verb, "next attempt", next-s.from)
					break
				}
			}
		}
	}
}

// lossOf is what ended a process.
func lossOf(p *process) string {
	switch {
	case p.killed != nil:
		return ledger.Kill9
	case p.told != nil:
		return ledger.Term
	}
	return "end"
}

// rejoined measures from the healing of a fault to the readiness of a process
// that was not ready because of it, unless something else was done to that.
func (h *history) rejoined(add func(from, to string, took int64)) {
	for _, p := range h.processes {
		for _, s := range slices.Concat(p.faults, h.away) {
			away := false
			for _, e := range p.readiness {
				if e.What == ledger.Unready {
					away = away || e.At >= s.from && e.At <= s.to
				} else if away && e.At >= s.to {
					if !slices.ContainsFunc(p.faults, func(o span) bool { return o != s && o.touches(s.to, e.At) }) {
						add(s.verb+" healed", "ready", e.At-s.to)
					}
					break
				}
			}
		}
	}
}

// replaced measures from the loss of the owner to the first sign of the next.
func (h *history) replaced(add func(from, to string, took int64)) {
	signs := slices.DeleteFunc(slices.Clone(h.owners), func(e *ledger.Entry) bool { return e.Node == "" })
	for i := 1; i < len(signs); i++ {
		last, next := signs[i-1], signs[i].At
		if epoch(signs[i]) == epoch(last) {
			continue
		}
		lost := func(from int64) bool {
			return from <= next && from >= last.At-int64(h.Lease) && !h.outage(from, next)
		}
		for _, p := range h.processes {
			if p.node != last.Node {
				continue
			}
			if died := p.died(); lost(died) {
				add(lossOf(p)+" of the owner", "next owner", next-died)
			}
			for _, s := range p.faults {
				if s.whole && lost(s.from) {
					add(s.verb+" of the owner", "next owner", next-s.from)
				}
			}
		}
	}
}

// outage reports whether the servers were disturbed between from and to, so that
// what took that long says nothing about who was lost.
func (h *history) outage(from, to int64) bool {
	return slices.ContainsFunc(h.system, func(s span) bool { return s.touches(from, to) })
}

// String is a compact block for people.
func (f Figures) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "took        %v\n", f.Took.Round(time.Second))
	fmt.Fprintf(&b, "jobs        %d: %s\n", f.Jobs, counts(f.Ended))
	fmt.Fprintf(&b, "runs        %d: %s\n", f.Runs, counts(f.Outcomes))
	fmt.Fprintf(&b, "faults      %s\n", counts(f.Faults))
	fmt.Fprintf(&b, "calls       %s\n", counts(f.Calls))
	fmt.Fprintf(&b, "owners      %d\n", f.Epochs)
	if f.Unexplained > 0 {
		fmt.Fprintf(&b, "leases lost to the machine  %d\n", f.Unexplained)
	}
	for _, r := range f.Recoveries {
		fmt.Fprintf(&b, "%-32s n %-6d p50 %7.3f s   max %7.3f s\n", r.From+" → "+r.To, len(r.Times), r.Median().Seconds(), r.Max().Seconds())
	}
	return b.String()
}

// counts is a map of numbers, in the order of its keys.
func counts(numbers map[string]int) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(numbers)) {
		all = append(all, fmt.Sprint(numbers[key], " ", key))
	}
	return cmp.Or(strings.Join(all, ", "), "none")
}
