package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/e2e/ledger"
)

// recoveries checks I9: no process gives up because NATS went away. Each says
// that it is not ready meanwhile, and is ready again soon after.
func recoveries(h *history) []Violation {
	processes := make([]*process, 0, len(h.processes))
	for _, p := range h.processes {
		processes = append(processes, p)
	}
	slices.SortFunc(processes, func(a, b *process) int { return strings.Compare(a.name, b.name) })
	var all []Violation
	for _, p := range processes {
		for _, check := range []func(*process) (string, []ledger.Entry){h.gaveUp, h.unready, h.pretended} {
			if says, entries := check(p); says != "" {
				all = append(all, Violation{Invariant: "I9", Says: says, Entries: entries})
			}
		}
	}
	return all
}

// gaveUp says that a process ended although nobody ended it.
func (h *history) gaveUp(p *process) (string, []ledger.Entry) {
	// A submitter ends when it is done.
	done := p.role == ledger.Submitter && p.gone != nil && p.gone.Note == ledger.Clean
	if h.servers[base(p.name)] || p.gone == nil || p.killed != nil || p.told != nil || done || h.keptOut(p) {
		return "", nil
	}
	return fmt.Sprintf("process %s gave up: %s", p.name, cmp.Or(p.gone.Note, "nobody had ended it")), pick(p.born, p.gone)
}

// keptOut reports whether a process never was ready, and could not be: one whose
// ID belongs to another process that lives says so and ends. What the servers
// refuse while they are disturbed may end it too; that they are away may not, but
// that is not told apart here.
func (h *history) keptOut(p *process) bool {
	isReady := func(e *ledger.Entry) bool { return e.What == ledger.Ready }
	if p.born == nil || slices.ContainsFunc(p.readiness, isReady) {
		return false
	}
	for _, other := range h.processes {
		sameID := other != p && p.node != "" && other.node == p.node
		if sameID && other.born != nil && other.born.At < p.born.At && other.died() > p.born.At {
			return true
		}
	}
	return slices.ContainsFunc(p.disturbed, func(s span) bool { return s.touches(p.born.At, p.gone.At) })
}

// unready says that a process was not ready again soon after a fault.
func (h *history) unready(p *process) (string, []ledger.Entry) {
	for i, s := range p.disturbed {
		if s.to >= h.end {
			continue
		}
		deadline := later(s.to, rejoin+h.Slack)
		calm := deadline <= h.end && p.alive(s.to, deadline) && (i+1 == len(p.disturbed) || p.disturbed[i+1].from > deadline)
		if !calm || h.drained(p.node).holds(deadline) {
			continue
		}
		var last *ledger.Entry
		ready := false
		for _, e := range p.readiness {
			if e.At <= deadline {
				last = e
				ready = e.What == ledger.Ready || ready && e.At > s.to
			}
		}
		if last != nil && !ready {
			return fmt.Sprintf("process %s was not ready again %v after the last fault (%s) was healed",
				p.name, rejoin+h.Slack, s.verb), pick(last)
		}
	}
	return "", nil
}

// pretended says that a process was ready although it had no connection, for
// longer than its lease.
func (h *history) pretended(p *process) (string, []ledger.Entry) {
	for _, s := range slices.Concat(p.faults, h.away) {
		noticed := s.verb == ledger.Cut || s.verb == ledger.Kill9 || s.verb == ledger.Term || // the connection is closed
			(s.verb == ledger.Drop || s.verb == ledger.Stop) && p.slots > 0 // the lease is lost
		until := min(s.to, h.end)
		long := s.whole && until != never && until > later(s.from, h.Lease+h.Slack)
		if !long || !noticed || !p.alive(s.from, until) || h.stood(p, s.from, until) {
			continue
		}
		var before *ledger.Entry
		seen := false
		for _, e := range p.readiness {
			if e.At <= s.from {
				before = e
			} else if e.At <= until+grain {
				seen = seen || e.What == ledger.Unready
			}
		}
		if before != nil && before.What == ledger.Ready && !seen {
			return fmt.Sprintf("process %s said that it was ready while NATS was away (%s)", p.name, s.verb), pick(before)
		}
	}
	return "", nil
}

// stood reports whether the process itself stood still at some time between from
// and to: nobody can ask it then.
func (h *history) stood(p *process, from, to int64) bool {
	return slices.ContainsFunc(p.faults, func(s span) bool {
		return (s.verb == ledger.Stop || s.verb == ledger.Throttle) && s.touches(from, to)
	})
}
