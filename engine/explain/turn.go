package explain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
)

// Turns is what a schedule that bounds how many of its jobs go on at a time knows of
// them.
type Turns struct {
	Most    int      // how many go on at a time; 0: any number, by now
	Running []string // those that have a turn
	Waiting []string // those that wait for one, the next first; others may wait, too
}

// turns is how it stands with the schedule for whose turn a job waits.
type turns struct {
	Turns
	gone bool // there is no schedule of that name
}

// lookAtTurns looks at the schedule for whose turn a job waits.
func (e *Explainer) lookAtTurns(ctx context.Context, j machine.Job) (*turns, error) {
	t, err := e.opts.Turns(ctx, j.Tick.Schedule)
	if errors.Is(err, store.ErrNotFound) {
		return &turns{gone: true}, nil
	}
	return &turns{Turns: t}, err
}

// turn explains a job that waits for a turn of its schedule.
func (v view) turn() (code, text string) {
	t, schedule := v.turns, v.job.Tick.Schedule
	what := "it waits for a turn of schedule " + schedule
	if _, there := v.owner(); !there {
		return v.byOwner(what, "give it one")
	}
	switch {
	case t.gone:
		return v.byOwner(what+", which is not there any more", "skip it")
	case t.Most == 0 || len(t.Running) < t.Most:
		return v.byOwner(what+", which has one to give", "do so")
	}
	what += fmt.Sprintf(": %s %s on, and no more than %d may", list(t.Running), either(len(t.Running), "goes", "go"), t.Most)
	ahead := slices.Index(t.Waiting, v.id)
	if ahead < 0 {
		ahead = len(t.Waiting) // one that people want: all of the queue goes first
	}
	if ahead > 0 {
		what += fmt.Sprintf("; before it %s %s", either(ahead, "waits", "wait"), list(t.Waiting[:ahead]))
	}
	return Turn, what
}

// list names the first few of some jobs.
func list(ids []string) string {
	text := either(len(ids), "job ", "jobs ") + strings.Join(ids[:min(len(ids), mostNamed)], ", ")
	if more := len(ids) - mostNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func either(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
