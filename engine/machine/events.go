package machine

import (
	"encoding/json"
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
	// Report is what the handler has said and is not stored yet, or nil.
	Report *Report
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
	// Claimed is a node taking a job that is pending or due.
	Claimed struct{ Claimant }

	// Reclaimed is a node taking a job that it claimed itself, in a write
	// whose answer was lost. It is the same attempt under a new token. A job
	// with Cancel ends instead.
	Reclaimed struct{ Claimant }

	// TakenOver is a node taking a running job from another incarnation. A
	// job with Cancel ends instead, and one without failures left fails.
	TakenOver struct {
		Claimant
		// LostClaim is set if the attempt never ran, because the node that
		// claimed it does not know of it. It is then no failure.
		LostClaim bool
	}

	// Orphaned is somebody finding that the node of a running job is gone, and
	// no other taking it. Like a take-over it is a failure unless the claim was
	// lost, and ends a job with Cancel or without failures left.
	Orphaned struct {
		At time.Time
		// LostClaim is as in [TakenOver].
		LostClaim bool
	}

	// Reported is the handler saying how far it is.
	Reported struct{ Hold }

	// Done is the handler returning without error.
	Done struct {
		Hold
		Result json.RawMessage
		Blob   *Blob // in place of Result
	}

	// Erred is the handler returning an error.
	Erred struct {
		Hold
		Error Error
		// Final is set if no retry can help.
		Final bool
		// After is how long to wait before the next attempt, if the handler
		// said so; otherwise Retry says it, which is the definition's, unless
		// the job has its own. Random is from 0 up to 1.
		After  time.Duration
		Retry  Retry
		Random float64
	}

	// Returned is an attempt that ended without a failure: a snooze, a drain,
	// a lost lease that the handler obeyed.
	Returned struct {
		Hold
		Reason string
		// Due is when to try again, at once if it is over. Zero: without a
		// timer.
		Due time.Time
	}

	// Postponed is a node meeting a job that it could claim, or take over, and
	// has no handler for.
	Postponed struct {
		At     time.Time
		Random float64 // from 0 up to 1
		// LostClaim is as in [TakenOver]. It matters to a running job.
		LostClaim bool
	}

	// Stopped is somebody asking the job to end.
	Stopped struct {
		Cause string
		At    time.Time
	}

	// TimedOut is the time being over that Purpose names: [QueuedTimeout] or
	// [Deadline]. A job that is not concerned refuses it.
	TimedOut struct {
		Purpose Purpose
		At      time.Time
	}

	// Redriven is somebody wanting a job that has ended to run once more. One
	// with children waits for them again; one that ended before its dispatch is
	// to be dispatched at once. A job of a schedule that bounds how many go on
	// waits for another turn first.
	Redriven struct{ At time.Time }

	// Removed is a job that has ended and whose record is to go.
	Removed struct{ At time.Time }
)

func (Claimed) move(Job) Move { return Claim }

func (Reclaimed) move(j Job) Move { return unlessCancelled(j, Reclaim) }

func (e TakenOver) move(j Job) Move { return lost(j, e.LostClaim, TakeOver) }

func (e Orphaned) move(j Job) Move { return lost(j, e.LostClaim, Orphan) }

func (Reported) move(Job) Move { return Note }

// A success is accepted whatever anybody wanted: the handler won.
func (Done) move(Job) Move { return Finish }

func (e Erred) move(j Job) Move {
	if e.Final || j.Failures+1 >= j.Limit() || e.tooOld(j) {
		return unlessCancelled(j, GiveUp)
	}
	return unlessCancelled(j, Again)
}

// due returns when j is tried again after this failure of it.
func (e Erred) due(j Job) time.Time {
	wait := e.After
	if wait <= 0 {
		wait = j.retryOf(e.Retry).After(j.Failures+1, e.Random)
	}
	return Millisecond(e.At.Add(wait))
}

// tooOld reports whether the policy of j ends before its next attempt. The first
// attempt of a job stays in its list.
func (e Erred) tooOld(j Job) bool {
	age := j.retryOf(e.Retry).MaxAge
	if age <= 0 || len(j.Attempts) == 0 {
		return false
	}
	since := j.Attempts[0].Started
	if !j.Redriven.IsZero() {
		since = j.Redriven
	}
	return e.due(j).Sub(since) > age
}

func (e Returned) move(j Job) Move {
	if e.Due.IsZero() {
		return unlessCancelled(j, HandBack)
	}
	return unlessCancelled(j, Snooze)
}

func (e Postponed) move(j Job) Move { return lost(j, e.LostClaim, Postpone) }

func (Stopped) move(Job) Move { return Stop }

func (TimedOut) move(Job) Move { return TimeOut }

func (Redriven) move(j Job) Move {
	switch {
	case j.takesTurns():
		return Restart
	case j.Fan == nil:
		return Redrive
	case j.Fan.Total == 0:
		return Restart
	}
	return Reopen
}

func (Removed) move(Job) Move { return Remove }

// lost returns m, unless j ends with the attempt that it loses.
func lost(j Job, lostClaim bool, m Move) Move {
	switch {
	case j.State != Running || lostClaim:
	case j.fixed() && j.Pin.Else == ElseFail:
		m = Desert
	case !j.spared() && j.Failures+1 >= j.Limit():
		m = GiveUp
	}
	return unlessCancelled(j, m)
}

// spared reports whether it is no failure of j when its node dies: it waits for
// that node and no other.
func (j Job) spared() bool { return j.fixed() && j.Pin.Else == ElseWait }

func unlessCancelled(j Job, m Move) Move {
	switch {
	case j.Cancel == nil:
		return m
	case j.Cancel.Overdue:
		return Overrun
	}
	return Obey
}

// concerns reports whether the time is over that e tells of.
func (e TimedOut) concerns(j Job) bool {
	switch e.Purpose {
	case QueuedTimeout:
		return j.Attempt == 0 && over(j.StartBy, e.At)
	case Deadline:
		return over(j.Deadline, e.At)
	case Due, Outset, Expiry: // these are no limits
	}
	return false
}

// over reports whether a limit is set, and at is not before it.
func over(limit, at time.Time) bool { return !limit.IsZero() && !at.Before(limit) }

// Millisecond rounds t up to what timers can tell, so that nothing is early. A
// zero time stays zero.
func Millisecond(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(time.Millisecond - 1).Truncate(time.Millisecond).UTC()
}
