package oracle

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"

	"github.com/millrace/millrace/e2e/ledger"
)

// readOwners finds when there was no owner that could work: between the last sign
// of one epoch and the first of the next, and while its process was disturbed.
func (h *history) readOwners() {
	h.headless = slices.Clone(h.system)
	for i, e := range h.owners {
		sign := h.end
		if i+1 < len(h.owners) {
			sign = h.owners[i+1].At
		}
		switch {
		case i+1 < len(h.owners) && (epoch(h.owners[i+1]) != epoch(e) || e.Node == ""):
			h.headless = append(h.headless, span{from: e.At, to: sign})
		case i+1 == len(h.owners) && (e.Node == "" || sign-e.At > int64(h.Lease)):
			h.headless = append(h.headless, span{from: e.At, to: never})
		}
	}
	for _, p := range h.processes {
		for _, s := range p.faults {
			if h.owned(p.node, s) {
				h.headless = append(h.headless, s)
			}
		}
	}
}

// owned reports whether a node was the owner during a span. An owner that is cut
// off for a moment stays it, and judges nobody for a lease after that.
func (h *history) owned(node string, s span) bool {
	return node != "" && slices.ContainsFunc(h.owners, func(e *ledger.Entry) bool {
		return e.Node == node && s.touches(e.At, later(e.At, h.Lease))
	})
}

// epoch is that of a holding. The write that takes the lease does not know it:
// it is that write's own revision.
func epoch(e *ledger.Entry) uint64 { return cmp.Or(e.Epoch, e.Revision) }

// ownership checks that epochs of the owner's lease grow with its revisions, and
// that each has one holder.
func ownership(h *history) []Violation {
	signs := slices.DeleteFunc(slices.Clone(h.owners), func(e *ledger.Entry) bool { return e.Node == "" })
	slices.SortStableFunc(signs, func(a, b *ledger.Entry) int { return cmp.Compare(a.Revision, b.Revision) })
	var all []Violation
	for i := 1; i < len(signs); i++ {
		a, b := signs[i-1], signs[i]
		says := ""
		switch {
		case a.Revision == b.Revision && a.Node != b.Node:
			says = fmt.Sprintf("revision %d was written by %s and by %s", a.Revision, a.Node, b.Node)
		case epoch(b) < epoch(a):
			says = fmt.Sprintf("%s held epoch %d after %s had epoch %d", b.Node, epoch(b), a.Node, epoch(a))
		case epoch(a) == epoch(b) && a.Node != b.Node:
			says = fmt.Sprintf("epoch %d has two holders: %s and %s", epoch(a), a.Node, b.Node)
		}
		if says != "" {
			all = append(all, Violation{Invariant: "owner", Says: says, Entries: pick(a, b)})
		}
	}
	if len(all) == 0 {
		return ordered(h)
	}
	return all
}

// ownerModel is the key of the owner, as its writes were heard.
var ownerModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{ledger.Entry{}} },
	Step: func(state, input, _ any) []any {
		was, now := state.(ledger.Entry), input.(ledger.Entry)
		again := now == was // heard twice
		holds := now.Epoch == was.Epoch && now.Node == was.Node
		if again || now.Revision > was.Revision && (holds || now.Epoch > was.Epoch) {
			return []any{now}
		}
		return nil
	},
}

// ordered checks that the writes of the owner's lease have an order in which
// each epoch has one holder, and ends when the next one begins. One may be heard
// late, by as much as the machine may be.
func ordered(h *history) []Violation {
	var ops []porcupine.Operation
	for _, e := range h.owners {
		if e.Node != "" {
			sign := ledger.Entry{Node: e.Node, Epoch: epoch(e), Revision: e.Revision}
			ops = append(ops, porcupine.Operation{Input: sign, Call: e.At - int64(h.lag()), Return: e.At})
		}
	}
	if porcupine.CheckOperationsTimeout(ownerModel.ToModel(), ops, searching) != porcupine.Illegal {
		return nil
	}
	return []Violation{{Invariant: "owner", Says: "no single lease could have been written like this", Entries: pick(h.owners...)}}
}
