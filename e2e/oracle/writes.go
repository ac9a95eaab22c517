package oracle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// obedience is how soon after the answer nothing starts any more that a user has
// forbidden.
const obedience = time.Second

// writes checks I5: what users wrote holds.
func writes(h *history) []Violation {
	var all []Violation
	for _, l := range h.jobs {
		if says, entries := h.uncancelled(l); says != "" {
			all = append(all, Violation{Invariant: "I5", Job: l.id, Says: says, Entries: entries})
		}
	}
	byQueue := map[string][]*run{}
	for _, l := range h.jobs {
		if _, asked := h.queues[l.queue()]; asked {
			byQueue[l.queue()] = append(byQueue[l.queue()], l.runs...)
		}
	}
	for _, queue := range slices.Sorted(maps.Keys(byQueue)) {
		runs := byQueue[queue]
		slices.SortStableFunc(runs, func(a, b *run) int { return cmp.Compare(a.start.At, b.start.At) })
		all = append(all, h.unpaused(queue, runs)...)
		all = append(all, h.exceeded(queue, runs)...)
	}
	return all
}

// uncancelled says how a job went on after a cancel was answered.
func (h *history) uncancelled(l *life) (string, []ledger.Entry) {
	for _, c := range l.calls {
		if c.Verb != ledger.Cancel || c.Outcome != ledger.OK {
			continue
		}
		for _, r := range l.runs {
			allowed := later(h.awake(r.process, c.At), obedience+h.launch(r.process))
			if r.start.At > allowed && !l.redriven(begun(c), r.start.At) {
				return fmt.Sprintf("attempt %d started on %s although the job was cancelled", r.start.Attempt, r.start.Process), pick(c, r.start)
			}
		}
		if l.record != nil && l.record.State == failed && !l.redriven(begun(c), h.end) {
			return "it was cancelled, and is failed in the end", pick(c)
		}
	}
	return "", nil
}

// unpaused finds what started although its queue was paused. The runs are in the
// order of their starts.
func (h *history) unpaused(queue string, runs []*run) []Violation {
	var all []Violation
	for i, c := range h.queues[queue] {
		if c.Verb != ledger.Pause || c.Outcome != ledger.OK {
			continue
		}
		until := next(h.queues[queue][i+1:], ledger.Resume)
		for _, r := range since(runs, c.At) {
			if r.start.At >= until {
				break
			}
			if r.start.At > later(h.awake(r.process, c.At), obedience+h.launch(r.process)) {
				says := fmt.Sprintf("attempt %d started on %s %v after queue %s was paused", r.start.Attempt, r.start.Process,
					time.Duration(r.start.At-c.At).Round(time.Millisecond), queue)
				all = append(all, Violation{Invariant: "I5", Job: r.start.Job, Says: says, Entries: pick(c, r.start)})
			}
		}
	}
	return all
}

// exceeded finds starts beyond the limit of a queue. Only what started under the
// limit counts, and what its process may still hold.
func (h *history) exceeded(queue string, runs []*run) []Violation {
	var all []Violation
	for i, c := range h.queues[queue] {
		if c.Verb != ledger.Limit || c.Outcome != ledger.OK || c.Count == 0 {
			continue
		}
		until := next(h.queues[queue][i+1:], ledger.Limit)
		var held []*run
		for _, r := range since(runs, c.At) {
			if r.start.At >= until {
				break
			}
			if r.start.At <= later(h.awake(r.process, c.At), obedience+h.launch(r.process)) {
				continue
			}
			if l := h.lives[r.start.Job]; l.parent != nil || l.pinned() != "" {
				continue // what is for one node lies in no queue
			}
			held = slices.DeleteFunc(held, func(o *run) bool { return o.over() <= r.start.At+grain || h.excused(o, r) })
			if held = append(held, r); len(held) > c.Count {
				entries := pick(c)
				for _, o := range held {
					entries = append(entries, *o.start)
				}
				says := fmt.Sprintf("it is number %d that ran at once of queue %s, which has a limit of %d", len(held), queue, c.Count)
				all = append(all, Violation{Invariant: "I5", Job: r.start.Job, Says: says, Entries: entries})
			}
		}
	}
	return all
}

// next is when one of the calls was made that may have had the effect of verb.
func next(calls []*ledger.Entry, verb string) int64 {
	until := never
	for _, c := range calls {
		if c.Verb == verb && c.Outcome != ledger.Refused {
			until = min(until, begun(c))
		}
	}
	return until
}

// since returns the runs, in order, that started at t or later.
func since(runs []*run, t int64) []*run {
	i, _ := slices.BinarySearchFunc(runs, t, func(r *run, t int64) int { return cmp.Compare(r.start.At, t) })
	return runs[i:]
}

// drains checks I6: nothing starts on a node that is drained, on a process that
// was told to end, or on a node that is dead.
func drains(h *history) []Violation {
	lives := map[string][]*process{}
	for _, p := range h.processes {
		if p.born != nil && p.node != "" {
			lives[p.node] = append(lives[p.node], p)
		}
	}
	var all []Violation
	for _, l := range h.jobs {
		says, entries := "", []ledger.Entry(nil)
		for _, r := range l.runs {
			if says, entries = h.undrained(r); says != "" {
				break
			}
		}
		if says == "" && l.record != nil {
			says = h.misplaced(l.record, lives)
		}
		if says != "" {
			all = append(all, Violation{Invariant: "I6", Job: l.id, Says: says, Entries: entries})
		}
	}
	return all
}

// undrained says that a run started where nothing should. What was called just
// before the answer may run its first instruction just after it.
func (h *history) undrained(r *run) (string, []ledger.Entry) {
	calls := h.nodes[r.process.node]
	for i, c := range calls {
		if c.Verb != ledger.Drain || c.Outcome != ledger.OK || r.start.At >= next(calls[i+1:], ledger.Undrain) {
			continue
		}
		if r.start.At > later(h.awake(r.process, c.At), h.launch(r.process)) {
			return fmt.Sprintf("attempt %d started on node %s %v after that was drained", r.start.Attempt, r.process.node,
				time.Duration(r.start.At-c.At).Round(time.Millisecond)), pick(c, r.start)
		}
	}
	if told := r.process.told; told != nil && r.start.At > later(h.awake(r.process, told.At), obedience+h.launch(r.process)) {
		return fmt.Sprintf("attempt %d started on %s %v after that was told to end", r.start.Attempt, r.process.name,
			time.Duration(r.start.At-told.At).Round(time.Millisecond)), pick(told, r.start)
	}
	return "", nil
}

// misplaced says that the record has an attempt on a node that was dead.
func (h *history) misplaced(j *Job, lives map[string][]*process) string {
	for _, a := range j.Attempts {
		at := a.Started.UnixNano()
		nodes := lives[a.Node]
		placed := slices.ContainsFunc(nodes, func(p *process) bool {
			return p.born.At-int64(h.lag()) <= at && at <= later(p.died(), h.Lease+h.Slack)
		})
		if len(nodes) > 0 && !placed && !a.Started.IsZero() {
			return fmt.Sprintf("attempt %d is recorded as started on node %s, which was dead then", a.Number, a.Node)
		}
	}
	return ""
}
