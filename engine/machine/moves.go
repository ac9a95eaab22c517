package machine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// State is where a job stands. The zero value is not a state.
type State string

// The states of a job.
const (
	Scheduled State = "scheduled" // for later: see Job.Due and Job.Wait
	Pending   State = "pending"   // ready for a worker
	Running   State = "running"   // claimed by Job.Lease
	Retrying  State = "retrying"  // failed, to be tried again: see Job.Due
	Succeeded State = "succeeded" // ended
	Failed    State = "failed"    // ended: no failures left, none allowed, or too late
	Cancelled State = "cancelled" // ended: asked to
	Waiting   State = "waiting"   // has children that have not ended: see Job.Fan
	Lost      State = "lost"      // ended: its node is gone, and it was for no other
	Skipped   State = "skipped"   // ended: its schedule declined it
	Removing  State = "removing"  // ended, and about to go with what it owns
)

// States lists every state, in the order of a job's life.
var States = []State{Scheduled, Pending, Running, Retrying, Waiting, Succeeded, Failed, Cancelled, Skipped, Lost, Removing}

// Final reports whether a job in s has ended: no worker gets it any more.
func (s State) Final() bool {
	return s == Succeeded || s == Failed || s == Cancelled || s == Skipped || s == Lost || s == Removing
}

// Delayed reports whether a job in s waits for its due time.
func (s State) Delayed() bool { return s == Scheduled || s == Retrying }

// Known reports whether s is a state that this build knows.
func (s State) Known() bool { return slices.Contains(States, s) }

// Move is what an event asks of a job.
type Move string

// The moves of a job.
const (
	Claim    Move = "claim"     // a node takes a job that is pending or due
	Reclaim  Move = "reclaim"   // a node takes again what it claimed without knowing
	TakeOver Move = "take over" // a node takes a running job from another
	Orphan   Move = "orphan"    // the node of a running job is gone
	Note     Move = "report"    // the handler says how far it is
	Finish   Move = "finish"    // the handler succeeded
	Again    Move = "retry"     // the attempt failed, and another is allowed
	GiveUp   Move = "give up"   // the attempt failed, and it was the last
	HandBack Move = "hand back" // the attempt ended without a failure
	Snooze   Move = "snooze"    // the attempt ended without a failure, to be tried later
	Postpone Move = "postpone"  // the node has no handler for the job
	Stop     Move = "cancel"    // somebody wants the job to end
	Obey     Move = "obey"      // an attempt ended that had been cancelled
	TimeOut  Move = "time out"  // the time to start, or to end, is over
	Overrun  Move = "overrun"   // an attempt ended whose deadline had passed
	Redrive  Move = "redrive"   // a job that has ended is to run once more
	Remove   Move = "remove"    // the record is to go
	Dispatch Move = "dispatch"  // its children are to be made
	Reopen   Move = "reopen"    // a job with children that has ended is to go on
	Restart  Move = "restart"   // a job that ended before it had children is to have them
	Place    Move = "place"     // it is for another node
	Desert   Move = "desert"    // its node is gone, and it goes nowhere else
	Admit    Move = "admit"     // its schedule lets it run
	Skip     Move = "skip"      // its schedule does not
)

// moves is the whole life of a job. Nothing else changes a state.
var moves = map[State]map[Move]State{
	Scheduled: {
		Claim: Running, Postpone: Scheduled, Stop: Cancelled, TimeOut: Failed, Dispatch: Waiting, Place: Scheduled, Desert: Lost,
		Admit: Scheduled, Skip: Skipped,
	},
	Pending:  {Claim: Running, Postpone: Scheduled, Stop: Cancelled, TimeOut: Failed, Place: Pending, Desert: Lost, Skip: Skipped},
	Retrying: {Claim: Running, Postpone: Scheduled, Stop: Cancelled, TimeOut: Failed, Place: Retrying, Desert: Lost},
	Running: {
		Reclaim: Running, TakeOver: Running, Note: Running, Stop: Running, TimeOut: Running, Orphan: Pending,
		Finish: Succeeded, Again: Retrying, GiveUp: Failed, HandBack: Pending, Snooze: Scheduled,
		Postpone: Scheduled, Obey: Cancelled, Overrun: Failed, Desert: Lost,
	},
	Waiting:   {Finish: Succeeded, GiveUp: Failed, Stop: Cancelled, TimeOut: Failed},
	Succeeded: {Redrive: Pending, Reopen: Waiting, Restart: Scheduled, Remove: Removing},
	Failed:    {Redrive: Pending, Reopen: Waiting, Restart: Scheduled, Remove: Removing},
	Cancelled: {Redrive: Pending, Reopen: Waiting, Restart: Scheduled, Remove: Removing},
	Skipped:   {Redrive: Pending, Reopen: Waiting, Restart: Scheduled, Remove: Removing},
	Lost:      {Redrive: Pending, Remove: Removing},
}

// MoveError reports an event that a job does not allow.
type MoveError struct {
	ID    string // of the job
	From  State
	Move  Move
	Stale bool // sent under a token that no longer holds the job
}

// Error says which move was refused, and why.
func (e *MoveError) Error() string {
	if e.Stale {
		return fmt.Sprintf("job %s: cannot %s: the attempt does not hold the job any more", e.ID, e.Move)
	}
	return fmt.Sprintf("job %s: cannot %s while %s", e.ID, e.Move, e.From)
}

// Diagram draws the table of moves as text: for the states that allow the same
// moves, these moves, and where they lead.
func Diagram() string {
	var b strings.Builder
	for _, from := range States {
		group := alike(from)
		if group[0] != string(from) {
			continue // drawn with the first of them
		}
		fmt.Fprintln(&b, strings.Join(group, ", "))
		to := map[State][]string{}
		for move, state := range moves[from] {
			to[state] = append(to[state], string(move))
		}
		if len(to) == 0 {
			b.WriteString(" └─ nothing: the record goes\n")
		}
		for i, state := range slices.SortedFunc(maps.Keys(to), byOrder) {
			branch := "├─"
			if i == len(to)-1 {
				branch = "└─"
			}
			slices.Sort(to[state])
			names := strings.Join(to[state], ", ")
			fmt.Fprintf(&b, " %s %s %s▶ %s\n", branch, names, strings.Repeat("─", max(2, 40-len(names))), state)
		}
		b.WriteString("\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// alike returns the states that allow the same moves as s, s among them.
func alike(s State) []string {
	var list []string
	for _, other := range States {
		if maps.Equal(moves[other], moves[s]) {
			list = append(list, string(other))
		}
	}
	return list
}

func byOrder(a, b State) int { return slices.Index(States, a) - slices.Index(States, b) }
