package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// longest is how many lines of a timeline are shown. What is left out is in the
// middle.
const longest = 80

// around is for how long before and after a job the faults are shown.
const around = 15 * time.Second

// A moment is a line of a timeline.
type moment struct {
	at        int64
	who, text string
}

// Timeline is what happened to one job, and meanwhile to the processes that ran
// it and to the servers, for people. It is empty for a job that nothing is known of.
func (r Run) Timeline(job string) string {
	h := newHistory(r)
	l := h.lives[job]
	if l == nil {
		return ""
	}
	return h.print(h.tell(l, nil))
}

// Biography is what happened to a process, in all its lives if the name has no
// number, and what it ran. It is empty for a process that nothing is known of.
func (r Run) Biography(process string) string {
	h := newHistory(r)
	var moments []moment
	for _, e := range h.entries {
		if e.Process == process || base(e.Process) == process {
			moments = append(moments, describe(e, ""))
		}
	}
	return h.print(moments)
}

// story is the timeline of a violation.
func (h *history) story(v Violation) string {
	if l := h.lives[v.Job]; l != nil {
		return h.print(h.tell(l, v.Entries))
	}
	names := map[string]bool{}
	var moments []moment
	from, to := never, int64(0)
	for i := range v.Entries {
		e := &v.Entries[i]
		moments = append(moments, describe(e, ""))
		names[e.Process] = true
		from, to = min(from, e.At), max(to, e.At)
	}
	if len(moments) == 0 {
		return ""
	}
	return h.print(append(moments, h.faults(names, from, to)...))
}

// tell is what is known of a job, and what else a violation is about.
func (h *history) tell(l *life, more []ledger.Entry) []moment {
	var moments []moment
	names := map[string]bool{}
	from, to := never, int64(0)
	for _, e := range append(l.all(), more...) {
		if e.What == ledger.Start {
			names[e.Process] = true
		}
		moments = append(moments, describe(&e, l.id))
		from, to = min(from, begun(&e)), max(to, e.At)
	}
	if l.record != nil {
		for _, m := range l.record.tell() {
			m.at = max(m.at, h.begin) // a record that does not know when
			from, to = min(from, m.at), max(to, m.at)
			moments = append(moments, m)
		}
	}
	return append(moments, h.faults(names, from, to)...)
}

// tell is what the record says.
func (j *Job) tell() []moment {
	var moments []moment
	for _, a := range j.Attempts {
		if a.Started.IsZero() {
			continue // nobody knows when
		}
		moments = append(moments, moment{a.Started.UnixNano(), "record", fmt.Sprintf("attempt %d began on %s", a.Number, a.Node)})
		if a.Outcome != "" {
			text := fmt.Sprintf("attempt %d on %s %s", a.Number, a.Node, a.Outcome)
			if a.Error != nil {
				text += ": " + a.Error.Message
			}
			moments = append(moments, moment{a.Ended.UnixNano(), "record", text})
		}
	}
	text := fmt.Sprintf("%s, attempt %d, revision %d", j.State, j.Attempt, j.Revision)
	if nonce := j.Nonce(); nonce != "" {
		text += ", result of run " + short(nonce)
	}
	at := max(j.Created.UnixNano(), j.Finished.UnixNano())
	for _, m := range moments {
		at = max(at, m.at)
	}
	return append(moments, moment{at, "record", text})
}

// faults is what was done to these processes and to the servers, and who became
// owner, from a while before one time to a while after another.
func (h *history) faults(names map[string]bool, from, to int64) []moment {
	var moments []moment
	var owner uint64
	for _, e := range h.entries {
		if e.At < from-int64(around) || e.At > later(to, around) {
			continue
		}
		switch e.What {
		case ledger.Fault, ledger.Heal, ledger.Born, ledger.Gone:
			if names[e.Process] || h.servers[base(e.Process)] || e.Process == "" {
				moments = append(moments, describe(e, ""))
			}
		case ledger.Owner:
			if epoch(e) != owner || e.Node == "" {
				moments = append(moments, describe(e, ""))
			}
			owner = epoch(e)
		case ledger.Note:
			moments = append(moments, describe(e, ""))
		default: // not what was done to somebody
		}
	}
	return moments
}

// describe puts an entry into words, in a timeline of job.
func describe(e *ledger.Entry, job string) moment {
	words := []string{string(e.What)}
	add := func(format string, value any, known bool) {
		if known {
			words = append(words, fmt.Sprintf(format, value))
		}
	}
	add("%s", strings.ToUpper(e.Verb), e.Verb != "")
	add("%s", e.Job, e.Job != "" && e.Job != job)
	add("queue %s", e.Queue, e.Queue != "" && e.Job == "")
	add("node %s", e.Node, e.Node != "" && e.Node != base(e.Process))
	add("to %s", e.Peer, e.Peer != "")
	add("count %d", e.Count, e.Count != 0)
	add("attempt %d", e.Attempt, e.Attempt != 0)
	add("run %s", short(e.Nonce), e.Nonce != "" && e.What != ledger.Owner)
	add("fence %d", e.Fence, e.Fence != 0)
	add("→ %s", e.Outcome, e.Outcome != "")
	add("(%s)", e.Cause, e.Cause != "")
	add("state %s", e.State, e.State != "")
	add("revision %d", e.Revision, e.Revision != 0)
	add("epoch %d", e.Epoch, e.Epoch != 0)
	add("begun %v before", time.Duration(e.At-e.Call).Round(time.Millisecond), e.Call != 0)
	add("%q", e.Error, e.Error != "" && len(e.Error) < 200)
	add("%s", e.Note, e.Note != "")
	return moment{e.At, cmp.Or(e.Process, "user"), strings.Join(words, " ")}
}

// short is enough of a nonce to tell it from others.
func short(nonce string) string { return nonce[:min(8, len(nonce))] }

// print prints moments in order, in seconds since the ledger begins.
func (h *history) print(moments []moment) string {
	seen := map[moment]bool{}
	moments = slices.DeleteFunc(moments, func(m moment) bool {
		again := seen[m]
		seen[m] = true
		return again
	})
	slices.SortStableFunc(moments, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	var b strings.Builder
	for i, m := range moments {
		if left := len(moments) - longest; left > 0 && i >= longest/2 && i < longest/2+left {
			if i == longest/2 {
				fmt.Fprintf(&b, "       … %d lines are left out …\n", left)
			}
			continue
		}
		fmt.Fprintf(&b, "%10.3f  %-8s %s\n", time.Duration(m.at-h.begin).Seconds(), m.who, m.text)
	}
	return b.String()
}
