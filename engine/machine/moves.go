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
	Pending   State = "pending"   // ready for a worker
	Running   State = "running"   // claimed by Job.Lease
	Succeeded State = "succeeded" // final
	Failed    State = "failed"    // final: no failures left, or none allowed
	Cancelled State = "cancelled" // final: asked to end
)

// States lists every state, in the order of a job's life.
var States = []State{Pending, Running, Succeeded, Failed, Cancelled}

// Final reports whether nothing can move a job out of s.
func (s State) Final() bool { return s == Succeeded || s == Failed || s == Cancelled }

// Known reports whether s is a state that this build knows.
func (s State) Known() bool { return slices.Contains(States, s) }

// Move is what an event asks of a job.
type Move string

// The moves of a job.
const (
	Claim    Move = "claim"     // a node takes a pending job
	Reclaim  Move = "reclaim"   // a node takes again what it claimed without knowing
	TakeOver Move = "take over" // a node takes a running job from another
	Finish   Move = "finish"    // the handler succeeded
	Retry    Move = "retry"     // the attempt failed, and another is allowed
	GiveUp   Move = "give up"   // the attempt failed, and it was the last
	HandBack Move = "hand back" // the attempt ended without a failure
	Stop     Move = "cancel"    // somebody wants the job to end
	Obey     Move = "obey"      // an attempt ended that had been cancelled
)

// moves is the whole life of a job. Nothing else changes a state.
var moves = map[State]map[Move]State{
	Pending: {Claim: Running, Stop: Cancelled},
	Running: {
		Reclaim: Running, TakeOver: Running, Stop: Running,
		Finish: Succeeded, Retry: Pending, GiveUp: Failed, HandBack: Pending, Obey: Cancelled,
	},
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

// Diagram draws the table of moves as text: for every state the moves that it
// allows, and where they lead.
func Diagram() string {
	var b strings.Builder
	var final []string
	for _, from := range States {
		if from.Final() {
			final = append(final, string(from))
			continue
		}
		to := map[State][]string{}
		for move, state := range moves[from] {
			to[state] = append(to[state], string(move))
		}
		lines := slices.SortedFunc(maps.Keys(to), byOrder)
		for i, state := range lines {
			slices.Sort(to[state])
			names := strings.Join(to[state], ", ")
			fmt.Fprintf(&b, "%s %s %s▶ %s\n", branch(from, i, len(lines)), names, strings.Repeat("─", max(2, 28-len(names))), state)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s: nothing moves them\n", strings.Join(final, ", "))
	return b.String()
}

// branch draws the left side of line i of n that leave a state.
func branch(from State, i, n int) string {
	switch {
	case n == 1:
		return fmt.Sprintf("%-9s ───", from)
	case i == 0:
		return fmt.Sprintf("%-9s ─┬─", from)
	case i == n-1:
		return fmt.Sprintf("%-9s  └─", "")
	}
	return fmt.Sprintf("%-9s  ├─", "")
}

func byOrder(a, b State) int { return slices.Index(States, a) - slices.Index(States, b) }
