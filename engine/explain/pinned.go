package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/nodes"
)

// wanted returns the node that a job is for, if that is one.
func (v view) wanted() *string {
	if v.job.Pin == nil || v.job.Pin.Node == "" {
		return nil
	}
	return &v.job.Pin.Node
}

// pinned explains a job that could run now, and is for one node.
func (v view) pinned() (code, text string) {
	node := v.job.Pin.Node
	if node == "" {
		return v.placeless()
	}
	m := v.node(node)
	switch is := "it is for node " + node; {
	case m.State == nodes.Offline:
		return v.away(is + ", which is not there")
	case m.State == nodes.Draining:
		return Draining, is + ", which is draining" + v.meanwhile(m)
	case !v.handles(m):
		return NoKind, fmt.Sprintf("%s, which has no handler for kind %s: start it with one", is, v.job.Kind)
	case !v.takes(m):
		return NoWorker, fmt.Sprintf("%s, which does not take from queue %s: start it with that", is, v.queue)
	}
	switch waited := v.now.Sub(pendingSince(v.job)); {
	case waited < moment:
	case !v.offered:
		what := "it has lost its item in the mailbox of node " + node
		if v.job.State.Delayed() {
			what = "it was due at " + instant(v.job.Due)
		}
		return v.byOwner(what, "put it into the mailbox of node "+node)
	case waited >= overdue:
		return Busy, fmt.Sprintf("it lies in the mailbox of node %s, which has not taken it yet: its slots (%d) may be taken", node, m.Slots)
	}
	return Soon, "it is about to be taken by node " + node
}

// overdue is after how long a node that takes its mail has no free slot.
const overdue = 3 * moment

// node returns a node, which is offline if nobody knows it.
func (v view) node(id string) nodes.Member {
	for _, m := range v.nodes {
		if m.ID == id {
			return m
		}
	}
	return nodes.Member{ID: id, State: nodes.Offline}
}

// away explains a job whose node is not there.
func (v view) away(text string) (code, why string) {
	pin := v.job.Pin
	switch {
	case pin.Rule == nil && pin.Else == machine.ElseWait:
		return Node, text + ": it waits until that node is back"
	case pin.Rule != nil:
		if fits := v.able(); len(fits) > 0 {
			return v.byOwner(text, "give it to "+some(fits, nodeID))
		}
	}
	switch pin.Else {
	case machine.ElseFail:
		return v.asNode(v.byOwner(text, "say that it is lost"))
	case machine.ElseAny:
		return v.asNode(v.byOwner(text, "let any worker have it"))
	case machine.ElseWait:
	}
	return Place, text + ", and " + v.nowhere()
}

// asNode makes what the owner is about to do a reason of its own, as long as there is
// one.
func (v view) asNode(code, text string) (string, string) {
	if code == Owner {
		code = Node
	}
	return code, text
}

// meanwhile says what becomes of a job while its node drains.
func (v view) meanwhile(m nodes.Member) string {
	text := ": it waits until that has ended"
	if v.job.Pin.Rule != nil {
		if fits := v.able(); len(fits) > 0 {
			return ": the owner is about to give it to " + some(fits, nodeID)
		}
		text = ", and no other fits: it waits for one"
	}
	if m.Drained {
		text += ", or see millrace node undrain"
	}
	return text
}

// placeless explains a job that has no node yet.
func (v view) placeless() (code, text string) {
	if fits := v.able(); len(fits) > 0 {
		return v.byOwner("it has no place yet", "give it to "+some(fits, nodeID))
	}
	return Place, "it has no place yet: " + v.nowhere()
}

// nowhere says that no node fits.
func (v view) nowhere() string {
	text := "no node "
	if labels := v.labels(); labels != "" {
		text += "with the labels " + labels + " "
	}
	return fmt.Sprintf("%shas kind %s, takes from queue %s and is not draining", text, v.job.Kind, v.queue)
}

// labels returns the labels that a node of the job has to have.
func (v view) labels() string {
	var list []string
	if rule := v.job.Pin.Rule; rule != nil {
		for _, key := range slices.Sorted(maps.Keys(rule.Select)) {
			list = append(list, key+"="+rule.Select[key])
		}
	}
	return strings.Join(list, ",")
}

// fits reports whether the job may go to a node, as far as labels and its pin say. One
// with a rule may go to any node that has the labels.
func (v view) fits(m nodes.Member) bool {
	pin := v.job.Pin
	switch {
	case pin == nil:
		return true
	case pin.Rule == nil:
		return m.ID == pin.Node
	}
	for key, value := range pin.Rule.Select {
		if got, ok := m.Labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// released says what becomes of a job whose node has gone while it ran.
func (v view) released() string {
	pin := v.job.Pin
	switch {
	case pin == nil || pin.Rule == nil && pin.Else == machine.ElseAny:
		return "it is free for others"
	case pin.Rule != nil:
		return "it goes to another node, if one fits"
	case pin.Else == machine.ElseFail:
		return "it is lost"
	}
	return "it waits for that node"
}
