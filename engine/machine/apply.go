package machine

import (
	"fmt"
	"time"
)

// Apply returns j after ev. It returns a [*MoveError], and j as it was, if j
// does not allow ev.
func (j Job) Apply(ev Event) (Job, error) {
	move := ev.move(j)
	f, isFenced := ev.(fenced)
	stale := isFenced && !j.Held(f.token())
	to, ok := moves[j.State][move]
	if !ok || stale || !fits(j, ev) {
		return j, &MoveError{ID: j.ID, From: j.State, Move: move, Stale: stale && j.State == Running}
	}
	next := j
	next.State = to
	ev.apply(&next)
	if to.Final() {
		next.Cancel = nil
	}
	if to != Scheduled {
		next.Wait = ""
	}
	return next, nil
}

// fits reports whether ev concerns a job like j, whatever its state: what is over is
// a limit of it, who claims it is whom it is for, and what is said of children and
// places is said of a job that has them.
func fits(j Job, ev Event) bool {
	switch e := ev.(type) {
	case TimedOut:
		return e.concerns(j)
	case Claimed:
		return j.Fan == nil && j.Wait != WaitTurn && !j.Barred(e.Lease.Node)
	case Reclaimed:
		return !j.Barred(e.Lease.Node)
	case TakenOver:
		return !j.Barred(e.Lease.Node)
	case Postponed:
		return j.Fan == nil && j.Wait != WaitTurn
	case Placed:
		return e.concerns(j)
	case Deserted:
		return j.Pin != nil && j.Pin.Else == ElseFail && j.State != Running // see Orphaned
	case Dispatched, Concluded:
		return j.Fan != nil && j.Wait != WaitTurn
	case Admitted:
		return j.Wait == WaitTurn
	case Declined:
		return j.Tick != nil && (j.Attempt == 0 || j.Wait == WaitTurn)
	}
	return true
}

func (e Claimed) apply(j *Job) { e.begin(j) }

func (e Reclaimed) apply(j *Job) {
	if j.State != Running {
		j.stop(AttemptCancelled, e.At, nil)
		return
	}
	lease := e.Lease
	j.Lease, j.Fence = &lease, e.Fence
}

func (e TakenOver) apply(j *Job) {
	if j.lose(e.LostClaim, e.At) {
		e.begin(j)
	}
}

// A job that any of some nodes may have is without a place until the owner finds
// one: its node is gone, unless only the claim was lost.
func (e Orphaned) apply(j *Job) {
	if j.lose(e.LostClaim, e.At) && !e.LostClaim && j.Pin != nil && j.Pin.Rule != nil {
		j.Pin = j.Pin.repin("", 0)
	}
}

func (e Reported) apply(j *Job) { e.note(j) }

// lose closes the attempt of another incarnation that is gone, and reports
// whether the job goes on.
func (j *Job) lose(lostClaim bool, at time.Time) bool {
	why := lostBy(j.Lease.Node, lostClaim)
	if j.Cancel != nil {
		j.stop(AttemptLost, at, why)
		return false
	}
	if !lostClaim && !j.spared() {
		j.Failures++
		j.Error = why
	}
	j.end(AttemptLost, j.Lease.Token, at, why)
	if j.State == Failed || j.State == Lost {
		j.Finished = at
		return false
	}
	return true
}

// The codes of errors that somebody looks for.
const (
	codeDeadline = "deadline"
	codeNodeLost = "node_lost"
)

// gone says why a job ended that was for node, or for one that was not found.
func gone(node string) *Error {
	if node == "" {
		return &Error{Code: codeNodeLost, Message: "no node is there that may have the job"}
	}
	return &Error{Code: codeNodeLost, Message: fmt.Sprintf("node %s is gone, and the job was for no other", node)}
}

// lostBy says what became of the attempt that node had.
func lostBy(node string, lostClaim bool) *Error {
	if lostClaim {
		return &Error{Code: "claim_lost", Message: fmt.Sprintf("node %s does not know that it claimed the job", node)}
	}
	return &Error{Code: codeNodeLost, Message: fmt.Sprintf("node %s died or lost its lease", node)}
}

func (e Done) apply(j *Job) {
	e.note(j)
	j.Result, j.ResultBlob, j.Error, j.Finished = e.Result, e.Blob, nil, e.At
	j.Details = nil
	j.end(AttemptSucceeded, e.Token, e.At, nil)
}

func (e Erred) apply(j *Job) {
	e.note(j)
	err := e.Error
	if j.Cancel != nil {
		j.stop(AttemptCancelled, e.At, &err)
		return
	}
	due := e.due(*j)
	if !e.Final && j.Failures+1 < j.Limit() && e.tooOld(*j) {
		begun := "its first attempt began"
		if !j.Redriven.IsZero() {
			begun = "it was retried by request"
		}
		err.Message += fmt.Sprintf(" (not tried again: %s more than %v before the next one)", begun, j.retryOf(e.Retry).MaxAge)
	}
	j.Failures++
	j.Error = &err
	j.end(AttemptFailed, e.Token, e.At, &err)
	if j.State == Failed {
		j.Finished = e.At
		return
	}
	j.Due = due
}

func (e Returned) apply(j *Job) {
	e.note(j)
	reason := &Error{Message: e.Reason}
	if j.Cancel != nil {
		j.stop(AttemptCancelled, e.At, reason)
		return
	}
	j.end(AttemptReturned, e.Token, e.At, reason)
	if j.State == Scheduled {
		due := e.Due
		if due.Before(e.At) {
			due = e.At
		}
		j.Due, j.Wait = Millisecond(due), WaitSnooze
	}
}

// How long a job waits that reached a node without a handler for it: shortly,
// since others may have one, and then no more often than a deployment takes.
const (
	firstPostponement = time.Second
	postponement      = 30 * time.Second
)

func (e Postponed) apply(j *Job) {
	if j.Lease != nil && !j.lose(e.LostClaim, e.At) {
		return
	}
	wait := firstPostponement
	if j.Wait == WaitKind {
		wait = postponement
	}
	wait = Retry{Delays: []time.Duration{wait}}.After(1, e.Random)
	j.Due, j.Wait = Millisecond(e.At.Add(wait)), WaitKind
}

func (e Stopped) apply(j *Job) {
	if j.State == Running {
		if j.Cancel == nil {
			j.Cancel = &Cancel{Cause: e.Cause, At: e.At}
		}
		return
	}
	j.Error, j.Finished = &Error{Code: "cancelled", Message: e.Cause}, e.At
}

func (e TimedOut) apply(j *Job) {
	code, why := "queue_timeout", fmt.Sprintf("it was not started by %s", j.StartBy.Format(time.RFC3339))
	if e.Purpose == Deadline {
		code, why = codeDeadline, fmt.Sprintf("it had not ended by %s", j.Deadline.Format(time.RFC3339))
	}
	if j.State == Running {
		if j.Cancel == nil {
			j.Cancel = &Cancel{Cause: why, At: e.At, Overdue: true}
		}
		return
	}
	j.Error, j.Finished = &Error{Code: code, Message: why}, e.At
}

// What happened in the earlier life stays in the attempts. Its limits were
// counted from then, so they end with it; but a job whose parts wait for nodes that
// are gone has as long as it had.
func (e Redriven) apply(j *Job) {
	deadline := time.Time{}
	if j.Fan != nil && j.Fan.OnLost == ElseWait && !j.Deadline.IsZero() {
		begun := j.Created
		if j.Redriven.After(begun) {
			begun = j.Redriven
		}
		deadline = Millisecond(e.At.Add(j.Deadline.Sub(begun)))
	}
	j.Failures, j.Result, j.ResultBlob, j.Error, j.Progress, j.Details = 0, nil, nil, nil, nil, nil
	j.Expires = time.Time{}
	j.Due, j.StartBy, j.Deadline, j.Finished = time.Time{}, time.Time{}, deadline, time.Time{}
	j.Redriven = e.At
	if j.State == Scheduled {
		j.Due, j.Wait = Millisecond(e.At), WaitDelay
		if j.takesTurns() {
			j.Wait = WaitTurn
		}
	}
	if j.Pin != nil {
		j.Pin = j.Pin.repin(j.Pin.Node, 0) // whichever life it has by then
	}
	if j.Fan != nil {
		fan := *j.Fan
		fan.Tally = Tally{}
		j.Fan = &fan
	}
}

func (Removed) apply(*Job) {}

// begin starts the next attempt of j.
func (c Claimant) begin(j *Job) {
	lease := c.Lease
	j.Lease, j.Fence = &lease, c.Fence
	if j.Pin != nil {
		j.Pin = j.Pin.repin(lease.Node, lease.Incarnation)
	}
	j.Due, j.Progress = time.Time{}, nil
	j.Attempt++
	j.Started = c.At
	if j.Attempt == 1 && j.MaxAttempts == 0 {
		j.MaxAttempts = c.MaxAttempts
	}
	j.Attempts = begin(j.Attempts, Attempt{Number: j.Attempt, Node: lease.Node, Started: c.At})
}

// end closes the attempt that runs, and moves the token into its entry.
func (j *Job) end(how Outcome, token string, at time.Time, err *Error) {
	j.Attempts = end(j.Attempts, Attempt{Ended: at, Outcome: how, Error: err, Token: token})
	j.Lease = nil
}

// stop ends j for good, as its Cancel says. The error is that of its attempt.
func (j *Job) stop(how Outcome, at time.Time, err *Error) {
	j.Error, j.Finished = &Error{Code: "cancelled", Message: j.Cancel.Cause}, at
	if j.Cancel.Overdue {
		j.Error.Code = codeDeadline
	}
	j.end(how, j.Lease.Token, at, err)
}
