package broadcast_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
)

// all is how every child ends.
func all(n int, how machine.State) []machine.State {
	list := make([]machine.State, n)
	for i := range list {
		list[i] = how
	}
	return list
}

// How the children end decides how their parent does, and it says who is to blame.
func TestGoals(t *testing.T) {
	const yes, no, lost, cancelled = machine.Succeeded, machine.Failed, machine.Lost, machine.Cancelled
	tests := map[string]struct {
		goal    machine.Goal
		need    int
		ends    []machine.State // in this order; "" stays open
		state   machine.State
		message string
		tally   machine.Tally
	}{
		"all": {machine.GoalAll, 0, []machine.State{yes, yes, yes}, yes, "", machine.Tally{Succeeded: 3}},
		"all but one": {
			machine.GoalAll, 0,
			[]machine.State{yes, yes, lost},
			no,
			"2 of 3 parts succeeded: n002 lost",
			machine.Tally{Succeeded: 2, Lost: 1, Missed: []string{"n002"}},
		},
		"none of many": {
			machine.GoalAll, 0, all(8, no), no,
			"0 of 8 parts succeeded: n000 failed, n001 failed, n002 failed, n003 failed, n004 failed and 3 more",
			machine.Tally{Failed: 8, Missed: []string{"n000", "n001", "n002", "n003", "n004", "n005", "n006", "n007"}},
		},
		"quorum": {
			machine.GoalQuorum, 0,
			[]machine.State{yes, lost, yes},
			yes, "",
			machine.Tally{Succeeded: 2, Lost: 1, Missed: []string{"n001"}},
		},
		"half is no quorum": {
			machine.GoalQuorum, 0,
			[]machine.State{yes, lost, yes, cancelled},
			no,
			"2 of 4 parts succeeded, and 3 had to: n001 lost, n003 cancelled",
			machine.Tally{Succeeded: 2, Lost: 1, Cancelled: 1, Missed: []string{"n001", "n003"}},
		},
		"any": {
			machine.GoalAny, 0,
			[]machine.State{no, yes, ""},
			yes, "",
			machine.Tally{Succeeded: 1, Failed: 1, Cancelled: 1, Missed: []string{"n000", "n002"}},
		},
		"count": {
			machine.GoalCount, 2,
			[]machine.State{yes, yes, "", ""},
			yes, "",
			machine.Tally{Succeeded: 2, Cancelled: 2, Missed: []string{"n002", "n003"}},
		},
		"count out of reach": {
			machine.GoalCount, 2,
			[]machine.State{no, no, ""},
			no,
			"0 of 3 parts succeeded, and 2 had to: n000 failed, n001 failed, n002 cancelled",
			machine.Tally{Failed: 2, Cancelled: 1, Missed: []string{"n000", "n001", "n002"}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(_ *testing.T, w *world) {
				w.keep("k", nil)
				w.submit(parent(len(test.ends), func(f *machine.Fan) { f.Done, f.Need = test.goal, test.need }))
				time.Sleep(moment)
				for i, how := range test.ends {
					if how != "" {
						w.wantWaiting()
						w.end(i, how)
						time.Sleep(moment)
					}
				}
				w.wantEnded(test.state, test.message, test.tally)
				w.wantOpen()
			})
		})
	}
}

// Only so many parts are open at a time, and the first failure is the last one.
func TestRolling(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		w.keep("k", nil)
		w.submit(parent(6, func(f *machine.Fan) { f.MaxParallel = 2 }))
		time.Sleep(moment)
		w.wantOpen(0, 1)
		w.end(1, machine.Succeeded)
		time.Sleep(moment)
		w.wantOpen(0, 2)
		w.end(2, machine.Succeeded)
		time.Sleep(moment)
		w.wantOpen(0, 3)
		w.end(0, machine.Failed)
		time.Sleep(moment)
		w.wantOpen(3)
		w.wantWaiting()
		w.end(3, machine.Succeeded)
		time.Sleep(moment)
		w.wantEnded(machine.Failed, "3 of 6 parts succeeded: n000 failed; 2 not started",
			machine.Tally{Succeeded: 3, Failed: 1, Unstarted: 2, Missed: []string{"n000"}})
	})
}

// One after the other, to the end, with every message lost on the way.
func TestRollingUnheard(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		w.keep("k", nil)
		w.submit(parent(3, func(f *machine.Fan) { f.MaxParallel = 1 }))
		for i := range 3 {
			time.Sleep(polled)
			w.wantOpen(i)
			w.silently(i, machine.Succeeded)
		}
		time.Sleep(polled)
		w.wantEnded(machine.Succeeded, "", machine.Tally{Succeeded: 3})
	})
}

// An end that nobody has heard of is found by reading.
func TestUnheard(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		w.keep("k", nil)
		w.submit(parent(3, nil))
		time.Sleep(time.Minute) // by now it reads rarely
		w.silently(0, machine.Succeeded)
		w.silently(1, machine.Succeeded)
		time.Sleep(polled)
		w.wantWaiting()
		w.silently(2, machine.Lost)
		time.Sleep(polled)
		w.wantEnded(machine.Failed, "2 of 3 parts succeeded: n002 lost", machine.Tally{Succeeded: 2, Lost: 1, Missed: []string{"n002"}})
	})
}

// A keeper that comes when everything is over already, and is told of the record only.
func TestSeen(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		w.submit(parent(3, nil))
		for i := range 3 {
			w.end(i, machine.Succeeded)
		}
		time.Sleep(time.Minute)
		k := w.keep("k", nil)
		time.Sleep(polled)
		w.wantWaiting() // it was not told
		k.Seen("q.1")
		k.Seen("q.1")
		k.Seen("q.nobody")
		time.Sleep(moment)
		w.wantEnded(machine.Succeeded, "", machine.Tally{Succeeded: 3})
	})
}

// The submitter has died: the children that it has not made are made.
func TestForks(t *testing.T) {
	for made := range 4 {
		t.Run(fmt.Sprint(made), func(t *testing.T) {
			bubble(t, func(_ *testing.T, w *world) {
				k := w.keep("k", nil)
				j := parent(3, nil)
				revision := must(w.jobs.Create(w.Context(), j.ID, j))(w)
				entry := w.get(j.ID)
				var first []int
				for i := range made {
					first = append(first, i)
				}
				must(0, w.Fork(w.Context(), entry, j.Fan.Shares, first))(w)
				if made > 0 {
					w.end(0, machine.Succeeded) // the keeper hears of it, and leaves the submitter some time
				} else {
					time.Sleep(11 * time.Second) // the reconciler has read it by then
					k.Seen(j.ID)
				}
				time.Sleep(polled)
				for i := range 3 {
					if i > 0 || made == 0 {
						w.end(i, machine.Succeeded)
					}
				}
				time.Sleep(moment)
				w.wantEnded(machine.Succeeded, "", machine.Tally{Succeeded: 3})
				if revision == 0 {
					t.Error("the record has no revision")
				}
			})
		})
	}
}

// What is heard may be wrong: of a life before, or of nobody. Only what is stored counts.
func TestRumours(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		w.keep("k", nil)
		w.submit(parent(2, nil))
		time.Sleep(moment)
		for range 3 {
			w.rumour("q.1", "n000", machine.Succeeded)
			w.rumour("q.1", "n001", machine.Failed)
			w.rumour("q.1", "n999", machine.Succeeded)
			w.rumour("q.2", "n001", machine.Succeeded)
			w.rumour("q.1", "n001", machine.Running)
			time.Sleep(moment)
			w.wantWaiting()
			w.wantOpen(0, 1)
		}
		w.end(0, machine.Succeeded)
		w.end(1, machine.Succeeded)
		time.Sleep(moment)
		w.wantEnded(machine.Succeeded, "", machine.Tally{Succeeded: 2})
	})
}

// No rumour makes a further part start.
func TestRumoursOfRolling(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		w.keep("k", nil)
		w.submit(parent(3, func(f *machine.Fan) { f.MaxParallel = 1 }))
		time.Sleep(moment)
		for range 3 {
			w.rumour("q.1", "n000", machine.Succeeded)
			time.Sleep(polled)
			w.wantOpen(0)
		}
	})
}

// Children that go again and again, whatever takes them, are made more and more rarely.
func TestForksWithoutEnd(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		w.keep("k", nil)
		w.submit(parent(2, func(f *machine.Fan) { f.MaxParallel = 1 }))
		made := 0
		for range 2 * 60 {
			if child, err := w.Get(w.Context(), store.ChildID("q.1", "n000")); err == nil {
				made++
				must(0, w.jobs.Remove(w.Context(), child.Key, child.Revision))(w)
			}
			w.rumour("q.1", "n000", machine.Succeeded)
			time.Sleep(time.Second)
		}
		if made < 8 || made > 20 {
			t.Errorf("a child was made %d times in two minutes, want every 10 s in the end", made)
		}
	})
}
