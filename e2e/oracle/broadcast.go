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
			checks = []func(*life) (string, []ledger.Entry){h.ill, h.uninvited, h.leftOut, h.misjudged, h.hasty}
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

// strayed says that a job which is for one node was on another.
func (h *history) strayed(l *life) (string, []ledger.Entry) {
	node := l.pinned()
	if node == "" {
		return "", nil
	}
	for _, r := range l.runs {
		if r.start.Node != node || r.process.node != node {
			return fmt.Sprintf("attempt %d started on %s, and the job is for node %s", r.start.Attempt, r.process.name, node), pick(r.start)
		}
	}
	if l.record == nil {
		return "", nil
	}
	for _, a := range l.record.Attempts {
		if a.Node != node {
			return fmt.Sprintf("attempt %d is recorded on node %s, and the job is for node %s", a.Number, a.Node, node), nil
		}
	}
	if pin := l.record.Pin; pin == nil || pin.Node != node {
		return "its record is not for node " + node + " any more", nil
	}
	return "", nil
}

// restartedPart says that a part of a broadcast started again without a reason.
func (h *history) restartedPart(l *life) (string, []ledger.Entry) {
	if l.parent == nil || l.parent.sharded() {
		return "", nil
	}
	for i := 1; i < len(l.runs); i++ {
		a, b := l.runs[i-1], l.runs[i]
		died := a.process.died() <= b.start.At || h.unleased(a.process, a.start.At, b.start.At)
		if h.concluded(l, a) || died && l.kept() || l.redriven(a.start.At, b.start.At) {
			continue
		}
		says := "attempt %d started on %s although nothing had happened to %s since attempt %d started there"
		if died {
			says = "attempt %d started on %s although its node, as %s, was lost in attempt %d: the part was to be lost"
		}
		return fmt.Sprintf(says, b.start.Attempt, b.start.Process, a.start.Process, a.start.Attempt), pick(a.start, a.end, b.start)
	}
	return "", nil
}

// concluded reports whether a run was over by itself, and not well: the handler
// failed or gave up, or its process handed it back.
func (h *history) concluded(l *life, r *run) bool {
	if r.end != nil && r.end.Outcome != ledger.Succeeded {
		return true
	}
	if l.record == nil || r.won() && !r.program() {
		return false
	}
	a, ok := l.record.attempt(r.start.Attempt)
	return ok && (a.Outcome == failed || a.Outcome == returned)
}

// wronglyLost says that a job is lost whose node was not, or which was to wait
// for it, or that it was lost too late.
func (h *history) wronglyLost(l *life) (string, []ledger.Entry) {
	if l.record == nil || l.record.State != lost {
		return "", nil
	}
	if l.kept() {
		return "it is lost, and was to wait for its node", nil
	}
	node := l.pinned()
	if node == "" && l.record.Pin != nil {
		node = l.record.Pin.Node
	}
	from, to := h.begin, h.end
	if w, ok := h.dispatched(l.eldest()); ok {
		from = w.from - int64(h.Lease+h.Slack)
	}
	if !h.skewed() && !l.record.Finished.IsZero() {
		to = l.record.Finished.UnixNano()
	}
	var left *process // whose part it was
	for _, p := range h.processes {
		if p.node != node {
			continue
		}
		if died := p.died(); died >= from && died <= later(to, h.lag()) || h.unleased(p, from, to) || p.told != nil && p.told.At <= to {
			left = p
		}
	}
	if left == nil {
		return "it is lost, and nothing had happened to node " + node, nil
	}
	if died := left.died(); len(l.runs) == 0 && died != never {
		since := max(died, l.record.Created.UnixNano())
		if bound := h.mercy(since); to > bound && to < h.end {
			return fmt.Sprintf("it was lost %v after node %s was", time.Duration(to-since).Round(time.Second), node), pick(left.killed, left.gone)
		}
	}
	return "", nil
}

// eldest is the job itself, or its parent.
func (l *life) eldest() *life {
	if l.parent != nil {
		return l.parent
	}
	return l
}

// belated says that a part started after its broadcast had ended.
func (h *history) belated(l *life) (string, []ledger.Entry) {
	if l.parent == nil || l.parent.record == nil || !l.parent.record.Ended() || l.parent.record.Finished.IsZero() {
		return "", nil
	}
	over := l.parent.record.Finished.UnixNano()
	for _, r := range l.runs {
		if r.start.At > later(h.awake(r.process, over), obedience+h.launch(r.process)) && !l.redriven(over, r.start.At) {
			return fmt.Sprintf("attempt %d started on %s %v after %s had ended", r.start.Attempt, r.start.Process,
				time.Duration(r.start.At-over).Round(time.Millisecond), l.parent.id), pick(r.start)
		}
	}
	return "", nil
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
		for _, s := range h.drained(node) {
			if s.from+int64(h.Slack) < window.from && s.to > window.to {
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

// unasked says that a job which is for one node was not taken there although
// the node had a slot free for it. Where any of several may have it nothing is
// assumed.
func (h *history) unasked(l *life, idle *idleness) (string, []ledger.Entry) {
	node := l.pinned()
	if node == "" || l.record == nil || l.record.Created.IsZero() || h.skewed() || l.record.Due.UnixNano() > 0 {
		return "", nil
	}
	from, to := l.record.Created.UnixNano(), h.end
	for _, e := range l.calls {
		from = max(from, e.Due)
	}
	if l.record.Ended() {
		to = l.record.Finished.UnixNano()
	}
	if len(l.runs) > 0 {
		to = l.runs[0].start.At
	}
	bound := int64(prompt + h.Slack)
	for p, free := range idle.freed() {
		if p.node != node {
			continue
		}
		for _, s := range without(without(free, idle.unrest), h.closed(l.queue())) {
			if waited := min(s.to, to) - max(s.from, from); waited > bound {
				return fmt.Sprintf("it waited for %v although node %s was idle", time.Duration(waited).Round(time.Second), node), pick(p.born)
			}
		}
	}
	return "", nil
}
