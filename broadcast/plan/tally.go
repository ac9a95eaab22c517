package plan

import (
	"github.com/millrace/millrace/engine/machine"
)

// Tally counts how the children of one job end. It is what somebody knows, not
// what is stored: whoever becomes owner begins a new one, and reads the children.
// All but [Tally.Open] and [Tally.Sum] is constant work. It is not safe for use
// by several goroutines.
type Tally struct {
	fan    machine.Fan
	states []machine.State // "": not made
	counts map[machine.State]int
	open   int // made, and not ended
	ended  int
	next   int // all before it are made
}

// NewTally returns the tally of a job with total children, of which nothing is
// known.
func NewTally(fan machine.Fan, total int) *Tally {
	return &Tally{fan: fan, states: make([]machine.State, total), counts: map[machine.State]int{}}
}

// Set notes that child i is in state s, or that it does not exist (""). What was
// said last of a child counts, so a redriven one is open again.
func (t *Tally) Set(i int, s machine.State) {
	t.count(t.states[i], -1)
	t.states[i] = s
	t.count(s, 1)
	if s == "" {
		t.next = min(t.next, i)
	}
}

func (t *Tally) count(s machine.State, by int) {
	switch {
	case s == "":
		return
	case s.Final():
		t.ended += by
	default:
		t.open += by
	}
	t.counts[s] += by
}

// State returns what was said last of child i.
func (t *Tally) State(i int) machine.State { return t.states[i] }

// Open returns the children that were made and have not ended, in order.
func (t *Tally) Open() []int {
	list := make([]int, 0, t.open)
	for i, s := range t.states {
		if s != "" && !s.Final() {
			list = append(list, i)
		}
	}
	return list
}

// Next returns the children that are to be made now, in order: as many as there
// may be at a time with those that are open, and none once success is out of
// reach. The caller makes them, and says so by [Tally.Set].
func (t *Tally) Next() []int {
	over, _ := t.Decided()
	if over || t.hopeless() && t.fan.MaxParallel > 0 {
		return nil
	}
	for t.next < len(t.states) && t.states[t.next] != "" {
		t.next++
	}
	room := len(t.states)
	if t.fan.MaxParallel > 0 {
		room = t.fan.MaxParallel - t.open
	}
	var list []int
	for i := t.next; i < len(t.states) && len(list) < room; i++ {
		if t.states[i] == "" {
			list = append(list, i)
		}
	}
	return list
}

// Decided reports whether the job is over, and whether it succeeded.
//
// For [machine.GoalAny] and [machine.GoalCount] it is over as soon as enough
// children have succeeded, or too many have not; whatever is open is to be
// cancelled then. Otherwise it is over when every child has ended; under
// MaxParallel, when success is out of reach and every child that was made has
// ended. A job without children is over and did not succeed.
func (t *Tally) Decided() (over, success bool) {
	reached := len(t.states) > 0 && t.counts[machine.Succeeded] >= t.Need()
	all := t.ended == len(t.states)
	switch t.fan.Done {
	case machine.GoalAny, machine.GoalCount:
		over = reached || t.hopeless() || all
	default:
		over = all || t.fan.MaxParallel > 0 && t.hopeless() && t.open == 0
	}
	return over, over && reached
}

// Need returns how many children have to succeed.
func (t *Tally) Need() int {
	switch t.fan.Done {
	case machine.GoalQuorum:
		return len(t.states)/2 + 1
	case machine.GoalAny:
		return 1
	case machine.GoalCount:
		return t.fan.Need
	case machine.GoalAll:
	}
	return len(t.states)
}

// hopeless reports whether success is out of reach, whatever becomes of the
// children that have not ended.
func (t *Tally) hopeless() bool {
	missed := t.ended - t.counts[machine.Succeeded]
	return len(t.states)-missed < t.Need()
}

// maxMissed is how many children the record of a job names that did not succeed.
const maxMissed = 20

// Sum returns what is stored of a job that is over. What is open then counts as
// cancelled, which the end of the job does to it. Up to 20 children are named that
// did not succeed: those that failed or are lost first, never one that was not
// made.
func (t *Tally) Sum(names func(i int) string) machine.Tally {
	sum := machine.Tally{
		Succeeded: t.counts[machine.Succeeded],
		Failed:    t.counts[machine.Failed],
		Lost:      t.counts[machine.Lost],
		Unstarted: len(t.states) - t.ended - t.open,
	}
	sum.Cancelled = len(t.states) - sum.Succeeded - sum.Failed - sum.Lost - sum.Unstarted
	named := func(which func(machine.State) bool) {
		for i, s := range t.states {
			if len(sum.Missed) < maxMissed && which(s) {
				sum.Missed = append(sum.Missed, names(i))
			}
		}
	}
	bad := func(s machine.State) bool { return s == machine.Failed || s == machine.Lost }
	named(bad)
	named(func(s machine.State) bool { return s != "" && s != machine.Succeeded && !bad(s) })
	return sum
}
