package oracle

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// broadcasts checks I7: a part runs on its own node and no other, again only
// after its own node died in it and was to be waited for, is lost only if its
// node is, and the job ends as its parts did, when they have, and with all of
// them. It holds for jobs that are for one node, too, as far as it applies.
func broadcasts(h *history) []Violation {
	var all []Violation
	for _, l := range h.jobs {
		checks := []func(*life) (string, []ledger.Entry){h.strayed, h.restartedPart, h.wronglyLost, h.belated}
		if l.hasParts() {
			checks = []func(*life) (string, []ledger.Entry){h.ill, h.crowded, h.headlong, h.uninvited, h.leftOut, h.misjudged, h.hasty}
		}
		for _, check := range checks {
			if says, entries := check(l); says != "" {
				all = append(all, Violation{Invariant: "I7", Job: l.id, Says: says, Entries: entries})
				break
			}
		}
	}
	return all
}

// ill says that the parts of a job are not each once what they should be, or
// more or less of them than was asked for.
func (h *history) ill(l *life) (string, []ledger.Entry) {
	if l.record == nil || l.record.Children == nil {
		return "", nil
	}
	c, seen := l.record.Children, map[string]bool{}
	for _, e := range l.calls {
		if e.Verb == ledger.Submit && e.Count > 0 && c.Total != e.Count && c.Total != 0 {
			return fmt.Sprintf("it has %d shards, and %d were asked for", c.Total, e.Count), pick(e)
		}
	}
	if len(l.parts) > c.Total {
		return fmt.Sprintf("it has %d parts, and says that it has %d", len(l.parts), c.Total), nil
	}
	for _, part := range l.parts {
		name := part.part()
		if seen[name] {
			return "it has part " + name + " twice", nil
		}
		seen[name] = true
		if n, err := strconv.Atoi(name); c.Shards && (err != nil || n < 0 || n >= c.Total) {
			return fmt.Sprintf("it has a shard %s of %d", name, c.Total), nil
		}
		for _, r := range part.runs {
			if c.Shards && r.start.Count != c.Total {
				return fmt.Sprintf("shard %s was told that there are %d, and there are %d", name, r.start.Count, c.Total), pick(r.start)
			}
		}
	}
	return "", nil
}

// crowded says that more parts were there at a time that had not ended than there
// may be. Parts that are run again may be more.
func (h *history) crowded(l *life) (string, []ledger.Entry) {
	if l.record == nil || l.record.Children == nil || l.record.Children.MaxParallel == 0 || h.skewed || l.redriven(h.begin, h.end) {
		return "", nil
	}
	most := l.record.Children.MaxParallel
	for _, part := range l.parts {
		if part.record == nil {
			return "", nil
		}
		at, open := part.record.Created, 0
		for _, other := range l.parts {
			if r := other.record; r != nil && !r.Created.After(at) && (!r.Ended() || r.Finished.After(at.Add(h.lag()))) {
				open++
			}
		}
		if open > most {
			return fmt.Sprintf("%d parts were there when part %s came, and %d may be at a time", open, part.part(), most), nil
		}
	}
	return "", nil
}

// headlong says that a push to a few nodes at a time went on long after a part had
// not succeeded although all have to.
func (h *history) headlong(l *life) (string, []ledger.Entry) {
	if l.record == nil || l.record.Children == nil || h.skewed || l.redriven(h.begin, h.end) {
		return "", nil
	}
	if c := l.record.Children; c.MaxParallel == 0 || c.need() < c.Total {
		return "", nil
	}
	for _, bad := range l.parts {
		if bad.record == nil || !bad.record.Ended() || bad.record.State == succeeded {
			continue
		}
		stop := h.mercy(bad.record.Finished.UnixNano())
		for _, part := range l.parts {
			if part.record != nil && part.record.Created.UnixNano() > stop {
				return fmt.Sprintf("part %s came %v after part %s was %s", part.part(),
					part.record.Created.Sub(bad.record.Finished).Round(time.Second), bad.part(), bad.record.State), nil
			}
		}
	}
	return "", nil
}

// uninvited says that a node has a part that was not there when the nodes were
// counted, or was draining.
func (h *history) uninvited(l *life) (string, []ledger.Entry) {
	window, ok := h.dispatched(l)
	if l.sharded() || !ok {
		return "", nil
	}
	for _, part := range l.parts {
		node := part.part()
		there := false
		for _, p := range h.processes {
			there = there || p.node == node && p.born != nil && p.born.At <= window.to &&
				p.died() >= window.from-int64(h.Lease+h.Slack)
		}
		if !there {
			return "node " + node + " has a part, and was not there at the dispatch", nil
		}
		for i, c := range h.nodes[node] {
			if c.Verb == ledger.Drain && c.Outcome == ledger.OK && later(c.At, h.Slack) < window.from &&
				next(h.nodes[node][i+1:], ledger.Undrain) > window.to {
				return "node " + node + " has a part, and was draining at the dispatch", nil
			}
		}
	}
	return "", nil
}

// leftOut says that a node has no part although it was there, in peace, when the
// nodes were counted. What selects nodes by labels is not judged.
func (h *history) leftOut(l *life) (string, []ledger.Entry) {
	window, ok := h.dispatched(l)
	if l.record == nil || l.record.Children == nil || !ok {
		return "", nil
	}
	if c := l.record.Children; c.Shards || len(c.Selector) > 0 || c.Total != len(l.parts) {
		return "", nil
	}
	for _, p := range h.processes {
		there := p.slots > 0 && slices.Contains(p.queues, l.queue()) && h.settled(p, window)
		if there && !slices.ContainsFunc(l.parts, func(part *life) bool { return part.part() == p.node }) {
			return "node " + p.node + " was there at the dispatch, and has no part", pick(p.born)
		}
	}
	return "", nil
}

// settled reports whether a process was there and ready for all of a span, and
// nothing was done to it, nor long before.
func (h *history) settled(p *process, window span) bool {
	from := window.from - int64(h.Lease+h.Slack)
	if p.born == nil || !p.alive(window.from, window.to) || len(h.drained(p.node)) > 0 {
		return false
	}
	if slices.ContainsFunc(p.disturbed, func(s span) bool { return s.touches(from, window.to) }) {
		return false
	}
	isReady := false
	for _, e := range p.readiness {
		if e.At <= window.from-int64(h.lag()) {
			isReady = e.What == ledger.Ready
		} else if e.At <= window.to {
			return false
		}
	}
	return isReady
}

// misjudged says that a job ended otherwise than its parts, or counts them wrong.
func (h *history) misjudged(l *life) (string, []ledger.Entry) {
	if l.record == nil || l.record.Children == nil {
		return "", nil
	}
	c, state := l.record.Children, l.record.State
	overdue := state == failed && !l.record.Deadline.IsZero() && !l.record.Finished.Before(l.record.Deadline.Add(-h.lag()))
	if state != succeeded && state != failed || overdue {
		return "", nil
	}
	well, need := l.count(succeeded), c.need()
	switch {
	case c.Total == 0 && state == failed:
		return "", nil // there was no node
	case c.Total == 0 || state == succeeded && well < need:
		return fmt.Sprintf("it succeeded with %d parts of %d, and needs %d", well, c.Total, need), nil
	case state == failed && well >= need:
		return fmt.Sprintf("it failed with %d parts of %d that succeeded, and needs %d", well, c.Total, need), nil
	}
	told := []int{c.Succeeded, c.Failed, c.Lost, c.Cancelled, c.Unstarted}
	is := []int{well, l.count(failed), l.count(lost), l.count(cancelled), c.Total - len(l.parts)}
	sum := 0
	for _, n := range told {
		sum += n
	}
	if sum != c.Total || c.patient() && !slices.Equal(told, is) || c.Succeeded > well {
		return fmt.Sprintf("it counts %v as succeeded, failed, lost, cancelled and unstarted, and its %d parts are %v", told, c.Total, is), nil
	}
	return "", nil
}

// hasty says that a job which waits for all its parts ended before one of them,
// or long after them all.
func (h *history) hasty(l *life) (string, []ledger.Entry) {
	r := l.record
	if r == nil || r.Children == nil || len(l.parts) == 0 || r.Finished.IsZero() || r.State != succeeded && r.State != failed {
		return "", nil
	}
	over, last := r.Finished.UnixNano(), int64(0)
	for _, part := range l.parts {
		if part.record == nil || part.record.Finished.IsZero() {
			return "", nil
		}
		last = max(last, part.record.Finished.UnixNano())
	}
	overdue := !r.Deadline.IsZero() && !r.Finished.Before(r.Deadline.Add(-h.lag()))
	switch {
	case over < last-int64(h.lag()) && r.Children.patient() && !overdue:
		return fmt.Sprintf("it ended %v before its last part", time.Duration(last-over).Round(time.Millisecond)), nil
	case over > h.mercy(last):
		return fmt.Sprintf("it ended %v after its last part", time.Duration(over-last).Round(time.Millisecond)), nil
	}
	return "", nil
}
