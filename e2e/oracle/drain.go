package oracle

import (
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

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
