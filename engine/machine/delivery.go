package machine

import "time"

// Delivery is an item of a job that reached a node.
type Delivery struct {
	Driver      Driver // the stored message that was delivered
	Node        string // the node that has it
	Incarnation uint64 // of that node, now
	// Runs is set if the node runs the job under the token in the record.
	Runs bool
	// Due is the due time that the item carries, if it does.
	Due time.Time
	// Now is the server's time.
	Now time.Time
}

// Action is what a delivery asks of the node that has it.
type Action string

// What a delivery can ask.
const (
	Settle    Action = "settle"  // carry out what the job owes, acknowledge
	TakeIt    Action = "claim"   // replace that revision by Claimed, then run it
	TakeAgain Action = "reclaim" // replace that revision by Reclaimed, then run it
	Adopt     Action = "adopt"   // the delivery keeps the attempt alive from now on
	Drop      Action = "drop"    // acknowledge: something else drives the job
	Ask       Action = "ask"     // ask the node that has the job, then see Judge
	Seize     Action = "seize"   // replace that revision by TakenOver, then run it if it runs
	Leave     Action = "leave"   // hand back, to be delivered again a little later
)

// Deliver tells what the delivery of an item means for j as it is stored, at
// whatever revision. A job that is not there at all is dropped. It is the first
// half of the table; where it says [Ask], [Job.Judge] is the other.
func (j Job) Deliver(d Delivery) Action {
	switch {
	case !j.State.Known():
		return Leave // a newer build wrote it, and a newer build must move it
	case j.State.Final():
		return Settle
	case j.Fan != nil || j.Barred(d.Node):
		return Drop // it has no handler, or it is for another node by now
	case j.Wait == WaitTurn:
		return Settle // what was delivered is of an earlier life
	case j.State == Pending:
		return TakeIt
	case j.State.Delayed() && (j.Due.Equal(d.Due) || !j.Due.After(d.Now)):
		return TakeIt
	case j.State.Delayed():
		return Settle // its timer is owed
	case d.Runs && j.Lease.Driver == d.Driver:
		return Adopt
	case d.Runs:
		return Drop
	case j.Lease.Node == d.Node && j.Lease.Incarnation == d.Incarnation:
		return TakeAgain
	}
	return Ask
}

// Answer is what is known of a node that was asked for a job.
type Answer string

// What can be known.
const (
	Silent  Answer = "silent"  // nobody answers, and there is no verdict
	Runs    Answer = "yes"     // it runs the job under that token
	Denies  Answer = "no"      // it does not, and it is a later incarnation
	Unaware Answer = "unaware" // it does not, and it is the very incarnation that claimed
	Dead    Answer = "dead"    // nobody answers, and the owner's verdict covers the incarnation
)

// Judge tells what d means for a job that another incarnation runs, now that
// its node was asked. Where there is nothing to ask, it is [Job.Deliver].
func (j Job) Judge(d Delivery, a Answer) Action {
	if plain := j.Deliver(d); plain != Ask {
		return plain
	}
	switch a {
	case Runs:
		if j.Lease.Driver == d.Driver {
			return Leave
		}
		return Drop
	case Denies, Unaware, Dead:
		return Seize
	case Silent:
	}
	return Leave
}
