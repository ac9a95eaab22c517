package oracle

import (
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace/millrace/e2e/ledger"
)

// searching is how long the search for an order of one job's operations may
// take. What takes longer is not judged.
const searching = 5 * time.Second

// linear checks that what everybody saw of a job is what one job could have been
// asked and have done, one after the other. It says nothing of a job of which
// others have said what is wrong.
func linear(h *history, others []Violation) []Violation {
	model := jobModel.ToModel()
	var all []Violation
	known := map[string]bool{}
	for _, v := range others {
		known[v.Job] = true
	}
	for _, l := range h.jobs {
		if known[l.id] || l.plain() || l.hasParts() { // whose end is up to the parts
			continue
		}
		if porcupine.CheckOperationsTimeout(model, h.operations(l), searching) == porcupine.Illegal {
			all = append(all, Violation{
				Invariant: "linearizable", Job: l.id, Says: "no single job could have answered like this", Entries: l.all(),
			})
		}
	}
	return all
}

// plain reports whether a job was created once and ran once, so that there is
// nothing to search for.
func (l *life) plain() bool {
	created := len(l.calls) == 1 && l.calls[0].Outcome == ledger.Created || len(l.calls) == 0 && l.ticked()
	return len(l.reads) == 0 && created && len(l.runs) == 1 &&
		l.runs[0].start.Attempt == 1 && l.runs[0].won() && l.record != nil && l.record.State == succeeded && l.record.Attempt == 1
}

// all returns what was written of a job.
func (l *life) all() []ledger.Entry {
	all := pick(append(l.calls, l.reads...)...)
	for _, r := range l.runs {
		all = append(all, pick(r.start, r.end)...)
	}
	return all
}

// An op is what was done to a job, or seen of it.
type op struct {
	verb    string // of a call; or claim, finish, read
	attempt int
	state   string // that was read
	maybe   bool   // it may have had no effect
	rev     uint64
}

// What is done to a job besides calls.
const (
	claim  = "claim"
	finish = "finish"
	read   = "read"
)

// operations returns what was done to a job. What may have no effect has no end:
// it may have one at any later time.
func (h *history) operations(l *life) []porcupine.Operation {
	var ops []porcupine.Operation
	add := func(o op, from, to int64) {
		if to == never {
			to = never >> 1 // what the checker adds to times has room
		}
		ops = append(ops, porcupine.Operation{Input: o, Call: min(from, to-1), Return: to})
	}
	submitted := h.begin
	for i, e := range l.calls {
		maybe := e.Outcome != ledger.OK && e.Outcome != ledger.Created && e.Outcome != ledger.Attached
		if o := (op{verb: e.Verb, state: e.Outcome, maybe: maybe}); maybe {
			add(o, begun(e), never)
		} else {
			add(o, begun(e), e.At)
		}
		if e.Verb == ledger.Submit && (i == 0 || submitted == h.begin) {
			submitted = begun(e)
		}
	}
	if submitted == h.begin {
		add(op{verb: ledger.Submit, maybe: true}, h.begin-1, never) // it was, by somebody who wrote nothing
	}
	for _, e := range l.family() {
		add(op{verb: e.Verb, maybe: true}, begun(&e), never)
	}
	for _, r := range l.runs {
		add(op{verb: claim, attempt: r.start.Attempt}, h.claimed(l, r, submitted), r.start.At)
		if r.end != nil && r.end.Outcome == ledger.Succeeded {
			add(op{verb: finish, attempt: r.start.Attempt, maybe: true}, r.end.At, never)
		}
	}
	for _, e := range l.reads {
		if e.Outcome != ledger.Unknown && e.Outcome != ledger.Refused && phases[phase(e.State)] {
			add(op{verb: read, attempt: e.Attempt, state: e.State, rev: e.Revision}, begun(e), e.At)
		}
	}
	if l.record != nil && phases[phase(l.record.State)] {
		add(op{verb: read, attempt: l.record.Attempt, state: l.record.State, rev: l.record.Revision}, h.end+1, h.end+2)
	}
	return ops
}

// claimed is when the attempt of a run was claimed at the earliest.
func (h *history) claimed(l *life, r *run, submitted int64) int64 {
	if l.record != nil {
		if a, ok := l.record.attempt(r.start.Attempt); ok && !a.Started.IsZero() {
			return max(submitted, a.Started.UnixNano()-int64(h.lag()))
		}
	}
	if h.unleased(r.process, submitted, r.start.At) {
		return submitted
	}
	return max(submitted, r.start.At-int64(h.Slack))
}

// A record is a job as the model has it.
type record struct {
	phase   string // a final state, running, waiting, or empty if there is none
	attempt int
	started bool // the handler, with this attempt
	wished  bool // somebody wants the attempt to end
	rev     uint64
}

const waiting = "waiting" // pending, scheduled or retrying

// phases are those that the model knows.
var phases = map[string]bool{"": true, waiting: true, running: true, succeeded: true, failed: true, cancelled: true}

// phase returns what the model calls a state.
func phase(state string) string {
	if state == pending || state == "scheduled" || state == "retrying" {
		return waiting
	}
	return state
}

// open reports whether attempts of the record can follow by themselves: it
// waits, or runs and may fail, be handed back or be lost.
func (r record) open() bool { return r.phase == waiting || r.phase == running && !r.wished }

var jobModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{record{}} },
	Step: func(state, input, _ any) []any {
		was, o := state.(record), input.(op)
		var states []any
		for _, now := range was.after(o) {
			states = append(states, now)
		}
		if o.maybe {
			states = append(states, was)
		}
		return states
	},
}

// after returns what the record may be after an operation: nothing, if the
// operation cannot have been then.
func (r record) after(o op) []record {
	switch {
	case o.verb == ledger.Submit:
		return r.submitted(o)
	case o.verb == ledger.Cancel:
		return r.cancelled()
	case o.verb == ledger.Retry:
		return r.retried()
	case o.verb == claim:
		return r.claimed(o.attempt)
	case o.verb == finish && r.phase == running && r.attempt == o.attempt && r.started:
		return []record{{phase: succeeded, attempt: r.attempt, rev: r.rev}}
	case o.verb == read && (o.rev == 0 || o.rev >= r.rev):
		return r.read(o)
	}
	return nil
}

func (r record) submitted(o op) []record {
	switch {
	case o.state == ledger.Attached && r.phase != "":
		return []record{r}
	case o.state != ledger.Attached && r.phase == "":
		return []record{{phase: waiting}}
	}
	return nil
}

// cancelled is a cancel that was answered. What waits may have been claimed by
// an attempt that nobody saw start.
func (r record) cancelled() []record {
	wished, ended := r, r
	wished.phase, wished.wished = running, true
	ended.phase = cancelled
	switch r.phase {
	case waiting:
		wished.attempt, wished.started = r.attempt+1, true // what starts later was claimed later
		return []record{ended, wished}
	case running:
		return []record{wished}
	case cancelled:
		return []record{r}
	}
	return nil
}

// retried is a redrive, or the wish to start now what waits. What runs may have
// ended before, by itself.
func (r record) retried() []record {
	again := record{phase: waiting, attempt: r.attempt, rev: r.rev}
	switch {
	case final(r.phase) || r.phase == waiting:
		return []record{again}
	case r.phase == running:
		return []record{r, again}
	}
	return nil
}

// claimed is the start of a handler. The attempt may have been seen before.
func (r record) claimed(attempt int) []record {
	if r.phase == running && r.attempt == attempt && !r.started {
		r.started = true
		return []record{r}
	}
	if r.open() && r.attempt < attempt {
		return []record{{phase: running, attempt: attempt, started: true, rev: r.rev}}
	}
	return nil
}

// read is what somebody saw. It shows what the job did by itself: attempts that
// failed, were handed back, or were lost, and claims that led nowhere.
func (r record) read(o op) []record {
	seen := record{phase: phase(o.state), attempt: o.attempt, rev: o.rev}
	if r.phase == seen.phase && r.attempt == seen.attempt {
		r.rev = o.rev
		return []record{r}
	}
	ok, ahead := false, r.attempt < seen.attempt
	switch seen.phase {
	case waiting, failed:
		ok = r.open() && r.attempt <= seen.attempt
	case running:
		ok = ahead && (r.phase == waiting || r.phase == running)
		seen.wished = r.wished
	case cancelled:
		ok = r.wished && r.attempt <= seen.attempt
	}
	if !ok {
		return nil
	}
	return []record{seen}
}
