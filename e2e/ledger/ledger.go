// Package ledger is what happened, written down outside of the system under
// test: by handlers, by clients, and by whoever kills and cuts. It is a file of
// JSON lines that many processes append to.
//
// Start reading at [Entry].
package ledger

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// What says what an entry tells.
type What string

// Whoever is named in brackets writes the entry.
const (
	// Start and End are the first and the last that a handler does [handler].
	Start What = "start"
	End   What = "end"
	// Call is what a user asked of the system, written when the answer was
	// there [client].
	Call What = "call"
	// Read is a job as a user saw it [client].
	Read What = "read"
	// Born and Gone are the first and the last of a process [cluster]. Of one
	// that runs handlers, its birth tells the queues, with commas between them,
	// and how many slots it has, as Count.
	Born What = "born"
	Gone What = "gone"
	// Fault and Heal are the begin and the end of what was done to a process
	// or a link. A fault that nothing heals, such as a kill, has no Heal
	// [cluster].
	Fault What = "fault"
	Heal  What = "heal"
	// Owner is a write of the owner's lease, as the server told it [cluster].
	Owner What = "owner"
	// Ready and Unready are a change of what a process says of its readiness
	// [cluster].
	Ready   What = "ready"
	Unready What = "unready"
	// Note is for people: the phases of a scenario [cluster].
	Note What = "note"
	// Over says that the test is over: what follows is cleaning up [cluster].
	Over What = "over"
)

// Verbs of faults. Of those marked with *, a [Heal] follows.
const (
	Kill9    = "kill9"    // SIGKILL; Process
	Term     = "term"     // SIGTERM: a worker drains and ends; Process
	Stop     = "stop"     // * SIGSTOP until SIGCONT; Process
	Throttle = "throttle" // * stopped most of the time; Process
	Cut      = "cut"      // * the link to Peer is closed and refuses; Process
	Drop     = "drop"     // * the link to Peer is open and passes nothing; Process
	Delay    = "delay"    // * the link to Peer passes late; Process
	Full     = "full"     // * the storage has no room
	Clock    = "clock"    // the wall clock is off from the start on; Process
)

// Verbs of calls.
const (
	Submit  = "submit"  // Job; Outcome created, attached, error or unknown; Part if it is for that node alone; Count of shards; Schedule if that was triggered
	Cancel  = "cancel"  // Job; ok, error or unknown
	Retry   = "retry"   // Job: run again now, or a redrive
	Pause   = "pause"   // Queue, or Schedule
	Resume  = "resume"  // Queue, or Schedule
	Drain   = "drain"   // Node; the answer says that nothing new starts there
	Undrain = "undrain" // Node
	Limit   = "limit"   // Queue, Count: at most that many at once, 0 for no limit
	Apply   = "apply"   // Schedule, Plan: what it is from then on; it stays paused if it was
	Delete  = "delete"  // Schedule
)

// Outcomes of calls, and of handlers.
const (
	OK        = "ok"
	Created   = "created"
	Attached  = "attached"
	Refused   = "error"   // the call has certainly done nothing
	Unknown   = "unknown" // the answer was lost: it may have been done, or be done yet
	Succeeded = "succeeded"
	Failed    = "failed"  // the handler returned an error of its own
	Obeyed    = "obeyed"  // its context had ended, and it gave up; Cause says why
	Snoozed   = "snoozed" // it asked to be run again later
)

// Roles of processes.
const (
	Server    = "server"
	Serve     = "serve"  // millrace serve
	Worker    = "worker" // with handlers in Go
	Exec      = "exec"   // with handlers that are commands: millrace worker
	Submitter = "submitter"
)

// Causes with which the context of a handler ends.
const (
	LeaseLost = "lease lost"
	Cancelled = "cancelled"
	Timeout   = "timeout"
	Drained   = "drained"
)

// Clean is the note of a [Gone] whose process ended without an error.
const Clean = "exit status 0"

// Entry is one line. What is not known or does not apply is left out.
type Entry struct {
	At   int64 `json:"at"` // nanoseconds since 1970, by the clock of the machine
	What What  `json:"what"`
	// Process is one life of a process, such as w1#2, the second one of w1;
	// servers are n1, n2, n3. Node is the ID under which it registers.
	Process string `json:"process,omitempty"`
	Node    string `json:"node,omitempty"`
	Role    string `json:"role,omitempty"` // of a process, such as [Worker]
	Pid     int    `json:"pid,omitempty"`
	Peer    string `json:"peer,omitempty"` // server at the other end of a link

	Verb    string `json:"verb,omitempty"`    // of a call, a fault or a heal
	Call    int64  `json:"call,omitempty"`    // when a call or a read was begun; At is when it returned
	Outcome string `json:"outcome,omitempty"` // of a call or a handler
	Cause   string `json:"cause,omitempty"`   // why a handler's context ended, such as [LeaseLost]
	Error   string `json:"error,omitempty"`   // of a call or a handler, for people
	Note    string `json:"note,omitempty"`

	Job     string `json:"job,omitempty"`
	Queue   string `json:"queue,omitempty"`
	Count   int    `json:"count,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	// Parent is the job of which a handler does a part, and Part is which: a node,
	// or the number of a shard. Then Count is how many shards there are.
	Parent string `json:"parent,omitempty"`
	Part   string `json:"part,omitempty"`
	Fence  uint64 `json:"fence,omitempty"`
	// Nonce is the name of one run of a handler: in its start, in its end, and
	// in the result that it returned, {"nonce": "…"}.
	Nonce string `json:"nonce,omitempty"`
	Due   int64  `json:"due,omitempty"` // of a job that was submitted for later, or the tick that a handler was told; as At
	// Schedule is the one that a call is about, or that a handler was told.
	Schedule string `json:"schedule,omitempty"`
	Plan     *Plan  `json:"plan,omitempty"`

	State    string `json:"state,omitempty"`    // of a job that was read; empty if there is none
	Revision uint64 `json:"revision,omitempty"` // of a record that was read, or of the owner's lease
	Epoch    uint64 `json:"epoch,omitempty"`    // of the owner
}

// Plan is a schedule as whoever applied it means it. It has no times of start and
// end: it ticks from the call on.
type Plan struct {
	// Every is the distance of its ticks, which are multiples of it since 1970; Cron
	// an expression of five or six fields with numbers, lists, ranges and steps alone,
	// and Zone where that holds. A fixed delay has neither: nobody can tell its ticks.
	Every time.Duration `json:"every,omitempty"`
	Cron  string        `json:"cron,omitempty"`
	Zone  string        `json:"zone,omitempty"`
	// Most is how many of its jobs go on at a time; 0: any number. Cancels is set if a
	// tick has the job before it cancelled.
	Most    int  `json:"most,omitempty"`
	Cancels bool `json:"cancels,omitempty"`
	// Misfire is what becomes of ticks that are found more than a minute late: skip,
	// once, or all, and then Limit of them at most, not older than Window; 0: any.
	Misfire string        `json:"misfire,omitempty"`
	Limit   int           `json:"limit,omitempty"`
	Window  time.Duration `json:"window,omitempty"`
	// Ends is set if it may end or halt by itself.
	Ends bool `json:"ends,omitempty"`
}

// Time is when it happened.
func (e Entry) Time() time.Time { return time.Unix(0, e.At) }

// Writer appends entries to a file that others append to at the same time.
type Writer struct {
	file *os.File
	skew time.Duration
}

// Open opens the ledger at path, or makes it. The writer takes skew off the
// process's clock, for one that was set wrong on purpose.
func Open(path string, skew time.Duration) (*Writer, error) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ledger: open: %w", err)
	}
	return &Writer{file: file, skew: skew}, nil
}

// Now is the time that an entry written now gets.
func (w *Writer) Now() int64 { return time.Now().Add(-w.skew).UnixNano() }

// Write appends an entry, in one write, so that lines stay whole. It fills in
// the time unless that is given.
func (w *Writer) Write(e Entry) error {
	if e.At == 0 {
		e.At = w.Now()
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("ledger: encode %s: %w", e.What, err)
	}
	if _, err := w.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("ledger: append: %w", err)
	}
	return nil
}

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }

// Load reads a ledger, in the order in which it was written. Of a process that
// was killed while it wrote, the last line may be cut off, and is left out; any
// other line that cannot be read is an error.
func Load(path string) ([]Entry, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("ledger: load: %w", err)
	}
	defer file.Close()
	var entries []Entry
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	var broken error
	for n := 1; lines.Scan(); n++ {
		if broken != nil {
			return nil, broken
		}
		var e Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			broken = fmt.Errorf("ledger: line %d of %s: %w", n, path, err)
			continue
		}
		entries = append(entries, e)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("ledger: load: %w", err)
	}
	return entries, nil
}
