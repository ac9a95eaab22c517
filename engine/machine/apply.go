package machine

import (
	"encoding/json"
	"fmt"
	"time"
)

// Event is something that happened to a job. Only this package defines events.
type Event interface {
	// move tells what the event asks of j.
	move(j Job) Move
	// apply changes j, whose state has moved already.
	apply(j *Job)
}

// fenced is an event that only the holder of the job may send.
type fenced interface{ token() string }

// Hold is part of every event that only the holder of the token may send.
type Hold struct {
	Token string
	At    time.Time
}

func (h Hold) token() string { return h.Token }

// Claimant is a node that takes a job: the first time, again, or from another.
type Claimant struct {
	Lease Lease
	// Fence is the revision that the write of the claim replaces.
	Fence uint64
	At    time.Time
	// MaxAttempts is what the handler's definition says; 0 is
	// DefaultMaxAttempts. The first claim of a job that was submitted without
	// one settles it, so that it never falls below the failures.
	MaxAttempts int
}

type (
	// Claimed is a node taking a pending job.
	Claimed struct{ Claimant }

	// Reclaimed is a node taking a job that it claimed itself, in a write
	// whose answer was lost. It is the same attempt under a new token. A job
	// with Cancel ends as cancelled instead.
	Reclaimed struct{ Claimant }

	// TakenOver is a node taking a running job from another incarnation. A
	// job with Cancel ends as cancelled instead, and one without failures
	// left as failed.
	TakenOver struct {
		Claimant
		// LostClaim is set if the attempt never ran, because the node that
		// claimed it does not know of it. It is then no failure.
		LostClaim bool
	}

	// Done is the handler returning without error.
	Done struct {
		Hold
		Result json.RawMessage
	}

	// Erred is the handler returning an error.
	Erred struct {
		Hold
		Error Error
		// Final is set if no retry can help.
		Final bool
	}

	// Returned is an attempt that ended without a failure: a snooze, a drain,
	// a lost lease that the handler obeyed.
	Returned struct {
		Hold
		Reason string
	}

	// Stopped is somebody asking the job to end.
	Stopped struct {
		Cause string
		At    time.Time
	}
)

func (Claimed) move(Job) Move { return Claim }

func (Reclaimed) move(j Job) Move { return unlessCancelled(j, Reclaim) }

func (e TakenOver) move(j Job) Move {
	if j.State == Running && !e.LostClaim && j.Failures+1 >= j.Limit() {
		return unlessCancelled(j, GiveUp)
	}
	return unlessCancelled(j, TakeOver)
}

// A success is accepted whatever anybody wanted: the handler won.
func (Done) move(Job) Move { return Finish }

func (e Erred) move(j Job) Move {
	if e.Final || j.Failures+1 >= j.Limit() {
		return unlessCancelled(j, GiveUp)
	}
	return unlessCancelled(j, Retry)
}

func (Returned) move(j Job) Move { return unlessCancelled(j, HandBack) }

func (Stopped) move(Job) Move { return Stop }

func unlessCancelled(j Job, m Move) Move {
	if j.Cancel != nil {
		return Obey
	}
	return m
}

// Apply returns j after ev. It returns a [*MoveError], and j as it was, if j
// does not allow ev.
func (j Job) Apply(ev Event) (Job, error) {
	move := ev.move(j)
	f, isFenced := ev.(fenced)
	stale := isFenced && !j.Held(f.token())
	to, ok := moves[j.State][move]
	if !ok || stale {
		return j, &MoveError{ID: j.ID, From: j.State, Move: move, Stale: stale && j.State == Running}
	}
	next := j
	next.State = to
	ev.apply(&next)
	if to.Final() {
		next.Cancel = nil
	}
	return next, nil
}

func (e Claimed) apply(j *Job) { e.begin(j) }

func (e Reclaimed) apply(j *Job) {
	if j.State == Cancelled {
		j.stop(AttemptCancelled, e.At, nil)
		return
	}
	lease := e.Lease
	j.Lease, j.Fence = &lease, e.Fence
}

func (e TakenOver) apply(j *Job) {
	why := e.why(j.Lease.Node)
	if j.State == Cancelled {
		j.stop(AttemptLost, e.At, why)
		return
	}
	if !e.LostClaim {
		j.Failures++
		j.Error = why
	}
	j.end(AttemptLost, j.Lease.Token, e.At, why)
	if j.State == Failed {
		j.Finished = e.At
		return
	}
	e.begin(j)
}

// why says what became of the attempt that node had.
func (e TakenOver) why(node string) *Error {
	if e.LostClaim {
		return &Error{Code: "claim_lost", Message: fmt.Sprintf("node %s does not know that it claimed the job", node)}
	}
	return &Error{Code: "node_lost", Message: fmt.Sprintf("node %s died or lost its lease", node)}
}

func (e Done) apply(j *Job) {
	j.Result, j.Error, j.Finished = e.Result, nil, e.At
	j.end(AttemptSucceeded, e.Token, e.At, nil)
}

func (e Erred) apply(j *Job) {
	err := e.Error
	if j.State == Cancelled {
		j.stop(AttemptCancelled, e.At, &err)
		return
	}
	j.Failures++
	j.Error = &err
	j.end(AttemptFailed, e.Token, e.At, &err)
	if j.State == Failed {
		j.Finished = e.At
	}
}

func (e Returned) apply(j *Job) {
	reason := &Error{Message: e.Reason}
	if j.State == Cancelled {
		j.stop(AttemptCancelled, e.At, reason)
		return
	}
	j.end(AttemptReturned, e.Token, e.At, reason)
}

func (e Stopped) apply(j *Job) {
	if j.State == Running {
		if j.Cancel == nil {
			j.Cancel = &Cancel{Cause: e.Cause, At: e.At}
		}
		return
	}
	j.Error, j.Finished = cancelled(e.Cause), e.At
}

// begin starts the next attempt of j.
func (c Claimant) begin(j *Job) {
	lease := c.Lease
	j.Lease, j.Fence = &lease, c.Fence
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

// stop ends j for good, as somebody asked. The error is that of its attempt.
func (j *Job) stop(how Outcome, at time.Time, err *Error) {
	j.Error, j.Finished = cancelled(j.Cancel.Cause), at
	j.end(how, j.Lease.Token, at, err)
}

func cancelled(cause string) *Error { return &Error{Code: "cancelled", Message: cause} }
