package oracle

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

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
	if !h.skewed && !l.record.Finished.IsZero() {
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

// unasked says that a job which is for one node was not taken there although
// the node had a slot free for it. Where any of several may have it nothing is
// assumed.
func (h *history) unasked(l *life, idle *idleness) (string, []ledger.Entry) {
	node := l.pinned()
	if node == "" || l.record == nil || l.record.Created.IsZero() || h.skewed || l.record.Due.UnixNano() > 0 {
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
