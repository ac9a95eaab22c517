// Package machine is the life of a job as a pure function.
//
// What happens to a job is an [Event]. [Job.Apply] is a pure function from a
// job and an event to the next job; [Job.Owes] tells what must follow from a
// job as it is stored; [Job.Deliver] and [Job.Judge] are the table of what a
// delivered item means. Nothing here does I/O, reads a clock or draws a random
// number: times, tokens and revisions arrive inside events.
//
//	delivery ──▶ Deliver ──▶ Apply ──▶ (stored) ──▶ Owes ──▶ (acknowledged)
//
// What a delivered item means stands in words in docs/how-it-works.md.
//
// Start reading at the table in moves.go, then at [Job.Apply]. The stories in
// testdata are the specification; the diagram of ARCHITECTURE.md is made of
// the table by a test.
package machine

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// DefaultMaxAttempts is how many failures end a job that says nothing else.
const DefaultMaxAttempts = 5

// Job is one unit of work: the record as it is stored. It is a value: Apply
// returns a new one and never changes what the old one refers to.
type Job struct {
	// ID is <queue>.<local> and the key of the record.
	ID string `json:"id"`
	// Kind names the handler.
	Kind  string `json:"kind"`
	State State  `json:"state"`
	// Class is the priority among the jobs of its queue.
	Class Class `json:"class,omitempty"`

	// Attempt counts claims and never goes back.
	Attempt int `json:"attempt,omitempty"`
	// Failures counts errors, time-outs and deaths of the node. It is what
	// is compared with MaxAttempts. An attempt that ends as cancelled is no
	// failure.
	Failures int `json:"failures,omitempty"`
	// MaxAttempts is how many failures end the job; 0 is DefaultMaxAttempts.
	// It is settled by the first claim at the latest.
	MaxAttempts int `json:"max_attempts,omitempty"`

	// Lease says who runs the job, while it is running.
	Lease *Lease `json:"lease,omitempty"`
	// Fence is the revision that the last claim replaced. It grows from
	// attempt to attempt and makes a late writer lose.
	Fence uint64 `json:"fence,omitempty"`
	// Cancel is set while somebody wants a running job to end.
	Cancel *Cancel `json:"cancel,omitempty"`

	// Due is when a scheduled or retrying job is to be tried, to the
	// millisecond. It stays until the next claim, so that its timer is found.
	Due time.Time `json:"due,omitzero"`
	// Wait is why a scheduled job waits.
	Wait Wait `json:"wait,omitempty"`
	// StartBy is when the job fails if no attempt has started. Zero: never.
	StartBy time.Time `json:"start_by,omitzero"`
	// Deadline is when the job fails if it has not ended. Zero: never.
	Deadline time.Time `json:"deadline,omitzero"`
	// Retry is what the submitter wants between attempts; nil: what the
	// definition says.
	Retry *Retry `json:"retry,omitempty"`

	// Pin says on which node the job runs; nil: any worker of its queue has it.
	Pin *Pin `json:"pin,omitempty"`
	// Parent is set if the job is a part of a broadcast, or a shard.
	Parent *Parent `json:"parent,omitempty"`
	// Fan is set if the job is a broadcast or a sharded job.
	Fan *Fan `json:"fan,omitempty"`
	// Tick is set if a schedule made the job.
	Tick *Tick `json:"tick,omitempty"`

	Input  json.RawMessage `json:"input,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	// InputBlob and ResultBlob are in place of an Input and a Result that are
	// too large for the record.
	InputBlob  *Blob `json:"input_blob,omitempty"`
	ResultBlob *Blob `json:"result_blob,omitempty"`
	// Error is why the job failed last.
	Error *Error `json:"error,omitempty"`
	// Progress is what the latest attempt has said of how far it is.
	Progress *Progress `json:"progress,omitempty"`
	// Details are what an attempt left for the next one.
	Details json.RawMessage `json:"details,omitempty"`

	Created  time.Time `json:"created,omitzero"`
	Started  time.Time `json:"started,omitzero"` // of the latest attempt, or the dispatch of one with children
	Finished time.Time `json:"finished,omitzero"`
	// Redriven is when somebody last wanted the job, which had ended, to run
	// once more. Whoever did finds it again here.
	Redriven time.Time `json:"redriven,omitzero"`
	// Expires is when the record of a job that has ended goes.
	Expires time.Time `json:"expires,omitzero"`
	// Unique is the key that led to the job, if it has one.
	Unique *Unique `json:"unique,omitempty"`

	// Attempts tells the claims: the first two and the last eight.
	Attempts []Attempt `json:"attempts,omitempty"`
	// Trace is the trace context of the submitter, by header name.
	Trace map[string]string `json:"trace,omitempty"`
}

// Class is a priority class. The zero value is the normal one.
type Class string

// The classes that are not normal.
const (
	High Class = "high"
	Low  Class = "low"
)

// Blob names an object that belongs to a job.
type Blob struct {
	Name string `json:"name"`
	Size int    `json:"size"` // in bytes
}

// Unique is a key that one job holds at a time, among those of its kind.
type Unique struct {
	Key   string `json:"key"`
	Scope Scope  `json:"scope"`
	// Until is when the key is free again, in scope [WithinPeriod].
	Until time.Time `json:"until,omitzero"`
}

// Scope is for how long a job holds its unique key.
type Scope string

// The scopes of unique keys.
const (
	WhilePending Scope = "pending" // until its first attempt
	WhileActive  Scope = "active"  // until it has ended
	WithinPeriod Scope = "period"  // until [Unique.Until], whatever becomes of it
)

// Lease is the claim of one incarnation of one node on a running job. The
// token leaves the job when it stops running, so that holding the token and
// being the one who runs it are the same.
type Lease struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Token       string `json:"token"`
	// Driver is the item whose delivery led to the claim.
	Driver Driver `json:"driver"`
}

// Driver names one stored message.
type Driver struct {
	Stream   string `json:"stream"`
	Sequence uint64 `json:"seq"`
}

// Cancel is the wish that a running job ends.
type Cancel struct {
	Cause string    `json:"cause"`
	At    time.Time `json:"at"`
	// Overdue is set if nobody asked: the deadline passed. The job fails.
	Overdue bool `json:"overdue,omitempty"`
}

// Wait is why a scheduled job waits for its due time.
type Wait string

// What a scheduled job can wait for.
const (
	WaitDelay  Wait = "delay"  // it was submitted for later
	WaitSnooze Wait = "snooze" // its handler asked to be tried later
	WaitKind   Wait = "kind"   // it reached a worker without a handler for it
	WaitTurn   Wait = "turn"   // others of its schedule come first: see Tick.Turn
)

// Error is why an attempt or a job failed.
type Error struct {
	Message string `json:"message"`
	// Code classifies the error for programs; it may be empty.
	Code string `json:"code,omitempty"`
	// Stack is the stack of a handler that panicked.
	Stack string `json:"stack,omitempty"`
	// Causes are the errors that this one wraps, depth first.
	Causes []Cause `json:"causes,omitempty"`
}

// Cause is one error of a chain.
type Cause struct {
	Message string `json:"message"`
	// Depth is by how many errors this one is wrapped.
	Depth int `json:"depth,omitempty"`
	// Type is the name under which its type is registered, and Data the error
	// as JSON, if it is.
	Type string          `json:"type,omitempty"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Outcome is how an attempt ended. It is empty while the attempt runs.
type Outcome string

// How an attempt can end.
const (
	AttemptSucceeded Outcome = "succeeded"
	AttemptFailed    Outcome = "failed"
	AttemptReturned  Outcome = "returned"  // handed back without a failure
	AttemptCancelled Outcome = "cancelled" // ended because of Cancel
	AttemptLost      Outcome = "lost"      // its node died, or its claim was lost
)

// Attempt is one claim of a job and how it ended.
type Attempt struct {
	Number  int       `json:"number"`
	Node    string    `json:"node"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Outcome Outcome   `json:"outcome,omitempty"`
	Error   *Error    `json:"error,omitempty"`
	// Token is the token that the attempt had, once it has ended: whoever
	// wrote the outcome finds it again here.
	Token string `json:"token,omitempty"`
}

// How many attempts a record keeps, from the first ones and from the last.
const (
	keepFirst = 2
	keepLast  = 8
)

// Limit returns how many failures end j.
func (j Job) Limit() int {
	if j.MaxAttempts > 0 {
		return j.MaxAttempts
	}
	return DefaultMaxAttempts
}

// Held reports whether token is the one under which j runs.
func (j Job) Held(token string) bool {
	return j.Lease != nil && j.Lease.Token == token
}

// Ended returns the attempt that ended under token. Its holder ended it, unless
// it was lost.
func (j Job) Ended(token string) (Attempt, bool) {
	for _, a := range slices.Backward(j.Attempts) {
		if a.Outcome != "" && a.Token == token {
			return a, true
		}
	}
	return Attempt{}, false
}

// Validate reports why j is a record that no build writes. Whoever decodes a
// job calls it, since the other methods rely on it: a running job has a lease
// and an attempt that runs, and no other has. A state that this build does not
// know is valid: see [Leave].
func (j Job) Validate() error {
	known, runs := j.State.Known(), j.State == Running
	switch {
	case j.State == "":
		return j.broken("it has no state")
	case j.Attempt < 0 || j.Failures < 0 || j.MaxAttempts < 0:
		return j.broken("it counts below zero")
	case runs && (j.Lease == nil || j.Lease.Token == ""):
		return j.broken("it is running without a lease and its token")
	case runs && !j.open():
		return j.broken("it is running without an attempt that runs")
	case (j.State == Scheduled || j.State == Retrying) && j.Due.IsZero():
		return j.broken(fmt.Sprintf("it is %s without a due time", j.State))
	case j.Fan == nil && j.State == Waiting || j.Fan != nil && (j.Pin != nil || runs || j.State == Pending || j.State == Retrying):
		return j.broken(fmt.Sprintf("it is %s, which does not fit what it is made of", j.State))
	case known && j.Wait == WaitTurn && (j.State != Scheduled || !j.takesTurns()):
		return j.broken("it waits for a turn, and takes none")
	case known && !runs && (j.Lease != nil || j.Cancel != nil || j.open()):
		return j.broken(fmt.Sprintf("it is %s and has what only a running job has", j.State))
	}
	return nil
}

// open reports whether the last attempt in the list runs.
func (j Job) open() bool {
	n := len(j.Attempts)
	return n > 0 && j.Attempts[n-1].Outcome == ""
}

func (j Job) broken(why string) error {
	return fmt.Errorf("job %s: the record is broken: %s: remove its key from the bucket of jobs, and submit the job again", j.ID, why)
}

// Owns reports whether something besides the record has to go when j goes, and
// nobody else sees to that: j needs a timer for it. A record that owns nothing
// expires by itself, unless j is a child, which goes with its parent.
func (j Job) Owns() bool {
	return j.Parent == nil && (j.InputBlob != nil || j.ResultBlob != nil || j.Fan != nil)
}

// begin returns attempts with one more, bounded.
func begin(attempts []Attempt, a Attempt) []Attempt {
	next := make([]Attempt, 0, min(len(attempts), keepFirst+keepLast-1)+1)
	if n := len(attempts); n >= keepFirst+keepLast {
		next = append(next, attempts[:keepFirst]...)
		attempts = attempts[n-keepLast+1:]
	}
	return append(append(next, attempts...), a)
}

// end returns attempts with the last one ended.
func end(attempts []Attempt, how Attempt) []Attempt {
	next := slices.Clone(attempts)
	if len(next) == 0 {
		return next
	}
	last := &next[len(next)-1]
	last.Ended, last.Outcome, last.Error, last.Token = how.Ended, how.Outcome, how.Error, how.Token
	return next
}
