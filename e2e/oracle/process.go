package oracle

import (
	"cmp"
	"strings"

	"github.com/millrace/millrace/e2e/ledger"
)

// process is one life of a process.
type process struct {
	name, node, role string
	queues           []string
	slots            int
	born             *ledger.Entry
	gone             *ledger.Entry
	killed           *ledger.Entry   // the kill, if there was one
	told             *ledger.Entry   // the first SIGTERM, if there was one
	readiness        []*ledger.Entry // changes, by time
	faults           []span          // its own, as they were made
	losses           []int64         // when handlers ended that were told of the loss of the lease
	disturbed        []span          // those and the servers', in order, joined
}

// died is when the process was no more. One that was killed was so from then on.
func (p *process) died() int64 {
	died := never
	if p.gone != nil {
		died = p.gone.At
	}
	if p.killed != nil {
		died = min(died, p.killed.At)
	}
	return died
}

// alive reports whether the process lived, and was not asked to end, from one
// time to another.
func (p *process) alive(from, to int64) bool {
	return (p.born == nil || p.born.At <= from) && p.died() >= to && (p.told == nil || p.told.At >= to)
}

// base is the name of a process without the number of its life.
func base(name string) string {
	base, _, _ := strings.Cut(name, "#")
	return base
}

// processAt is whom an entry is about.
func (h *history) processAt(e *ledger.Entry) *process {
	p := h.processes[e.Process]
	if p == nil {
		p = &process{name: e.Process}
		h.processes[e.Process] = p
	}
	p.node = cmp.Or(p.node, e.Node)
	p.role = cmp.Or(p.role, e.Role)
	return p
}

// readProcesses finds out who lived when, and what was done to them.
func (h *history) readProcesses() {
	h.servers = map[string]bool{}
	for _, e := range h.entries {
		if e.Role == ledger.Server {
			h.servers[base(e.Process)] = true
		}
		if e.Peer != "" {
			h.servers[base(e.Peer)] = true
		}
	}
	down := &outages{h: h, open: map[doing]*span{}, starting: map[string][]*span{}}
	for _, e := range h.entries {
		switch e.What {
		case ledger.Owner:
			h.owners = append(h.owners, e)
		case ledger.Ready, ledger.Unready:
			if p := h.processAt(e); !h.servers[base(e.Process)] {
				p.readiness = append(p.readiness, e)
			} else if e.What == ledger.Ready {
				down.ready(e)
			}
		case ledger.Born, ledger.Gone, ledger.Fault, ledger.Heal:
			if h.servers[base(e.Process)] || e.Verb == ledger.Full {
				down.server(e)
			} else if e.Process != "" {
				down.process(h.processAt(e), e)
			}
		default: // not about a process
		}
	}
	down.close()
}
