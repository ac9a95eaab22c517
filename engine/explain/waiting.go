package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// waiting explains a job that a worker could have now.
func (v view) waiting() (code, text string) {
	if v.defined.IsPaused() {
		return Paused, fmt.Sprintf("queue %s is paused: see millrace queue resume", v.queue)
	}
	switch {
	case v.job.Fan != nil:
		return v.byOwner(fmt.Sprintf("it was due at %s", instant(v.job.Due)), "make its parts")
	case v.job.Pin != nil:
		return v.pinned()
	}
	if !v.offered && v.now.Sub(pendingSince(v.job)) >= moment {
		return v.unoffered()
	}
	if code, text = v.nobody(); code != "" {
		return code, text
	}
	if limit := v.limit(); limit != "" {
		return Limit, limit
	}
	if busy := v.busy(); busy != "" {
		return Busy, busy
	}
	return Soon, "it is about to be taken by " + some(v.able(), nodeID)
}

// limit says that the queue has as many jobs in the hands of workers as may run at
// once, or nothing if it has not.
func (v view) limit() string {
	n := v.defined.Concurrency
	if n == 0 || v.load.Taken < uint64(n) || v.load.Waiting == 0 {
		return ""
	}
	return fmt.Sprintf("queue %s runs %d at once, and has %d taken and %d waiting, this one among them", v.queue, n, v.load.Taken, v.load.Waiting)
}

// busy says that all slots are taken, or nothing if one is free or may be.
func (v view) busy() string {
	if v.load == (streams.Load{}) || v.load.Asking > 0 || v.now.Sub(pendingSince(v.job)) < moment {
		return ""
	}
	able, slots := v.able(), 0
	for _, m := range able {
		slots += m.Slots
	}
	taken, waiting := v.load.Taken, v.load.Waiting
	if waiting == 0 && taken > 0 {
		taken, waiting = taken-1, 1 // it was handed back: the server counts it as taken
	}
	return fmt.Sprintf("%s no free slot (of %d): queue %s has %d taken and %d waiting, this one among them",
		verb(able, nodeID, "has", "have"), slots, v.queue, taken, waiting)
}

// unoffered explains a job that is ready and was not offered to workers.
func (v view) unoffered() (code, text string) {
	what := "it has lost its item of the work queue"
	if v.job.State.Delayed() {
		what = "it was due at " + instant(v.job.Due)
	}
	return v.byOwner(what, "offer it to workers")
}

// byOwner explains a job for which the owner has to do something.
func (v view) byOwner(what, do string) (code, text string) {
	if m, there := v.owner(); there {
		return Owner, fmt.Sprintf("%s: node %s, the owner, is about to %s", what, m.ID, do)
	}
	return NoOwner, fmt.Sprintf("%s, and there is no owner to %s: start millrace serve, or a worker without --no-owner", what, do)
}

// owner returns the node that is the owner, if one is.
func (v view) owner() (nodes.Member, bool) {
	list := v.those(func(m nodes.Member) bool { return m.Owner && m.State != nodes.Offline })
	if len(list) == 0 {
		return nodes.Member{}, false
	}
	return list[0], true
}

// nobody says why no node can take the job, or nothing if one can.
func (v view) nobody() (code, text string) {
	if len(v.able()) > 0 {
		return "", ""
	}
	taking := v.those(func(m nodes.Member) bool { return m.State == nodes.Alive && v.takes(m) })
	if len(taking) > 0 {
		return NoKind, fmt.Sprintf("%s from queue %s without a handler for kind %s: start a worker that has one",
			verb(taking, kindsOf, "takes", "take"), v.queue, v.job.Kind)
	}
	if code, text = v.drained(); code != "" {
		return code, text
	}
	text = "no node takes from queue " + v.queue
	if gone := v.those(v.takes); len(gone) > 0 {
		text += ", " + verb(gone, stateOf, "did", "did")
	}
	switch pinnedOnly, elsewhere := v.aside(); {
	case len(pinnedOnly) > 0:
		return NoWorker, fmt.Sprintf("%s, and %s only what is pinned: %s", text, verb(pinnedOnly, nodeID, "takes", "take"), v.starting())
	case len(elsewhere) > 0:
		return NoWorker, fmt.Sprintf("%s, and %s kind %s for other queues: start one that takes from it", text, verb(elsewhere, nodeID, "has", "have"), v.job.Kind)
	}
	return NoWorker, text + ": " + v.starting()
}

// aside returns the nodes that have a handler and do not take from the queue: those that
// take only what is pinned to them, and those that have nothing to do with it.
func (v view) aside() (pinnedOnly, elsewhere []nodes.Member) {
	for _, m := range v.those(func(m nodes.Member) bool { return m.State == nodes.Alive && v.handles(m) && !v.takes(m) }) {
		if m.TakesPinned(v.queue) {
			pinnedOnly = append(pinnedOnly, m)
		} else {
			elsewhere = append(elsewhere, m)
		}
	}
	return pinnedOnly, elsewhere
}

// starting says which worker would take the job.
func (v view) starting() string {
	text := "start a worker with kind " + v.job.Kind
	if v.queue != name.Queue(v.job.Kind) {
		text += " that takes from queue " + v.queue
	}
	return text
}

// drained says that those who could take the job drain, or nothing if there are
// none.
func (v view) drained() (code, text string) {
	could := v.those(func(m nodes.Member) bool { return m.State == nodes.Draining && v.takes(m) && v.handles(m) })
	if len(could) == 0 {
		return "", ""
	}
	next := v.starting()
	for _, m := range could {
		if m.Drained {
			next = "see millrace node undrain, or " + next
			break
		}
	}
	return Draining, fmt.Sprintf("%s draining, and no other takes from queue %s: %s", verb(could, nodeID, "is", "are"), v.queue, next)
}

// able returns the nodes that can take the job.
func (v view) able() []nodes.Member {
	return v.those(func(m nodes.Member) bool { return m.State == nodes.Alive && v.takes(m) && v.handles(m) && v.fits(m) })
}

// takes reports whether a node takes the job if it can run it: from the queue, or out of
// its mailbox if the job has a pin.
func (v view) takes(m nodes.Member) bool {
	if v.job.Pin != nil {
		return m.TakesPinned(v.queue)
	}
	return m.TakesFrom(v.queue)
}

func (v view) handles(m nodes.Member) bool { return slices.Contains(m.Kinds, v.job.Kind) }

func (v view) those(are func(nodes.Member) bool) (list []nodes.Member) {
	for _, m := range v.nodes {
		if are(m) {
			list = append(list, m)
		}
	}
	return list
}

// mostNamed is how many nodes a text names.
const mostNamed = 3

func nodeID(m nodes.Member) string  { return m.ID }
func stateOf(m nodes.Member) string { return fmt.Sprintf("%s (%s)", m.ID, m.State) }
func kindsOf(m nodes.Member) string { return fmt.Sprintf("%s (%s)", m.ID, strings.Join(m.Kinds, ", ")) }

// verb returns nodes and what they do.
func verb(list []nodes.Member, as func(nodes.Member) string, one, many string) string {
	if len(list) == 1 {
		return some(list, as) + " " + one
	}
	return some(list, as) + " " + many
}

// some names the first few of some nodes.
func some(list []nodes.Member, as func(nodes.Member) string) string {
	var names []string
	for _, m := range list[:min(len(list), mostNamed)] {
		names = append(names, as(m))
	}
	text := strings.Join(names, ", ")
	if more := len(list) - len(names); more > 0 {
		text = fmt.Sprintf("%s and %d more", text, more)
	}
	if len(list) == 1 {
		return "node " + text
	}
	return "nodes " + text
}

// instant returns a time for a sentence.
func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }
