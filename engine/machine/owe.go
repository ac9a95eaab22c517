package machine

import (
	"slices"
	"time"
)

// Debt is something that must follow from a stored job. Carrying one out twice
// does no harm.
type Debt string

// What a stored job can owe.
const (
	// Offer puts the job's item where a worker finds it.
	Offer Debt = "offer"
	// SetTimers sets the timers that [Job.Timers] lists.
	SetTimers Debt = "set timers"
	// Tell tells the node of a running job that it is to end.
	Tell Debt = "tell"
	// Withdraw deletes the items of a job that nobody shall start any more.
	Withdraw Debt = "withdraw"
	// ClearTimers deletes the timers of a job that has ended.
	ClearTimers Debt = "clear timers"
	// Free gives the unique key of a job that has ended to whoever asks next.
	Free Debt = "free"
	// Announce tells those who wait that the job has ended.
	Announce Debt = "announce"
	// Fork makes the children of a job, or as many as it may have at a time.
	Fork Debt = "fork"
	// Recall cancels the children of a job that has ended.
	Recall Debt = "recall"
	// Count tells the owner that a child has ended.
	Count Debt = "count"
	// Signal tells the owner what the schedule of a job has to know: it wants a
	// turn, or has ended.
	Signal Debt = "signal"
	// Erase deletes what the job owns, and then its record.
	Erase Debt = "erase"
)

// The lists that are owed most often, so that nothing is allocated for them.
var (
	oweOffer    = []Debt{Offer}
	oweTimers   = []Debt{SetTimers}
	oweBoth     = []Debt{SetTimers, Offer} // a job that is claimed has its deadline
	oweTell     = []Debt{Tell}
	oweWithdraw = []Debt{Withdraw, Announce}
	oweAnnounce = []Debt{Announce}
	oweErase    = []Debt{Erase}
	oweFork     = []Debt{SetTimers, Fork}
	oweRecall   = []Debt{Announce, Recall}
	oweTurn     = []Debt{SetTimers, Signal}
)

// Owes returns what must follow from j as it is stored. It depends on nothing
// else: whoever stored j carries it out, and whoever meets j again carries it
// out again before it acknowledges the message that led there, so that a crash
// in between loses nothing. The caller must not change the list.
func (j Job) Owes() []Debt {
	limited := !j.StartBy.IsZero() || !j.Deadline.IsZero()
	switch {
	case j.State == Pending && j.Homeless():
		return oweTimers
	case j.State == Pending && limited:
		return oweBoth
	case j.State == Pending:
		return oweOffer
	case j.State == Scheduled && j.Wait == WaitTurn:
		return oweTurn
	case j.State.Delayed():
		return oweTimers
	case j.State == Running && j.Cancel != nil:
		return oweTell
	case j.State == Waiting:
		return oweFork
	case j.State == Removing:
		return oweErase
	case !j.State.Final():
		return nil
	}
	owes := oweAnnounce
	switch {
	case j.Fan != nil:
		owes = oweRecall
	case j.State == Cancelled || j.State == Lost || j.State == Failed && j.unattended():
		owes = oweWithdraw // nobody delivered an item just now
	}
	if j.Parent != nil {
		owes = append(slices.Clip(owes), Count)
	}
	if j.Tick != nil && (j.Tick.Turn || j.Tick.Watched) {
		owes = append(slices.Clip(owes), Signal)
	}
	if j.Unique != nil && j.Unique.Scope != WithinPeriod {
		owes = append(slices.Clip(owes), Free)
	}
	if j.Owns() {
		owes = append(slices.Clip(oweTimers), owes...) // first: nothing else makes it go
	}
	if limited || !j.Due.IsZero() {
		owes = append(slices.Clip(owes), ClearTimers) // last: until then a timer that fires pays for a crash
	}
	return owes
}

// unattended reports whether j, which failed, may have done so without a worker.
func (j Job) unattended() bool {
	return j.Attempt == 0 || j.Error != nil && (j.Error.Code == codeDeadline || j.Error.Code == codeNodeLost)
}

// Purpose is what a timer is for.
type Purpose string

// The purposes of timers.
const (
	Due           Purpose = "due"      // offer the item: the due time of a delayed job
	Outset        Purpose = "outset"   // apply Dispatched: the due time of a job with children
	QueuedTimeout Purpose = "queued"   // apply TimedOut: Job.StartBy
	Deadline      Purpose = "deadline" // apply TimedOut: Job.Deadline
	Expiry        Purpose = "expiry"   // apply Removed: the retention is over
)

// Timer is a moment at which something is to happen to a job.
type Timer struct {
	Purpose Purpose
	At      time.Time
}

// Timers returns the timers that have to be there for j as it is stored. A job in
// a state that this build does not know has none.
func (j Job) Timers() []Timer {
	switch {
	case !j.State.Known() || j.State == Removing:
		return nil
	case j.State.Final() && j.Owns():
		return set(Timer{Expiry, j.Expires})
	case j.State.Final():
		return nil
	}
	due, queued := Timer{Purpose: j.duePurpose()}, Timer{Purpose: QueuedTimeout}
	if j.State.Delayed() && j.Wait != WaitTurn {
		due.At = j.Due
	}
	if j.Attempt == 0 {
		queued.At = j.StartBy
	}
	return set(due, queued, Timer{Deadline, j.Deadline})
}

// Leftovers returns the timers that may be left of a job that has ended, and are
// of no use any more.
func (j Job) Leftovers() []Timer {
	expiry := Timer{Purpose: Expiry}
	if j.State == Removing && (j.Owns() || j.Parent != nil) { // a child has one if its parent was gone
		expiry.At = j.Expires
	}
	return set(Timer{j.duePurpose(), j.Due}, Timer{QueuedTimeout, j.StartBy}, Timer{Deadline, j.Deadline}, expiry)
}

func (j Job) duePurpose() Purpose {
	if j.Fan != nil {
		return Outset
	}
	return Due
}

// set returns those of some timers that have a time.
func set(timers ...Timer) []Timer {
	var list []Timer
	for _, t := range timers {
		if !t.At.IsZero() {
			list = append(list, t)
		}
	}
	return list
}
