package explain

import (
	"fmt"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/nodes"
)

// reason returns the first thing that keeps the job where it is.
func (v view) reason() Reason {
	j := v.job
	r := Reason{ID: v.id, Kind: j.Kind, Queue: v.queue, State: string(j.State)}
	switch {
	case j.State.Final():
		r.Code, r.Text = v.ended()
	case j.State == machine.Running:
		r.Node = &j.Lease.Node
		r.Code, r.Text = v.running()
	case j.Wait == machine.WaitTurn:
		r.Code, r.Text = v.turn()
	case j.State.Delayed():
		due := j.Due.UTC()
		r.Due, r.Node = &due, v.wanted()
		r.Code, r.Text = v.delayed()
	case j.State == machine.Pending:
		r.Node = v.wanted()
		r.Code, r.Text = v.waiting()
	case j.State == machine.Waiting:
		r.Code, r.Text = v.parts()
	default:
		r.Code, r.Text = NotKnown, fmt.Sprintf("state %s is one of a later version: use that to ask", j.State)
	}
	if v.declined != nil {
		r.Text += "; it is skipped then: " + v.declined.Why
	}
	return r
}

func (v view) ended() (code, text string) {
	j := v.job
	if j.State == machine.Removing {
		return Removing, "it has ended, and its record is being removed"
	}
	how := map[machine.State]string{machine.Succeeded: "it succeeded", machine.Failed: "it failed", machine.Cancelled: "it was cancelled", machine.Skipped: "it was skipped", machine.Lost: "it was lost"}
	text = how[j.State] + " at " + instant(j.Finished)
	if j.Error != nil {
		text += ": " + j.Error.Message
	}
	return Ended, text
}

func (v view) running() (code, text string) {
	node := v.job.Lease.Node
	if m, runs := v.runner(); !runs {
		return Offline, v.offline(m)
	}
	if c := v.job.Cancel; c != nil {
		return Ending, fmt.Sprintf("it was told to end at %s (%s), and its attempt on node %s has not ended yet", instant(c.At), c.Cause, node)
	}
	return Running, fmt.Sprintf("it runs on node %s since %s", node, instant(v.job.Started))
}

// runner returns the node that runs the job, and whether it is there, as the
// incarnation that claimed the job.
func (v view) runner() (nodes.Member, bool) {
	lease := v.job.Lease
	for _, m := range v.nodes {
		if m.ID == lease.Node {
			return m, m.State != nodes.Offline && m.Incarnation == lease.Incarnation
		}
	}
	return nodes.Member{ID: lease.Node, State: nodes.Offline}, false
}

// offline explains a job whose node is gone. The owner frees it, or a worker that
// its item reaches takes it over.
func (v view) offline(m nodes.Member) string {
	text := fmt.Sprintf("node %s, which ran it, is offline", m.ID)
	if m.State != nodes.Offline {
		text = fmt.Sprintf("node %s, which ran it, has started anew since", m.ID)
	}
	next := v.released()
	if v.job.Cancel != nil {
		text, next = text+", and it was told to end", "it does so"
	}
	if _, there := v.owner(); !there {
		return text + ", but there is no owner to see to it: start millrace serve, or a worker without --no-owner"
	}
	within := 2 * v.lease
	if m.Owner {
		within += v.lease
	}
	return fmt.Sprintf("%s: %s within %v of that", text, next, within)
}

// delayed explains a job that is scheduled or retrying.
func (v view) delayed() (code, text string) {
	if v.ready() {
		return v.waiting()
	}
	j, due := v.job, instant(v.job.Due)
	switch {
	case j.State == machine.Retrying && j.Error != nil:
		return Retry, fmt.Sprintf("it is tried again at %s, after failure %d of %d: %s", due, j.Failures, j.Limit(), j.Error.Message)
	case j.State == machine.Retrying:
		return Retry, fmt.Sprintf("it is tried again at %s, after failure %d of %d", due, j.Failures, j.Limit())
	case j.Wait == machine.WaitSnooze:
		return Snooze, "its handler asked to be tried again at " + due
	case j.Wait == machine.WaitKind:
		if _, why := v.nobody(); why != "" && j.Pin == nil {
			return NoKind, fmt.Sprintf("%s; it is offered again at %s", why, due)
		}
		return NoKind, fmt.Sprintf("it reached a worker without a handler for kind %s; it is offered again at %s", j.Kind, due)
	}
	return Delay, "it was submitted for " + due
}
