package oracle

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

const (
	// rejoin is how soon after NATS is back everybody is at work again.
	rejoin = 5 * time.Second
	// election is how long several servers may be without a leader when one of
	// them is gone.
	election = 10 * time.Second
	// breath is what has to lie between two faults for them to be two.
	breath = 2 * time.Second
)

// outages pairs faults with what ended them.
type outages struct {
	h        *history
	open     map[doing]*span    // those that nothing has ended yet
	starting map[string][]*span // what ended with the birth of a server that is not ready yet
	all      []owned
}

// doing is what is done to whom. Of the same there is one at a time.
type doing struct{ process, verb, peer string }

// owned is a fault of a process, or of the servers if there is none.
type owned struct {
	*span
	process *process
	server  string
}

// begin begins a fault, unless the same one is there already.
func (o *outages) begin(p *process, e *ledger.Entry) {
	key := doing{e.Process, e.Verb, e.Peer}
	if o.open[key] != nil {
		return
	}
	s := &span{from: e.At, to: never, verb: e.Verb}
	s.whole = e.Verb == ledger.Stop || e.Verb == ledger.Kill9 || e.Verb == ledger.Term ||
		(e.Verb == ledger.Cut || e.Verb == ledger.Drop) && (e.Peer == "" || o.h.Servers == 1)
	o.open[key] = s
	o.all = append(o.all, owned{s, p, e.Process})
}

// heal ends the faults of e's process with e's verb and peer; none of these
// stands for all.
func (o *outages) heal(e *ledger.Entry) {
	for key, s := range o.open {
		if key.process == e.Process && (e.Verb == "" || key.verb == e.Verb) && (e.Peer == "" || key.peer == e.Peer) {
			s.to = e.At
			delete(o.open, key)
		}
	}
}

// process takes what happened to a process that is no server.
func (o *outages) process(p *process, e *ledger.Entry) {
	switch {
	case e.What == ledger.Born:
		p.born, p.slots = e, e.Count
		p.queues = strings.FieldsFunc(e.Queue, func(r rune) bool { return r == ',' || r == ' ' })
	case e.What == ledger.Gone:
		p.gone = e
		o.heal(&ledger.Entry{At: e.At, Process: e.Process})
	case e.What == ledger.Heal:
		o.heal(e)
	case e.Verb == ledger.Kill9:
		p.killed = cmp.Or(p.killed, e)
	case e.Verb == ledger.Term:
		p.told = cmp.Or(p.told, e)
	case e.Verb != ledger.Clock: // a wrong clock disturbs nobody
		o.begin(p, e)
	}
}

// server takes what happened to a server: it is down until it is born again.
func (o *outages) server(e *ledger.Entry) {
	about := *e
	about.Process = base(e.Process)
	switch e.What {
	case ledger.Born:
		for key, s := range o.open {
			if key.process == about.Process {
				o.starting[about.Process] = append(o.starting[about.Process], s)
			}
		}
		o.heal(&ledger.Entry{At: e.At, Process: about.Process})
	case ledger.Gone:
		about.Verb = cmp.Or(e.Verb, ledger.Kill9)
		if o.open[doing{process: about.Process, verb: ledger.Term}] == nil && !o.atEnd(e) {
			o.begin(nil, &about)
		}
	case ledger.Heal:
		o.heal(&about)
	default:
		if e.Verb != ledger.Clock { // a wrong clock disturbs nobody
			o.begin(nil, &about)
		}
	}
}

// ready ends what began when a server went: now it is back.
func (o *outages) ready(e *ledger.Entry) {
	for _, s := range o.starting[base(e.Process)] {
		s.to = e.At
	}
	delete(o.starting, base(e.Process))
}

// atEnd reports whether a server went when the run was over.
func (o *outages) atEnd(e *ledger.Entry) bool { return e.At >= o.h.end }

// close gives every process what disturbed it.
func (o *outages) close() {
	down := map[string][]span{} // by server
	for _, f := range o.all {
		if f.process != nil {
			f.process.faults = append(f.process.faults, *f.span)
			continue
		}
		if s := *f.span; s.verb == ledger.Kill9 || s.verb == ledger.Term || s.verb == ledger.Stop && o.h.Servers == 1 {
			down[f.server] = append(down[f.server], s)
		}
		s := *f.span
		if o.h.Servers > 1 {
			s.whole, s.to = false, max(s.to, later(s.from, election))
		}
		o.h.system = append(o.h.system, s)
	}
	o.h.system = join(o.h.system, breath)
	for _, p := range o.h.processes {
		p.disturbed = join(slices.Concat(p.faults, o.h.system), breath)
	}
	if len(down) == o.h.Servers {
		o.h.away = common(down)
	}
}

// common returns when all were down.
func common(down map[string][]span) []span {
	var all []span
	first := true
	for _, spans := range down {
		spans = join(spans, 0)
		if first {
			all, first = spans, false
			continue
		}
		all = without(all, without(all, spans))
	}
	for i := range all {
		all[i].whole, all[i].verb = true, cmp.Or(all[i].verb, ledger.Kill9)
	}
	return all
}

// unleased reports whether the process may have lost its lease between from and
// to: its handlers said so, or a fault may have cost it. Half a lease is the least
// that does: the last renewal may have been a third of it earlier.
func (h *history) unleased(p *process, from, to int64) bool {
	for _, s := range p.disturbed {
		if s.from <= to && later(s.to, breath) >= from && min(s.to, to)-s.from >= int64(h.Lease/2) {
			return true
		}
	}
	return slices.ContainsFunc(p.losses, func(at int64) bool { return at >= from && at <= later(to, h.Slack) })
}

// awake returns the time from which p can know what was said at t: at once,
// unless it is disturbed.
func (h *history) awake(p *process, t int64) int64 {
	for _, s := range p.disturbed {
		if s.from <= later(t, breath) && s.to > t {
			t = s.to
		}
	}
	return t
}
