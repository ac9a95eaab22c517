package reconcile_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
)

// family submits a broadcast to n nodes that nobody knows, and returns its children.
func (w *world) family(local string, n int) (parent string, children []string) {
	w.Helper()
	j := job(local)
	fan := &machine.Fan{Total: n, OnLost: machine.ElseWait, Done: machine.GoalAll}
	for i := range n {
		fan.Shares = append(fan.Shares, machine.Share{Node: fmt.Sprintf("n%04d", i), Incarnation: 1})
	}
	j.State, j.Fan = machine.Waiting, fan
	_, _, err := w.Submit(w.Context(), j)
	must(0, err)(w)
	for _, share := range fan.Shares {
		children = append(children, store.ChildID(j.ID, share.Node))
	}
	return j.ID, children
}

// wantStates fails the test unless all of some jobs are in a state.
func (w *world) wantStates(state machine.State, ids ...string) {
	w.Helper()
	for _, id := range ids {
		if got := must(w.Get(w.Context(), id))(w).Value.State; got != state {
			w.Errorf("%s is %s, want %s", id, got, state)
		}
	}
}

// A job that waits for its children is met in each round, and lacks nothing.
func TestWaiting(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.own("owner")
		parent, _ := w.family("1", 3)
		time.Sleep(seen)
		o.mu.Lock()
		met := o.waiting[parent]
		o.mu.Unlock()
		if met != 1 {
			t.Errorf("met %d times, want once", met)
		}
		time.Sleep(11 * time.Minute)
		o.mu.Lock()
		met = o.waiting[parent]
		o.mu.Unlock()
		if met != 2 {
			t.Errorf("met %d times, want twice", met)
		}
		w.wantHealed(o, lacks{})
		if got := o.Count()["q"]; got.Pending != 3 || got.Waiting != 1 {
			t.Errorf("%+v are counted", got)
		}
	})
}

// So is a job that waits for a turn, until it is admitted: then it needs a timer, which
// is found out if it is not there.
func TestTurn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.own("owner")
		w.submit(3, "t", func(j *machine.Job) {
			j.Tick = &machine.Tick{Schedule: "nightly", At: j.Created, Turn: true}
			j.State, j.Wait, j.Due = machine.Scheduled, machine.WaitTurn, machine.Millisecond(j.Created)
		})
		met := func() [2]int {
			o.mu.Lock()
			defer o.mu.Unlock()
			return [2]int{o.waiting["nightly q.t0"], o.waiting["nightly q.t1"]}
		}
		time.Sleep(seen)
		if got := met(); got != [2]int{1, 1} {
			t.Errorf("met %v times, want once each", got)
		}
		if got := o.Count()["q"]; got.Pending != 0 || got.Delayed != 3 {
			t.Errorf("%+v are counted", got)
		}
		w.change("q.t0", machine.Admitted{At: time.Now().Add(time.Hour)})
		time.Sleep(11 * time.Minute)
		if got := met(); got[0] != 1 || got[1] < 2 { // the next round comes sooner if something was lost
			t.Errorf("met %v times, want that the one that waits is met again", got)
		}
		w.wantHealed(o, lacks{store.LackTimer: 1})
		w.wantStates(machine.Scheduled, "q.t0", "q.t1", "q.t2")
	})
}

// Whoever ended the parent has died, and nobody told the children: the next owner finds
// them, and so does this one.
func TestParentEnded(t *testing.T) {
	for _, takeover := range []bool{true, false} {
		bubble(t, func(_ *testing.T, w *world) {
			o := w.own("owner")
			parent, children := w.family("1", 5)
			time.Sleep(time.Minute)
			w.change(parent, machine.Stopped{Cause: "no", At: time.Now()})
			if takeover {
				o.stop()
				o = w.own("next")
				time.Sleep(seen)
			} else {
				time.Sleep(soon)
			}
			w.wantStates(machine.Cancelled, children...)
			w.wantHealed(o, lacks{store.LackParent: 5, store.LackExpiry: 1}) // who has died owed the parent its timer, too
		})
	}
}

// The record of the parent is gone: children that go on are cancelled, and those that
// have ended go when it is time.
func TestParentGone(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		parent, children := w.family("1", 4)
		for _, id := range children[:2] {
			w.change(id, machine.Stopped{Cause: "no", At: time.Now()})
		}
		entry := must(w.Get(w.Context(), parent))(w)
		must(0, w.jobs.Remove(w.Context(), parent, entry.Revision))(w)
		o := w.own("owner")
		time.Sleep(time.Minute)
		w.wantStates(machine.Cancelled, children...)
		time.Sleep(11 * time.Minute)
		w.wantHealed(o, lacks{store.LackParent: 2, store.LackExpiry: 4})
	})
}

// Children that have ended cost nothing as long as their parent is there, however many
// they are.
func TestEndedChildrenCostNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const n = 2000
		_, children := w.family("1", n)
		for _, entry := range must(w.jobs.GetManyStale(w.Context(), children))(w) {
			next := must(entry.Value.Apply(machine.Stopped{Cause: "no", At: time.Now()}))(w)
			must(0, w.pub.Room(w.Context()))(w)
			w.jobs.UpdateAsync(entry.Key, next, entry.Revision, func(_ uint64, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Minute)
		o := w.own("owner")
		time.Sleep(time.Minute)
		if sent := o.pub.Conn().Stats().OutMsgs; sent > 400 {
			t.Errorf("the owner sent %d messages about %d children that have ended", sent, n)
		}
		w.wantHealed(o, lacks{})
	})
}
