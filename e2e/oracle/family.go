package oracle

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/e2e/ledger"
)

// readFamilies finds out who is a part of whom, from the list or from what
// handlers wrote.
func (h *history) readFamilies() {
	for _, l := range h.lives {
		name := ""
		if l.record != nil {
			name = l.record.Parent
		} else if len(l.runs) > 0 {
			name = l.runs[0].start.Parent
		}
		if parent := h.lives[name]; parent != nil && name != "" {
			l.parent = parent
			parent.parts = append(parent.parts, l)
		}
	}
	for _, l := range h.lives {
		slices.SortFunc(l.parts, func(a, b *life) int { return strings.Compare(a.id, b.id) })
	}
}

// hasParts reports whether the job is a broadcast or a sharded job, which has no
// handler of its own.
func (l *life) hasParts() bool {
	return len(l.parts) > 0 || l.record != nil && l.record.Children != nil
}

// sharded reports whether the parts of the job are shards, as the list or their
// handlers say.
func (l *life) sharded() bool {
	if l.record != nil && l.record.Children != nil {
		return l.record.Children.Shards
	}
	return slices.ContainsFunc(l.parts, func(part *life) bool { return len(part.runs) > 0 && part.runs[0].start.Count > 0 })
}

// part is which one of its parent's the job is: a node, or the number of a shard.
func (l *life) part() string {
	if l.record != nil {
		return l.record.Part
	}
	return l.runs[0].start.Part
}

// pinned is the only node on which the job may run: as a part of a broadcast, or
// since its submitter said so. Otherwise it is empty.
func (l *life) pinned() string {
	if l.parent != nil {
		if l.parent.sharded() {
			return ""
		}
		return l.part()
	}
	for _, e := range l.calls {
		if e.Verb == ledger.Submit && e.Part != "" {
			return e.Part
		}
	}
	return ""
}

// kept reports whether a job whose node is gone is to wait for it, as a shard
// waits for another one.
func (l *life) kept() bool {
	switch {
	case l.parent != nil && l.parent.record != nil && l.parent.record.Children != nil:
		return l.parent.record.Children.Shards || l.parent.record.Children.OnLost == onLostWait
	case l.record != nil && l.record.Pin != nil:
		return l.record.Pin.Else != onLostFail
	}
	return true // nobody knows
}

// What becomes of a part whose node is gone.
const (
	onLostFail = "fail"
	onLostWait = "wait"
)

// family is what was done to a part with its parent: calls that were about that,
// and the cancel that follows from its end. A tick may be cancelled by the next one.
func (l *life) family() []ledger.Entry {
	var all []ledger.Entry
	if l.cancellable && l.record != nil {
		all = append(all, ledger.Entry{At: l.tick(), Verb: ledger.Cancel})
	}
	if l.parent == nil {
		return all
	}
	for _, e := range l.parent.calls {
		if (e.Verb == ledger.Cancel || e.Verb == ledger.Retry) && e.Outcome != ledger.Refused {
			all = append(all, *e)
		}
	}
	if r := l.parent.record; r != nil && r.Ended() {
		all = append(all, ledger.Entry{At: l.parent.submitted(), Verb: ledger.Cancel})
	}
	return all
}

// standsBy reports whether in the end a process runs under a node's ID, so that
// what is for that node should not be left.
func (h *history) standsBy(node string) bool {
	for _, p := range h.processes {
		if p.node == node && p.slots > 0 && p.alive(h.end, h.end) && !h.drained(node).holds(h.end) {
			return true
		}
	}
	return false
}

// dispatched is when a broadcast took its snapshot of the nodes: between its
// first call and the first certain answer, or, if it was for later, between its
// due time and its first part.
func (h *history) dispatched(l *life) (window span, ok bool) {
	window = span{from: never, to: never}
	due := int64(0)
	for _, e := range l.calls {
		if e.Verb != ledger.Submit {
			continue
		}
		window.from, due = min(window.from, begun(e)), max(due, e.Due)
		if e.Outcome == ledger.Created || e.Outcome == ledger.Attached {
			window.to = min(window.to, e.At)
		}
	}
	if due > 0 || window.to == never {
		window.from, window.to = max(window.from, due), never
		for _, part := range l.parts {
			if part.record != nil && !part.record.Created.IsZero() {
				window.to = min(window.to, later(part.record.Created.UnixNano(), h.lag()))
			}
		}
		if h.skewed {
			return window, false
		}
	}
	return window, window.from != never && window.to != never && window.from <= window.to
}

// need is how many parts of so many have to succeed.
func (c *Children) need() int {
	switch done := cmp.Or(c.Done, doneAll); done {
	case doneAll:
		return c.Total
	case doneQuorum:
		return c.Total/2 + 1
	case doneAny:
		return 1
	default:
		n, err := strconv.Atoi(done)
		if err != nil {
			return -1
		}
		return n
	}
}

// patient reports whether the job ends when all its parts have, and not before.
func (c *Children) patient() bool {
	return c.Shards || c.Done == "" || c.Done == doneAll || c.Done == doneQuorum
}

// When a broadcast succeeds, besides with a number of parts.
const (
	doneAll    = "all"
	doneQuorum = "quorum"
	doneAny    = "any"
)

// count returns how many parts are in a state in the end.
func (l *life) count(state string) int {
	n := 0
	for _, part := range l.parts {
		if part.record != nil && part.record.State == state {
			n++
		}
	}
	return n
}
